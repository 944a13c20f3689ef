package checkpoint

import (
	"bytes"
	"testing"
)

func FuzzParseText(f *testing.F) {
	f.Add(testOrigin + "\n7\n" + rootB64 + "\n")
	f.Add(testOrigin + "\n0\n" + emptyB64 + "\n")
	f.Add(testOrigin + "\n007\n" + rootB64 + "\n")
	f.Add("localhost:8080/logs/default\n9223372036854775807\n" + rootB64 + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseText(text)
		if err != nil {
			return
		}
		if c.Text() != text {
			t.Errorf("accepted %q, which is %q", text, c.Text())
		}
		if err := c.check(); err != nil {
			t.Errorf("accepted %q: %v", text, err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	c := testCheckpoint(extend(nil, 5, "honest"))
	good := signWith(f, c, 0)
	signer, verifier := testKey(f, 0)
	witness, _ := testWitness(f)
	both, err := Sign(c, signer, witness)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(both)
	f.Add(signWith(f, c, 1))
	f.Add(signWith(f, c, 0, 1))
	f.Fuzz(func(t *testing.T, msg []byte) {
		text, sigs, err := splitNote(msg)
		if err == nil && !bytes.Equal(joinNote(text, sigs), msg) {
			t.Errorf("accepted %q, which is %q", msg, joinNote(text, sigs))
		}
		got, n, err := Open(msg, testOrigin, verifier)
		if err != nil {
			return
		}
		// The key has only ever signed this.
		if got != c || n.Text != c.Text() || !bytes.HasPrefix(msg, append([]byte(c.Text()), '\n')) {
			t.Errorf("opened %q as %v", msg, got)
		}
		if len(n.Sigs) != 1 || len(n.Sigs)+len(n.UnverifiedSigs) != len(sigs) {
			t.Errorf("opened %q with %v", msg, n)
		}
	})
}

func FuzzParseProof(f *testing.F) {
	for _, extra := range []string{"", "x", `{"event":{}}`} {
		data, err := testProof(f, []byte(extra)).Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra \nindex 0\n\n" + testOrigin + "\n0\n" + emptyB64 + "\n\n— a AAAAAAA=\n"))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 0\n\n" + testOrigin + "\n1\n" + rootB64 + "\n\n— a AAAAAAA=\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseProof(data)
		if err != nil {
			return
		}
		again, err := p.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, which is %q, %v", data, again, err)
		}
	})
}
