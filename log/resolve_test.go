package log_test

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/gowebpki/jcs"
	"pgregory.net/rapid"
)

// resolve follows an RFC 6901 pointer through a document by encoding/json, and returns the canonical form of what is there.
func resolve(t rapid.TB, doc []byte, pointer string) []byte {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	for _, token := range strings.Split(pointer, "/")[1:] {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[token]
			if !ok {
				t.Fatalf("pointer %s: no member %q", pointer, token)
			}
			v = next
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i >= len(at) {
				t.Fatalf("pointer %s: no element %q", pointer, token)
			}
			v = at[i]
		default:
			t.Fatalf("pointer %s goes through a scalar", pointer)
		}
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	form, err := jcs.Transform(data)
	if err != nil {
		t.Fatal(err)
	}
	return form
}
