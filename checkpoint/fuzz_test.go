package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
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

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(examplePolicy(f)))
	f.Add([]byte("quorum none\n"))
	f.Add([]byte("# one\n\t witness a " + testWitnessVKey + "  https://w.example/ \ngroup g 1 a\nquorum g\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy(data)
		if err != nil {
			if problem, ok := errors.AsType[*PolicyError](err); !ok || p != nil || problem.Line < 1 || problem.Line > bytes.Count(data, []byte("\n"))+1 {
				t.Errorf("%q: got %v, %v", data, p, err)
			}
			return
		}
		// It can be written down again from what was understood.
		var b strings.Builder
		for _, l := range p.Logs {
			fmt.Fprintf(&b, "log %s %s\n", l.VKey, l.URL)
		}
		for _, w := range p.Witnesses {
			fmt.Fprintf(&b, "witness %s %s %s\n", w.Name, w.VKey, w.URL)
		}
		for _, g := range p.Groups {
			fmt.Fprintf(&b, "group %s %d %s\n", g.Name, g.Threshold, strings.Join(g.Members, " "))
		}
		fmt.Fprintf(&b, "quorum %s\n", p.Quorum)
		again, err := ParsePolicy([]byte(b.String()))
		if err != nil {
			t.Fatalf("%q is %q: %v", data, b.String(), err)
		}
		for i := range 1 << min(len(p.Witnesses), 6) {
			cosigned := func(w Witness) bool {
				at := slices.IndexFunc(p.Witnesses, func(v Witness) bool { return v.Name == w.Name })
				return i>>at&1 == 1
			}
			if p.Met(cosigned) != again.Met(cosigned) {
				t.Errorf("%q and %q differ", data, b.String())
			}
		}
		if !p.Met(func(Witness) bool { return true }) || p.Met(func(Witness) bool { return false }) != (p.Quorum == noQuorum) {
			t.Errorf("%q is met by all: %v, by none: %v", data, p.Met(func(Witness) bool { return true }), p.Met(func(Witness) bool { return false }))
		}
	})
}
