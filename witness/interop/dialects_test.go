package interop

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/torchwood"
	formats "github.com/transparency-dev/formats/witness"
	"github.com/transparency-dev/tessera"
)

// Policies are read by several programs, and not all of them alike. A policy whose witnesses have keys of type 0x04 and a URL, with
// comments on lines of their own, is taken by all; where others take what C2SP tlog-policy doesn't have, ours refuses it.
func TestPolicyDialects(t *testing.T) {
	const name, url = "w.example/1", "https://w.example"
	log := newLog(t, "log.example/a")
	key := cosignatureKey(name, make([]byte, 32))
	plain := newLog(t, name).vkey // of type 0x01
	policy := func(lines ...string) string { return strings.Join(lines, "\n") + "\n" }
	type readers struct{ treeline, torchwood, tessera, formats bool }

	for _, test := range []struct {
		what, policy string
		taken        readers
	}{
		{"as everybody takes it", policy("# who has to cosign", "log "+log.vkey+" https://log.example/a", "witness w "+key+" "+url,
			"group g any w", "quorum g"), readers{true, true, true, true}},
		{"without witnesses", policy("log "+log.vkey, "quorum none"), readers{true, true, true, true}},
		{"with tabs", policy("log\t"+log.vkey, "witness\tw\t"+key+"\t"+url, "quorum\tw"), readers{true, true, true, true}},
		{"a witness without a URL", policy("log "+log.vkey, "witness w "+key, "quorum w"), readers{true, true, false, false}},
		{"a comment at a line's end", policy("log "+log.vkey, "witness w "+key+" "+url, "quorum w # our own"),
			readers{false, true, true, true}},
		{"a space that isn't ASCII", policy("log "+log.vkey, "witness\u00a0w "+key+" "+url, "quorum w"), readers{false, true, true, true}},
		{"a witness's key of the type for logs", policy("log "+log.vkey, "witness w "+plain+" "+url, "quorum w"),
			readers{false, false, true, true}},
		{"a key's hash that isn't the key's", policy("log "+log.vkey, "witness w "+withHash(key, "deadbeef")+" "+url, "quorum w"),
			readers{false, false, true, true}},
		{"no quorum", policy("log "+log.vkey, "witness w "+key+" "+url), readers{false, false, false, false}},
		{"a group of too few", policy("log "+log.vkey, "witness w "+key+" "+url, "group g 2 w", "quorum g"),
			readers{false, false, false, false}},
		{"a witness in two groups", policy("log "+log.vkey, "witness w "+key+" "+url, "group g any w", "group h any w g", "quorum h"),
			readers{false, true, true, true}},
	} {
		t.Run(test.what, func(t *testing.T) {
			_, code := run(t, "treeline", "policy", "check", write(t, filepath.Join(t.TempDir(), "policy"), test.policy))
			if code != 0 && code != 4 {
				t.Errorf("treeline policy check: exit code %d, want 0 or 4", code)
			}
			_, torchwoodErr := torchwood.ParsePolicy([]byte(test.policy))
			_, tesseraErr := tessera.NewWitnessGroupFromPolicy([]byte(test.policy))
			_, formatsErr := formats.ParsePolicy([]byte(test.policy))
			got := readers{code == 0, torchwoodErr == nil, tesseraErr == nil, formatsErr == nil}
			if got != test.taken {
				t.Errorf("taken by %+v, want %+v\ntorchwood: %v\nTessera: %v\nformats: %v\n%s", got, test.taken, torchwoodErr, tesseraErr,
					formatsErr, test.policy)
			}
		})
	}
}

// withHash returns the verifier key with another hash.
func withHash(vkey, hash string) string {
	parts := strings.SplitN(vkey, "+", 3)
	return fmt.Sprintf("%s+%s+%s", parts[0], hash, parts[2])
}
