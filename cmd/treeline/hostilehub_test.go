package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// hostileHub is a hub of the operator's, who writes into it what it likes and has it cosigned: witnesses see the hub, and nothing of the
// logs in it.
type hostileHub struct {
	o            *operator
	origin, vkey string
	signer       note.Signer
	entries      [][]byte
	growth       map[int]string // answers about entries
}

func (o *operator) newHub(entries ...[]byte) *hostileHub {
	o.t.Helper()
	seed, err := checkpoint.LoadSeed(filepath.Join(o.shown.dir, "seed"))
	if err != nil {
		o.t.Fatal(err)
	}
	h := &hostileHub{o: o, origin: "hostile.example/logs/" + checkpoint.HubName, entries: entries, growth: map[int]string{0: "first\n"}}
	if h.signer, h.vkey, err = seed.Ed25519(h.origin, 0); err != nil {
		o.t.Fatal(err)
	}
	return h
}

// hubEntry is what a hub says of a log's checkpoint.
func (o *operator) hubEntry(l *hostileLog, note string) []byte {
	o.t.Helper()
	c, err := openNote(l.vkey, note)
	if err != nil {
		o.t.Fatal(err)
	}
	id := checkpoint.LogID(l.vkey)
	return append(binary.BigEndian.AppendUint64(append([]byte{0x02}, id[:]...), c.Size), c.Root[:]...)
}

// tree returns the hub's tree, and its root.
func (h *hostileHub) tree(size int) (tiles, merkle.Hash) {
	tree, nodes := merkle.NewRange(), make(tiles)
	for _, entry := range h.entries[:size] {
		tree.Append(merkle.LeafHash(entry), func(level uint, _ uint64, hash merkle.Hash) {
			nodes[int(level)] = append(nodes[int(level)], hash)
		})
	}
	return nodes, tree.Root()
}

// cosigned returns the hub's checkpoint of a size, with the cosignatures of honest witnesses that have cosigned the size before.
func (h *hostileHub) cosigned(before, size int) string {
	h.o.t.Helper()
	nodes, root := h.tree(size)
	msg, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: h.origin, Size: uint64(size), Root: root}, h.signer)
	if err != nil {
		h.o.t.Fatal(err)
	}
	proof, err := merkle.ConsistencyProof(h.o.t.Context(), uint64(before), uint64(size), nodes)
	if err != nil {
		h.o.t.Fatal(err)
	}
	body := fmt.Sprintf("old %d\n%s\n%s", before, hashLines(proof), msg)
	signed := string(msg)
	for _, w := range h.o.witnesses {
		a, err := w.call(http.MethodPost, "/add-checkpoint", []byte(body))
		if err != nil || a.status != http.StatusOK {
			h.o.t.Fatalf("the hub from %d to %d: %v, %v", before, size, a, err)
		}
		signed += string(a.body)
	}
	return signed
}

// decoded returns the hashes of an answer.
func decoded(t *testing.T, hashes []string) (out []merkle.Hash) {
	t.Helper()
	for _, h := range hashes {
		raw, err := hex.DecodeString(h)
		if err != nil || len(raw) != merkle.HashSize {
			t.Fatalf("hash %q: %v", h, err)
		}
		out = append(out, merkle.Hash(raw))
	}
	return out
}

func hashLines(hashes []merkle.Hash) string {
	var b strings.Builder
	for _, h := range hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	return b.String()
}

// proof returns the hub proof of an event whose log's checkpoint is the hub's last entry.
func (h *hostileHub) proof(event, signed string) string {
	h.o.t.Helper()
	nodes, _ := h.tree(len(h.entries))
	last := uint64(len(h.entries) - 1)
	hashes, err := merkle.InclusionProof(h.o.t.Context(), last, last+1, nodes)
	if err != nil {
		h.o.t.Fatal(err)
	}
	entry, err := checkpoint.Proof{Extra: h.entries[last], Index: last, Hashes: hashes, Checkpoint: []byte(signed)}.Marshal()
	if err != nil {
		h.o.t.Fatal(err)
	}
	file, err := checkpoint.HubProof{Event: []byte(event), Entry: entry}.Marshal()
	if err != nil {
		h.o.t.Fatal(err)
	}
	return string(file)
}

// serve serves the hub, and beside it the log as it is on a stage.
func (h *hostileHub) serve(signed string, s stage) string {
	nodes, _ := h.tree(len(h.entries))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /logs/hub/checkpoint", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(signed)) })
	mux.HandleFunc("GET /logs/hub/tile/{rest...}", func(w http.ResponseWriter, r *http.Request) {
		tile, err := merkle.ParseTilePath("tile/" + r.PathValue("rest"))
		if err != nil || !tile.In(uint64(len(h.entries))) {
			http.NotFound(w, r)
			return
		}
		if tile.Level == merkle.EntriesLevel {
			for _, entry := range h.entries[:tile.Width] {
				w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(entry))), entry...))
			}
			return
		}
		hashes, _ := nodes.ReadTile(r.Context(), tile) // which never fails
		for _, hash := range hashes {
			w.Write(hash[:])
		}
	})
	mux.HandleFunc("GET /logs/hub/growth/{index}", func(w http.ResponseWriter, r *http.Request) {
		var index int
		fmt.Sscan(r.PathValue("index"), &index)
		if answer, ok := h.growth[index]; ok {
			w.Write([]byte(answer))
			return
		}
		http.NotFound(w, r)
	})
	base, err := url.Parse(s.url)
	if err != nil {
		h.o.t.Fatal(err)
	}
	mux.Handle("/", httputil.NewSingleHostReverseProxy(base))
	server := httptest.NewServer(mux)
	h.o.t.Cleanup(server.Close)
	return server.URL
}

// policy demands a cosignature of every witness on the hub.
func (h *hostileHub) policy() string {
	policy, names := "log "+h.vkey+"\n", ""
	for i, w := range h.o.witnesses {
		policy += fmt.Sprintf("witness h%d %s %s\n", i, w.vkey, w.url)
		names += fmt.Sprintf(" h%d", i)
	}
	return policy + "group g all" + names + "\nquorum g\n"
}

// says runs treeline with files that are in its arguments under the names that they have here, and returns the exit code.
func (o *operator) says(files map[string]string, args ...string) (int, string) {
	o.t.Helper()
	dir := o.t.TempDir()
	for i, arg := range args {
		data, ok := files[arg]
		if !ok {
			continue
		}
		args[i] = filepath.Join(dir, arg)
		if err := os.WriteFile(args[i], []byte(data), 0o600); err != nil {
			o.t.Fatal(err)
		}
	}
	if args[0] == "audit" {
		args = append(args, "--state", filepath.Join(dir, "state"))
	}
	code, out, err := treeline(args...)
	if err != nil {
		o.t.Fatal(err)
	}
	return code, out
}

// TestHostileOperatorWithAHub is who notices what when witnesses cosign only the hub. They take whatever is in it, so a fork that is put
// there has a valid hub proof; the hub's monitor finds it. A fork that is kept out of it has none.
func TestHostileOperatorWithAHub(t *testing.T) {
	o := newOperator(t, "acme")
	l := o.logs["acme"]
	for _, fork := range []struct {
		what    string
		size    uint64
		monitor map[string]int // what `treeline audit --hub` says, by what the hub answers about the fork
		log     int            // what `treeline audit` says of the log that is shown, when the fork is kept out of the hub
		policy  int            // and what under the hub's policy
	}{
		{"a shorter tree", shorter, map[string]int{"the fork's proof": exitInvalid, "first": exitInvalid, "nothing": exitInvalid}, exitOK,
			exitUnverified},
		{"another root of the same size", same, map[string]int{"the fork's proof": exitDiverged, "first": exitDiverged, "nothing": exitDiverged},
			exitDiverged, exitDiverged},
		{"a rewritten history", longer, map[string]int{"the fork's proof": exitDiverged, "first": exitInvalid, "nothing": exitInvalid},
			exitDiverged, exitDiverged},
	} {
		t.Run(fork.what, func(t *testing.T) {
			o.t = t
			h := o.newHub(o.hubEntry(l, l.shown[common].note), o.hubEntry(l, l.shown[same].note))
			o.bystanders(1, h.vkey)
			state := l.forked[fork.size]
			shown := o.show(l, o.forked, state, 1, nil, nil, "")

			signed := h.cosigned(0, 2)
			var proof proofAnswer
			o.shown.mustGetJSON(t, fmt.Sprintf("/v1/proofs/consistency?log=acme&from=%d&to=%d", common, same), &proof)
			h.growth[1] = "previous 0\n" + hashLines(decoded(t, proof.Hashes))
			files := map[string]string{"policy": h.policy(), "event": state.proof}
			if code, out := o.says(files, "audit", "--policy", "policy", "--hub", h.serve(signed, shown)+"/logs/hub"); code != exitOK {
				t.Fatalf("the hub without the fork: exit code %d\n%s", code, out)
			}
			if code, out := o.says(files, "verify", "--vkey", l.vkey, "--policy", "policy", "event"); code != exitUnverified {
				t.Errorf("a proof file of the fork, which is not in the hub: exit code %d, want %d\n%s", code, exitUnverified, out)
			}
			url := h.serve(signed, shown)
			code, out := o.says(files, "audit", "--vkey", l.vkey, "--vkey", h.vkey, "--hub", url+"/logs/hub", url+"/logs/acme")
			if code != fork.log {
				t.Errorf("who follows the hub and is shown a fork that is not in it says %d, want %d\n%s", code, fork.log, out)
			}
			code, out = o.says(files, "audit", "--vkey", l.vkey, "--policy", "policy", "--hub", url+"/logs/hub", url+"/logs/acme")
			if code != fork.policy {
				t.Errorf("under the hub's policy they say %d, want %d\n%s", code, fork.policy, out)
			}

			h.entries = append(h.entries, o.hubEntry(l, state.note))
			signed = h.cosigned(2, 3)
			files["event"] = h.proof(state.proof, signed)
			code, out = o.says(files, "verify", "--vkey", l.vkey, "--policy", "policy", "event")
			if code != exitOK || !strings.Contains(out, "hub-witnessed") {
				t.Errorf("a hub proof of the fork, which is in the hub: exit code %d, want %d\n%s", code, exitOK, out)
			}
			answers := map[string]string{"first": "first\n", "the fork's proof": "previous 1\n"}
			if fork.size > same {
				o.forked.mustGetJSON(t, fmt.Sprintf("/v1/proofs/consistency?log=acme&from=%d&to=%d", same, fork.size), &proof)
				answers["the fork's proof"] += hashLines(decoded(t, proof.Hashes))
			}
			for answer, want := range fork.monitor {
				delete(h.growth, 2)
				if text, ok := answers[answer]; ok {
					h.growth[2] = text
				}
				if code, out := o.says(files, "audit", "--policy", "policy", "--hub", h.serve(signed, shown)+"/logs/hub"); code != want {
					t.Errorf("the hub's monitor, which is answered %s, says %d, want %d\n%s", answer, code, want, out)
				}
			}
		})
	}
}
