#!/usr/bin/env python3
"""Verify a Treeline evidence bundle offline: verify_bundle.py FILE.zip VKEY [WITNESS_VKEY ...]

Written from docs/spec.md, sections 14 and 8.5, with nothing but Python's standard library. VKEY is the verifier key of the log, obtained from
somebody you believe about it. Further keys are those of witnesses, all of which must then have cosigned the checkpoint. Only Ed25519
signatures are understood. Exit codes: 0 VALID; 1 could not run; 3 not verifiable; 4 INVALID.
"""
import base64, datetime, hashlib, hmac, json, re, struct, sys, zlib

PART = 512  # events


class Unverifiable(Exception):
    pass


def need(condition, why):
    if not condition:
        raise ValueError(why)


# Ed25519 (RFC 8032, section 5.1)
P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def add(a, b):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    m, n, o, p = (y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2), 2 * t1 * t2 * D, 2 * z1 * z2
    e, f, g, h = n - m, p - o, p + o, n + m
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n, point):
    result = (0, 1, 1, 0)
    while n:
        if n & 1:
            result = add(result, point)
        point, n = add(point, point), n >> 1
    return result


def point(data):
    y, sign = int.from_bytes(data, "little") & (2**255 - 1), data[31] >> 7
    xx = (y * y - 1) * pow(D * y * y + 1, -1, P)
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    need(y < P and (x * x - xx) % P == 0 and (x or not sign), "no point of the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def ed25519(key, message, signature):
    s = int.from_bytes(signature[32:], "little")
    need(len(key) == 32 and len(signature) == 64 and s < Q, "malformed key or signature")
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % Q
    a, b = times(s, BASE), add(point(signature[:32]), times(h, point(key)))
    need((a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0, "a signature fails")


def sha(data):
    return hashlib.sha256(data).digest()


def unhex(text):
    data = bytes.fromhex(text)
    need(data.hex() == text, "hex that is not in lower case")
    return data


def verifier_key(text, type):
    """Returns name, hash and key of a verifier key, whose key begins with the byte of its type."""
    try:
        name, hash, key = re.fullmatch("([^ +]+)\\+([0-9a-f]{8})\\+([A-Za-z0-9+/=]+)", text).groups()
        hash, key = bytes.fromhex(hash), base64.b64decode(key, validate=True)
        need(hash == sha(name.encode() + b"\n" + key)[:4] and key[0] == type and len(key) == 33, "altered")
    except (ValueError, AttributeError, IndexError):
        sys.exit(f"{text} is no verifier key: want NAME+HASH+KEY, whole and unchanged, of Ed25519, the log's first and then witnesses'")
    return text, name, hash, key[1:]


def checkpoint(note, keys, missing):
    """Returns origin, size and root of the checkpoint, and adds to missing which of the keys haven't signed it (sections 7.2 to 7.4)."""
    text, _, signatures = note.decode().rpartition("\n\n")
    origin, size, root = text.split("\n")
    head, signed = (text + "\n").encode(), {}
    for line in signatures.splitlines(True):
        name, sig = re.fullmatch("— ([^ +\n]+) ([A-Za-z0-9+/=]+)\n", line).groups()
        raw = b64(sig)
        need((name, raw[:4]) not in signed, "two signatures of one key")
        signed[name, raw[:4]] = raw[4:]
    for i, (vkey, name, hash, key) in enumerate(keys):
        if (name, hash) not in signed or not i and name != origin:
            missing.append(f"the checkpoint of {origin} isn't signed by {vkey}")
            continue
        sig, message = signed[name, hash], head
        if i:  # a witness
            message = b"cosignature/v1\ntime %d\n" % struct.unpack(">Q", sig[:8]) + head
            sig = sig[8:]
        ed25519(key, message, sig)
    need(re.fullmatch("0|[1-9][0-9]*", size), "malformed checkpoint")
    return origin, int(size), b64(root)


class Number(str):
    """A number as it is written, which in canonical JSON is the only way."""


def b64(text):
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "base64 that is not canonical")
    return data


def jcs(v):
    if isinstance(v, dict):
        return "{" + ",".join(jcs(k) + ":" + jcs(v[k]) for k in sorted(v, key=lambda k: k.encode("utf-16-be"))) + "}"
    if isinstance(v, list):
        return "[" + ",".join(map(jcs, v)) + "]"
    return str(v) if isinstance(v, Number) else json.dumps(v, ensure_ascii=False)


def parse(text):
    v = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=lambda c: need(False, c))
    need(jcs(v) == text, "not in canonical form")
    return v


POINTER = re.compile(r"/(id|action|occurred_at|outcome|credential|actor/(id|type|name|email)|targets/(0|1?[1-9]|10)/(id|type|name)"
                     r"|context/(ip|user_agent|location|session_id|request_id|traceparent)|changes/(0|[1-9][0-9]?)|metadata/([^~/\0]|~[01])+)")


def claims(event):
    """Cuts an event into its claims (section 4.1)."""
    for name, value in event.items():
        if name in ("actor", "context", "metadata"):
            for member, v in value.items():
                yield f"/{name}/" + member.replace("~", "~0").replace("/", "~1"), v
        elif name == "targets":
            for i, target in enumerate(value):
                yield from ((f"/targets/{i}/{member}", v) for member, v in target.items())
        elif name == "changes":
            yield from ((f"/changes/{i}", v) for i, v in enumerate(value))
        else:
            yield "/" + name, value


def commitment(salt, pointer, value):
    need(len(salt) == 32, "a salt isn't of 32 bytes")
    return sha(salt + struct.pack(">I", len(pointer)) + pointer + jcs(value).encode())


def digest(d):
    """Returns the event digest that a disclosure gives (sections 4.3 and 8), and the pointers that it withholds."""
    need(set(d) - {"previous_hash", "received_at"} in ({"event", "seed"}, {"claims"}, {"digest"}), "not one form of a disclosure")
    if "digest" in d:
        return unhex(d["digest"]), None
    if "event" in d:
        salt = lambda p: hmac.new(unhex(d["seed"]), p, "sha256").digest()
        need(len(d["seed"]) == 64, "a seed isn't of 32 bytes")
        cut, hidden = [(p.encode(), commitment(salt(p.encode()), p.encode(), v)) for p, v in claims(d["event"])], []
    else:
        cut = [(c["pointer"].encode(), commitment(unhex(c["salt"]), c["pointer"].encode(), c["value"]) if "salt" in c
                else unhex(c["commitment"])) for c in d["claims"]]
        hidden = [c["pointer"] for c in d["claims"] if "salt" not in c]
        need([p for p, _ in cut] == sorted({p for p, _ in cut}), "claims are not in order")
        hidden = None if len(hidden) == len(cut) else hidden
    need({b"/id", b"/action"} <= {p for p, _ in cut}, "a claim is missing that every event has")
    need(all(POINTER.fullmatch(p.decode()) and len(c) == 32 for p, c in cut), "a claim that no event has")
    return sha(b"treeline/event/v1\n" + b"".join(struct.pack(">I", len(p)) + p + c for p, c in sorted(cut))), hidden


def entry(d):
    """Returns the entry of a disclosure (sections 5 and 8.3), when it was received, and the pointers that are withheld."""
    hash, hidden = digest(d)
    t = datetime.datetime.strptime(d["received_at"], "%Y-%m-%dT%H:%M:%S.%fZ")
    need(t.isoformat(timespec="microseconds") + "Z" == d["received_at"], "a malformed time")
    micros = (t - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)
    return b"\1" + struct.pack(">Q", micros) + unhex(d["previous_hash"]) + hash, micros, hidden


def inside(spans, index):
    return any(a <= index < b for a, b in spans)


def ranges(v, end):
    need(v and all(isinstance(n, Number) and re.fullmatch("0|[1-9][0-9]*", n) for span in v for n in span), "no ranges")
    spans = [(int(a), int(b)) for a, b in v]
    need(all(a < b <= end for a, b in spans) and all(x[1] <= y[0] for x, y in zip(spans, spans[1:])), "malformed ranges")
    return spans


def removal(proof, origin, keys):
    """Returns what a proof file shows to have been removed (sections 9, 10, 8.5): ranges, and claims; whether it counts."""
    head, _, note = proof.decode().partition("\n\n")
    extra, number, hashes = re.fullmatch("c2sp.org/tlog-proof@v1\nextra ([^\n]+)\nindex (0|[1-9][0-9]*)((?:\n[^\n]+)*)", head).groups()
    missing = [] if keys else ["no key is pinned"]
    name, size, root = checkpoint(note.encode(), keys, missing)
    d, index = parse(b64(extra).decode()), int(number)
    leaf, last, at = sha(b"\0" + entry(d)[0]), size - 1, index
    for h in map(b64, hashes.split("\n")[1:]):  # RFC 9162, section 2.1.3.2
        need(last > 0 and len(h) == 32, "a malformed inclusion proof")
        right = at & 1 or at == last
        leaf = sha(b"\1" + h + leaf) if right else sha(b"\1" + leaf + h)
        while right and not at & 1 and at:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    need(name == origin and index < size and not last and leaf == root, "a removal isn't proven to be in the log")
    shown = dict(claims(d["event"])) if "event" in d else {c["pointer"]: c["value"] for c in d["claims"] if "salt" in c}
    need(isinstance(shown["/id"], str), "a removal without an id")
    if shown["/action"] == "treeline.retention.purged":
        return ranges(shown["/metadata/ranges"], index), [], not missing
    need(shown["/action"] == "treeline.subject.erased" and shown["/metadata/erased"], "not an event that tells of a removal")
    erased = []
    for group in shown["/metadata/erased"]:
        pointers = group["pointers"]
        need(set(group) == {"pointers", "ranges"} and pointers and pointers == sorted(set(pointers), key=str.encode)
             and all(POINTER.fullmatch(p) and p not in ("/id", "/action", "/credential") for p in pointers), "malformed pointers")
        erased.append((pointers, ranges(group["ranges"], index)))
    return [], erased, not missing


class Container:
    """The files of a bundle, which must be of the one form (section 14.1)."""

    def __init__(self, data):
        self.data, self.at, self.directory, self.hashes, self.count = data, 0, b"", [], 0

    def next(self, name):
        """Returns the content of the file that comes next, or None if it isn't called that."""
        crc, size = struct.unpack("<II", self.data[self.at + 14:self.at + 22].ljust(8, b"\0"))
        common = struct.pack("<HHHHHIIIHH", 10, 0, 0, 0, 0x21, crc, size, size, len(name), 0)
        head = b"PK\x03\x04" + common + name.encode()
        start = self.at + len(head)
        content = self.data[start:start + size]
        if self.data[self.at:start] != head:
            return None
        need(len(content) == size and zlib.crc32(content) == crc, name + " is cut off or has another checksum")
        self.directory += b"PK\x01\x02\x0a\0" + common + bytes(10) + struct.pack("<I", self.at) + name.encode()
        self.at, self.count = start + size, self.count + 1
        if not name.startswith("events/"):
            self.hashes.append({"name": name, "sha256": sha(content).hex(), "size": Number(size)})
        return content

    def read(self, name):
        content = self.next(name)
        need(content is not None, f"there is no file {name} where it should be")
        return content

    def close(self):
        end = struct.pack("<HHHHIIH", 0, 0, self.count, self.count, len(self.directory), self.at, 0)
        need(self.data[self.at:] == self.directory + b"PK\x05\x06" + end, "its directory doesn't say what is in it")


class Tree:
    """A Merkle tree that is appended to (section 6): leaves, and perfect subtrees of which only the hash is known (14.3)."""

    def __init__(self):
        self.size, self.stack = 0, []

    def append(self, level, h):
        self.size += 1 << level
        while self.stack and self.stack[-1][0] == level:
            level, h = level + 1, sha(b"\1" + self.stack.pop()[1] + h)
        self.stack.append((level, h))

    def cover(self, to, hashes):
        """Appends the entries up to one from the hashes of their cover, and returns those that are left."""
        while self.size < to:
            level = (to - self.size).bit_length() - 1
            if self.size:
                level = min(level, (self.size & -self.size).bit_length() - 1)
            need(len(hashes) >= 32, "hashes are missing")
            self.append(level, hashes[:32])
            hashes = hashes[32:]
        return hashes

    def root(self):
        h = self.stack[-1][1] if self.stack else sha(b"")
        for _, left in reversed(self.stack[:-1]):
            h = sha(b"\1" + left + h)
        return h


def verify(data, keys):
    files, tree, count, first, last, then, gone, withheld = Container(data), Tree(), 0, 0, b"", 0, 0, set()
    purged, erased, removed, hidden_by = [], [], 0, set()
    missing = [] if keys else ["no key is pinned"]
    files.read("README.txt")
    origin, size, root = checkpoint(files.read("checkpoint"), keys, missing)
    files.read("policy")
    number = 0
    while (proof := files.next(f"removals/{number:06}.tlog-proof")) is not None:
        spans, groups, counts = removal(proof, origin, keys)
        need(number < 4096 and len(proof) <= 262144, "too many removals, or too large")
        purged, erased, number = purged + spans * counts, erased + groups * counts, number + 1
    part, hashes, full = 0, b"", True
    while (entries := files.next(f"entries/{part:06}.bin")) is not None:
        need(not hashes and full and len(entries) % 81 == 0 and len(entries) <= 81 * PART and (entries or not part), "a malformed part")
        full = len(entries) == 81 * PART
        hashes = files.read(f"hashes/{part:06}.bin")
        lines = files.read(f"events/{part:06}.ndjson").decode().split("\n")
        need(lines.pop() == "" and len(lines) == len(entries) // 81, "not as many events as entries")
        for i, line in enumerate(lines):
            index, stored = struct.unpack(">Q", entries[81 * i:81 * i + 8])[0], entries[81 * i + 8:81 * i + 81]
            if stored[0] != 1:
                raise Unverifiable(f"entry {index} is of an unknown version")
            event = parse(line)
            need(set(event) == {"disclosure", "index"} and event["index"] == str(index), f"the line of event {index} is malformed")
            made, micros, hidden = entry(event["disclosure"])
            need(stored == made, f"event {index} isn't that of its entry")
            need(tree.size <= index < size and then <= micros, f"entry {index} is out of order")
            genesis = sha(b"treeline/log/v1\n" + origin.encode() + b"\n")
            need(index > tree.size or stored[9:41] == (last if index else genesis), f"entry {index} isn't chained to the one before")
            hashes = tree.cover(index, hashes)
            last, then, first = sha(b"\0" + stored), micros, first if count else index
            tree.append(0, last)
            count, known = count + 1, inside(purged, index)
            removed, gone = removed + (hidden is None and known), gone + (hidden is None and not known)
            by = {p for p in hidden or [] if any(p in pointers and inside(spans, index) for pointers, spans in erased)}
            withheld, hidden_by = withheld | set(hidden or []) - by, hidden_by | by
        part += 1
    need(part, "there are no entries")
    end = tree.size
    need(not tree.cover(size, hashes) and tree.root() == root, "entries and hashes don't lead to the checkpoint's root")
    said = list(files.hashes)
    m = parse(files.read("manifest.json").decode())
    files.close()
    if m["format"] != "treeline/bundle@v1":
        raise Unverifiable("the bundle is of an unknown format")
    start, to = int(m["from"]), int(m["to"])
    want = {"count": Number(count), "files": said, "filter": m["filter"], "format": m["format"], "from": Number(start), "origin": origin,
            "root": root.hex(), "size": Number(size), "to": Number(to)}
    need(m == want and isinstance(m["filter"], str), "the manifest doesn't say what is in the bundle")
    need(start <= to <= size and (not count or start <= first and end <= to) and count <= to - start, "the manifest has another range")
    need(m["filter"] or count == to - start, "events are missing that the manifest promises")
    missing += [f"nothing is shown of {gone} events"] if gone else []
    if missing:
        raise Unverifiable("; ".join(missing))
    return (f"VALID\nlog {origin}\ncheckpoint of size {size}, root {root.hex()}\n{count} events from index {start} up to {to}"
            + ("" if count == to - start else ", others are left out; said to be all for " + m["filter"])
            + (f"\n{removed} events were purged, as the log itself records" if removed else "")
            + ("\nclaims erased, as the log itself records: " + " ".join(sorted(hidden_by)) if hidden_by else "")
            + ("\nclaims withheld: " + " ".join(sorted(withheld)) if withheld else ""))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python3 verify_bundle.py FILE KEY [WITNESS_KEY …]")
    keys = [verifier_key(text, 4 if i else 1) for i, text in enumerate(sys.argv[2:])]
    try:
        bundle = open(sys.argv[1], "rb").read()
    except OSError as e:
        sys.exit(str(e))
    try:
        print(verify(bundle, keys))
    except Unverifiable as e:
        sys.exit(print("NOT_VERIFIABLE:", e) or 3)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError, struct.error) as e:
        sys.exit(print("INVALID:", e) or 4)
