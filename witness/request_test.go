package witness

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/merkle"
)

// The example of the specification, whose note is signed by keys that nobody here knows.
const specRequest = `old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
`

func TestParseRequest(t *testing.T) {
	r, err := parseRequest([]byte(specRequest))
	if err != nil {
		t.Fatal(err)
	}
	if r.old != 20852014 || len(r.proof) != 4 || r.checkpoint.Size != 20852163 || r.checkpoint.Origin != "example.com/behind-the-sofa" ||
		len(r.sigs) != 2 {
		t.Errorf("got %+v", r)
	}
	if got := encodeRequest(r); got != specRequest {
		t.Errorf("encoded again it is %q, want %q", got, specRequest)
	}
}

// encodeRequest is the inverse of parseRequest.
func encodeRequest(r *request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", r.old)
	for _, h := range r.proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	return b.String() + "\n" + string(joinNote(r.checkpoint, r.sigs))
}

func TestMalformedRequests(t *testing.T) {
	line := "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
	lines := func(n int) string {
		return strings.Replace(specRequest, specRequest[13:13+4*len(line)], strings.Repeat(line, n), 1)
	}
	if _, err := parseRequest([]byte(lines(63))); err != nil {
		t.Errorf("63 lines of proof: %v", err)
	}
	if _, err := parseRequest([]byte(lines(0))); err != nil {
		t.Errorf("no proof: %v", err)
	}
	for name, body := range map[string]string{
		"empty":                          "",
		"no empty line":                  "old 5\n",
		"no note":                        "old 5\n\n",
		"no old line":                    strings.TrimPrefix(specRequest, "old 20852014\n"),
		"old in upper case":              "O" + specRequest[1:],
		"two spaces":                     strings.Replace(specRequest, "old ", "old  ", 1),
		"a tab":                          strings.Replace(specRequest, "old ", "old\t", 1),
		"a leading zero":                 strings.Replace(specRequest, "old 2", "old 02", 1),
		"a sign":                         strings.Replace(specRequest, "old 2", "old +2", 1),
		"a negative size":                strings.Replace(specRequest, "old 2", "old -2", 1),
		"hexadecimal":                    strings.Replace(specRequest, "old 2", "old 0x2", 1),
		"an underscore":                  strings.Replace(specRequest, "old 20", "old 2_0", 1),
		"no size":                        strings.Replace(specRequest, "old 20852014", "old ", 1),
		"a size over 2^63-1":             strings.Replace(specRequest, "old 20852014", "old 9223372036854775808", 1),
		"a size over 2^64":               strings.Replace(specRequest, "old 20852014", "old 18446744073709551616", 1),
		"a space at the end":             strings.Replace(specRequest, "old 20852014", "old 20852014 ", 1),
		"carriage returns":               strings.ReplaceAll(specRequest, "\n", "\r\n"),
		"a carriage return in the proof": strings.Replace(specRequest, "kaw=\n", "kaw=\r\n", 1),
		"64 lines of proof":              lines(64),
		"a short hash":                   strings.Replace(specRequest, "PlRN", "", 1),
		"a long hash":                    strings.Replace(specRequest, "PlRN", "PlRNPlRN", 1),
		"base64 without padding":         strings.Replace(specRequest, "kaw=", "kaw", 1),
		"base64 for URLs":                strings.Replace(specRequest, "5+pK", "5-pK", 1),
		"base64 with other last bits":    strings.Replace(specRequest, "kaw=", "kax=", 1),
		"an empty line more":             strings.Replace(specRequest, "\n\n", "\n\n\n", 1),
		"a size of the tree with a zero": strings.Replace(specRequest, "\n20852163", "\n020852163", 1),
		"an extension line":              strings.Replace(specRequest, "q2I=\n", "q2I=\nextension\n", 1),
		"no signature":                   specRequest[:strings.Index(specRequest, "\n—")],
		"no last newline":                strings.TrimSuffix(specRequest, "\n"),
		"something after it":             specRequest + "x",
		"a byte that isn't UTF-8":        strings.Replace(specRequest, "behind", "beh\xffind", 1),
		"a NUL":                          strings.Replace(specRequest, "behind", "beh\x00ind", 1),
		"an empty origin":                strings.Replace(specRequest, "example.com/behind-the-sofa\n", "\n", 1),
		"an origin of 256 bytes":         strings.Replace(specRequest, "example.com/behind-the-sofa\n", strings.Repeat("x", 256)+"\n", 1),
	} {
		if body == specRequest {
			t.Errorf("%s: the row changes nothing", name)
		}
		if r, err := parseRequest([]byte(body)); !errors.Is(err, errMalformed) {
			t.Errorf("%s: got %+v, %v, want errMalformed", name, r, err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(specRequest))
	f.Add([]byte(strings.Replace(specRequest, "old 20852014", "old 0", 1)))
	f.Add([]byte("old 0\n\nx\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— x AAAAAAA=\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Errorf("got %v, want errMalformed", err)
			}
			return
		}
		// There is one encoding of each request.
		if got := encodeRequest(r); got != string(body) {
			t.Errorf("accepted %q, which is %q", body, got)
		}
		if !bytes.HasPrefix(body, r.lines) || !bytes.HasSuffix(body, r.note) || len(r.lines)+1+len(r.note) != len(body) {
			t.Errorf("%q was cut into %q and %q", body, r.lines, r.note)
		}
		if r.old > merkle.MaxSize || r.checkpoint.Size > merkle.MaxSize || len(r.proof) > maxProof || len(r.sigs) == 0 {
			t.Errorf("accepted %+v", r)
		}
		// Whatever was cosigned, nothing that isn't a proof passes, and nothing panics.
		head := Head{Origin: r.checkpoint.Origin, Size: r.old, Root: merkle.Hash{1}, At: 1}
		if _, err := check(head, r); err == nil && (r.checkpoint.Size != r.old || r.checkpoint.Root != head.Root) && r.old != 0 {
			t.Errorf("the proof in %q passes from a root that nobody knows", body)
		}
	})
}
