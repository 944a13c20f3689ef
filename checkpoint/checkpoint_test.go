package checkpoint

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/merkle"
)

// The example body of C2SP tlog-checkpoint.
func TestTextIsThatOfTheStandard(t *testing.T) {
	root, err := base64.StdEncoding.DecodeString(rootB64)
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{"example.com/behind-the-sofa", 20852163, merkle.Hash(root)}
	want := "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
	if got := c.Text(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

const (
	rootB64  = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
	emptyB64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
)

func TestParseText(t *testing.T) {
	for _, size := range []string{"1", "7", "20852163", "9223372036854775807"} {
		text := testOrigin + "\n" + size + "\n" + rootB64 + "\n"
		c, err := ParseText(text)
		if err != nil || c.Text() != text {
			t.Errorf("%q: got %v, %v", text, c, err)
		}
	}
	empty := testOrigin + "\n0\n" + emptyB64 + "\n"
	if c, err := ParseText(empty); err != nil || c.Root != merkle.EmptyRoot() {
		t.Errorf("%q: got %v, %v", empty, c, err)
	}

	good := testOrigin + "\n7\n" + rootB64 + "\n"
	for name, text := range map[string]string{
		"nothing":                 "",
		"no lines":                "\n\n\n",
		"no last newline":         strings.TrimSuffix(good, "\n"),
		"empty line after":        good + "\n",
		"empty line before":       "\n" + good,
		"extension line":          good + "extension\n",
		"carriage returns":        strings.ReplaceAll(good, "\n", "\r\n"),
		"no root":                 testOrigin + "\n7\n",
		"empty root":              testOrigin + "\n7\n\n",
		"foreign origin":          "sum.golang.org\n7\n" + rootB64 + "\n",
		"leading zero":            strings.Replace(good, "\n7\n", "\n07\n", 1),
		"sign":                    strings.Replace(good, "\n7\n", "\n+7\n", 1),
		"negative":                strings.Replace(good, "\n7\n", "\n-7\n", 1),
		"space":                   strings.Replace(good, "\n7\n", "\n 7\n", 1),
		"underscore":              strings.Replace(good, "\n7\n", "\n1_0\n", 1),
		"hexadecimal":             strings.Replace(good, "\n7\n", "\n0x7\n", 1),
		"no size":                 strings.Replace(good, "\n7\n", "\n\n", 1),
		"2^63":                    strings.Replace(good, "\n7\n", "\n9223372036854775808\n", 1),
		"2^64":                    strings.Replace(good, "\n7\n", "\n18446744073709551616\n", 1),
		"size 0 with a root":      strings.Replace(good, "\n7\n", "\n0\n", 1),
		"root of 31 bytes":        strings.Replace(good, rootB64, base64.StdEncoding.EncodeToString(make([]byte, 31)), 1),
		"root of 33 bytes":        strings.Replace(good, rootB64, base64.StdEncoding.EncodeToString(make([]byte, 33)), 1),
		"unpadded":                strings.Replace(good, "=", "", 1),
		"bits after the root":     strings.Replace(good, "q2I=", "q2J=", 1),
		"URL alphabet":            strings.Replace(good, "/Xajj", "_Xajj", 1),
		"space after the root":    strings.Replace(good, "=\n", "= \n", 1),
		"newline inside the root": strings.Replace(good, "/Xajj", "\n/Xajj", 1),
		"NUL":                     strings.Replace(good, "=\n", "=\x00\n", 1),
	} {
		if c, err := ParseText(text); err == nil {
			t.Errorf("%s: accepted %q as %v", name, text, c)
		}
	}
}

func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Checkpoint{
			Origin: rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{1,9}){0,3}(:[1-9][0-9]{0,3})?/logs/[a-z0-9][a-z0-9-]{0,62}`).Draw(t, "origin"),
			Size:   rapid.Uint64Range(1, merkle.MaxSize).Draw(t, "size"),
			Root:   merkle.Hash(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "root")),
		}
		got, err := ParseText(c.Text())
		if err != nil || got != c {
			t.Fatalf("got %v, %v, want %v", got, err, c)
		}
	})
}

func TestOpen(t *testing.T) {
	c := testCheckpoint(extend(nil, 5, "honest"))
	s0, v0 := testKey(t, 0)
	_, v1 := testKey(t, 1)
	witness, witnessV := testWitness(t)

	// As many keys of the log and of witnesses as like may sign; known ones count.
	both, err := Sign(c, s0, witness)
	if err != nil {
		t.Fatal(err)
	}
	got, n, err := Open(both, testOrigin, v0)
	if err != nil || got != c || len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 1 {
		t.Errorf("Open with the log's key: %v, %v, %v", got, n, err)
	}
	got, n, err = Open(both, testOrigin, witnessV, v0, v1)
	if err != nil || got != c || len(n.Sigs) != 2 {
		t.Errorf("Open with all keys: %v, %v, %v", got, n, err)
	}

	// What may be right, but can't be told.
	for name, verifiers := range map[string][]note.Verifier{"no key": nil, "another key": {v1}, "a witness's key": {witnessV}} {
		if got, n, err := Open(both, testOrigin, verifiers...); !errors.Is(err, ErrNotSigned) || got != (Checkpoint{}) || n != nil {
			t.Errorf("Open with %s = %v, %v, %v, want ErrNotSigned", name, got, n, err)
		}
	}

	// What can't be right.
	sig := strings.SplitAfter(string(both), "\n")
	logLine, witnessLine := sig[4], sig[5]
	body := c.Text() + "\n"
	raw, _ := base64.StdEncoding.DecodeString(strings.Fields(logLine)[2])
	forged := bytes.Clone(raw)
	forged[10] ^= 1
	line := func(raw []byte) string {
		return "— " + testOrigin + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
	}
	for name, msg := range map[string]string{
		"nothing":                    "",
		"no signatures":              c.Text(),
		"no signature lines":         body,
		"empty line at the end":      body + logLine + "\n",
		"no last newline":            body + strings.TrimSuffix(logLine, "\n"),
		"carriage returns":           strings.ReplaceAll(string(both), "\n", "\r\n"),
		"twice the same line":        body + logLine + logLine,
		"twice the same key":         body + logLine + line(forged),
		"twice, the first forged":    body + line(forged) + logLine,
		"twice an unknown key":       body + logLine + witnessLine + witnessLine,
		"forged":                     body + line(forged),
		"forged beside a witness":    body + line(forged) + witnessLine,
		"short signature":            body + line(raw[:67]),
		"long signature":             body + line(append(bytes.Clone(raw), 0)),
		"bits after the signature":   body + nonCanonical(logLine) + witnessLine,
		"bits after an unknown one":  body + logLine + nonCanonical(witnessLine),
		"hyphen for a dash":          body + strings.Replace(logLine, "—", "-", 1),
		"two spaces":                 body + strings.Replace(logLine, "— ", "—  ", 1),
		"a space at the end":         body + strings.Replace(logLine, "\n", " \n", 1),
		"a tab in an unknown name":   body + logLine + strings.Replace(witnessLine, "w1", "w\t1", 1),
		"a plus in an unknown name":  body + logLine + strings.Replace(witnessLine, "w1", "w+1", 1),
		"an unknown one without key": body + logLine + "— w1 AAAA\n",
		"invalid UTF-8":              body + logLine + strings.Replace(witnessLine, "w1", "w\xff", 1),
		"another root":               strings.Replace(string(both), "\n5\n", "\n6\n", 1),
		"an extension line":          c.Text() + "extension\n\n" + logLine,
		"101 signatures":             body + logLine + manyLines(100),
	} {
		got, n, err := Open([]byte(msg), testOrigin, v0)
		if err == nil || errors.Is(err, ErrNotSigned) || got != (Checkpoint{}) || n != nil {
			t.Errorf("%s: Open = %v, %v, %v, want a malformed or forged note", name, got, n, err)
		}
	}
	if _, n, err := Open([]byte(body+logLine+manyLines(99)), testOrigin, v0); err != nil || len(n.UnverifiedSigs) != 99 {
		t.Errorf("100 signatures: %v", err)
	}
	if _, _, err := Open(both, strings.Replace(testOrigin, "acme", "acme2", 1), v0); err == nil {
		t.Error("opened as the checkpoint of another log")
	}
}

// nonCanonical returns the signature line with bits set that base64 doesn't use.
func nonCanonical(line string) string {
	i := strings.Index(line, "=")
	return line[:i-1] + string(line[i-1]+1) + line[i:]
}

// manyLines returns n signature lines of unknown keys.
func manyLines(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("— unknown " + base64.StdEncoding.EncodeToString([]byte{0, 0, 0, byte(i), 1}) + "\n")
	}
	return b.String()
}

func testWitness(t testing.TB) (note.Signer, note.Verifier) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{9}, 64)), "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

// No byte of a note can be changed, added or left out if all its keys are known.
func TestOpenRefusesEveryChange(t *testing.T) {
	signer, v0 := testKey(t, 0)
	msg, err := Sign(testCheckpoint(extend(nil, 5, "honest")), signer)
	if err != nil {
		t.Fatal(err)
	}
	for i := range msg {
		for b := range 256 {
			if byte(b) == msg[i] {
				continue
			}
			changed := bytes.Clone(msg)
			changed[i] = byte(b)
			if _, _, err := Open(changed, testOrigin, v0); err == nil {
				t.Fatalf("accepted %q for %q at byte %d of %q", byte(b), msg[i], i, msg)
			}
		}
		if _, _, err := Open(append(bytes.Clone(msg[:i]), msg[i+1:]...), testOrigin, v0); err == nil {
			t.Fatalf("accepted without byte %d", i)
		}
	}
}

func TestSign(t *testing.T) {
	c := testCheckpoint(extend(nil, 5, "honest"))
	s0, v0 := testKey(t, 0)
	s1, v1 := testKey(t, 1)
	witness, _ := testWitness(t)

	msg, err := Sign(c, s0, s1)
	if err != nil {
		t.Fatal(err)
	}
	if _, n, err := Open(msg, testOrigin, v0, v1); err != nil || len(n.Sigs) != 2 {
		t.Errorf("Open = %v, %v", n, err)
	}
	if again, err := Sign(c, s0, s1); err != nil || !bytes.Equal(again, msg) {
		t.Errorf("signing again gives %q, %v, want %q", again, err, msg)
	}

	for name, tc := range map[string]struct {
		Checkpoint
		signers []note.Signer
	}{
		"no signer":        {c, nil},
		"only a witness":   {c, []note.Signer{witness}},
		"the same twice":   {c, []note.Signer{s0, s0}},
		"too large":        {Checkpoint{testOrigin, merkle.MaxSize + 1, c.Root}, []note.Signer{s0}},
		"size 0 with root": {Checkpoint{testOrigin, 0, c.Root}, []note.Signer{s0}},
		"bad origin":       {Checkpoint{"a\nb", 1, c.Root}, []note.Signer{s0}},
		"other origin":     {Checkpoint{"a/logs/b", 1, c.Root}, []note.Signer{s0}},
	} {
		if msg, err := Sign(tc.Checkpoint, tc.signers...); err == nil {
			t.Errorf("%s: signed %q", name, msg)
		}
	}
}
