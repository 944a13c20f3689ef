package checkpoint

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/merkle"
)

// testProof is of the entry with index 3 of 5.
func testProof(t testing.TB, extra []byte) Proof {
	t.Helper()
	h := extend(nil, 5, "honest")
	right, left := merkle.LeafHash(h[4]), naiveRoot(h[:2])
	return Proof{
		Index:      3,
		Hashes:     []merkle.Hash{merkle.LeafHash(h[2]), left, right},
		Checkpoint: signWith(t, testCheckpoint(h), 0),
		Extra:      extra,
	}
}

func TestProofFile(t *testing.T) {
	for _, extra := range [][]byte{nil, {}, []byte("x"), []byte("{\"event\":{}}"), make([]byte, MaxProofExtra)} {
		p := testProof(t, extra)
		data, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		want := "c2sp.org/tlog-proof@v1\n"
		if len(extra) > 0 {
			want += "extra " + base64.StdEncoding.EncodeToString(extra) + "\n"
		}
		want += "index 3\n"
		for _, h := range p.Hashes {
			want += base64.StdEncoding.EncodeToString(h[:]) + "\n"
		}
		want += "\n" + string(p.Checkpoint)
		if string(data) != want {
			t.Errorf("got %.300q, want %.300q", data, want)
		}
		got, err := ParseProof(data)
		if err != nil {
			t.Fatal(err)
		}
		if got.Index != p.Index || !slices.Equal(got.Hashes, p.Hashes) || !bytes.Equal(got.Checkpoint, p.Checkpoint) || !bytes.Equal(got.Extra, extra) {
			t.Errorf("got %v, want %v", got, p)
		}

		// What was parsed is what verifies.
		_, verifier := testKey(t, 0)
		c, _, err := Open(got.Checkpoint, testOrigin, verifier)
		if err != nil {
			t.Fatal(err)
		}
		leaf := merkle.LeafHash(extend(nil, 5, "honest")[3])
		if err := merkle.VerifyInclusion(got.Index, c.Size, leaf, got.Hashes, c.Root); err != nil {
			t.Error(err)
		}
	}
}

func TestMalformedProofs(t *testing.T) {
	p := testProof(t, []byte("extr"))
	data, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	hash := base64.StdEncoding.EncodeToString(p.Hashes[0][:])
	replace := func(old, new string) string {
		if strings.Count(good, old) != 1 {
			t.Fatalf("%q is %d times in %q", old, strings.Count(good, old), good)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, text := range map[string]string{
		"nothing":                    "",
		"header only":                "c2sp.org/tlog-proof@v1\n",
		"another version":            replace("proof@v1", "proof@v2"),
		"space after header":         replace("proof@v1\n", "proof@v1 \n"),
		"carriage return":            replace("proof@v1\n", "proof@v1\r\n"),
		"carriage returns":           strings.ReplaceAll(good, "\n", "\r\n"),
		"empty line first":           "\n" + good,
		"empty extra":                replace("extra ZXh0cg==\n", "extra \n"),
		"extra without a space":      replace("extra ZXh0cg==\n", "extra\n"),
		"two extras":                 replace("extra ZXh0cg==\n", "extra ZXh0cg==\nextra ZXh0cg==\n"),
		"extra unpadded":             replace("ZXh0cg==", "ZXh0cg"),
		"bits after extra":           replace("ZXh0cg==", "ZXh0ch=="),
		"extra after index":          replace("extra ZXh0cg==\nindex 3\n", "index 3\nextra ZXh0cg==\n"),
		"no index":                   replace("index 3\n", ""),
		"leading zero":               replace("index 3\n", "index 03\n"),
		"sign":                       replace("index 3\n", "index +3\n"),
		"index 2^63-1":               replace("index 3\n", "index 9223372036854775807\n"),
		"index 2^64":                 replace("index 3\n", "index 18446744073709551616\n"),
		"space after index":          replace("index 3\n", "index 3 \n"),
		"hash unpadded":              replace(hash, strings.TrimRight(hash, "=")),
		"hash of 31 bytes":           replace(hash, base64.StdEncoding.EncodeToString(make([]byte, 31))),
		"bits after hash":            replace(hash, nonCanonical(hash)),
		"carriage return in a hash":  replace(hash, hash[:8]+"\r"+hash[8:]),
		"64 hashes":                  replace(hash+"\n", strings.Repeat(hash+"\n", 62)),
		"no empty line":              replace("\n\nlogs", "\nlogs"),
		"two empty lines":            replace("\n\nlogs", "\n\n\nlogs"),
		"no checkpoint":              good[:strings.Index(good, "logs.")],
		"no signatures":              good[:strings.Index(good, "— ")],
		"no last newline":            strings.TrimSuffix(good, "\n"),
		"empty line last":            good + "\n",
		"a signature twice":          good + good[strings.Index(good, "— "):],
		"bits after a signature":     good[:strings.Index(good, "— ")] + nonCanonical("— w1 AAAAAAA=\n"),
		"too long":                   good + strings.Repeat(manyLines(99), 100),
		"too long a line":            replace("ZXh0cg==", base64.StdEncoding.EncodeToString(make([]byte, MaxProofExtra+1))),
		"a line too long by newline": replace("ZXh0cg==", base64.StdEncoding.EncodeToString(make([]byte, MaxProofExtra+3))),
	} {
		if p, err := ParseProof([]byte(text)); err == nil {
			t.Errorf("%s: accepted %q as %v", name, text, p)
		}
	}

	p.Hashes = slices.Repeat(p.Hashes[:1], 63)
	data, err = p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseProof(data); err != nil {
		t.Errorf("63 hashes: %v", err)
	}
}

func TestMarshalRefusesWhatCantBeParsed(t *testing.T) {
	good := testProof(t, nil)
	for name, change := range map[string]func(p *Proof){
		"index too large":     func(p *Proof) { p.Index = merkle.MaxSize },
		"64 hashes":           func(p *Proof) { p.Hashes = make([]merkle.Hash, 64) },
		"extra too long":      func(p *Proof) { p.Extra = make([]byte, MaxProofExtra+1) },
		"no checkpoint":       func(p *Proof) { p.Checkpoint = nil },
		"unsigned checkpoint": func(p *Proof) { p.Checkpoint = []byte(testOrigin + "\n0\n" + emptyB64 + "\n\n") },
		"file too long": func(p *Proof) {
			sig := base64.StdEncoding.EncodeToString(make([]byte, MaxProofSize))
			p.Checkpoint = fmt.Appendf(p.Checkpoint, "— w1 %s\n", sig)
		},
	} {
		p := good
		change(&p)
		if data, err := p.Marshal(); err == nil {
			t.Errorf("%s: wrote %.300q", name, data)
		}
	}
}

// Whatever is changed in a file, it is refused, or it is another proof that doesn't
// verify. The signature is the only one in it, and its key is known.
func TestVerifiedProofHasNoOtherSpelling(t *testing.T) {
	original := testProof(t, []byte("extra"))
	data, err := original.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, verifier := testKey(t, 0)
	leaf := merkle.LeafHash(extend(nil, 5, "honest")[3])
	rapid.Check(t, func(t *rapid.T) {
		changed := bytes.Clone(data)
		i := rapid.IntRange(0, len(data)-1).Draw(t, "at")
		b := rapid.Byte().Draw(t, "byte")
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			changed[i] = b
		case 1:
			changed = slices.Insert(changed, i, b)
		case 2:
			changed = slices.Delete(changed, i, i+1)
		}
		if bytes.Equal(changed, data) {
			return
		}
		p, err := ParseProof(changed)
		if err != nil {
			return
		}
		c, _, err := Open(p.Checkpoint, testOrigin, verifier)
		if err != nil {
			return
		}
		if merkle.VerifyInclusion(p.Index, c.Size, leaf, p.Hashes, c.Root) == nil && bytes.Equal(p.Extra, original.Extra) {
			t.Fatalf("verified: %q", changed)
		}
	})
}
