package log_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/log"
)

func TestKeys(t *testing.T) {
	form := regexp.MustCompile(`^tl_[0-9A-Za-z]{12}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}$`)
	seen := make(map[string]bool)
	for range 200 {
		k, text := log.NewKey(log.RoleReader, 3, "name", 7)
		if !form.MatchString(text) || seen[text] || seen[k.ID] {
			t.Fatalf("key %q: not of the form, or made before", text)
		}
		seen[text], seen[k.ID] = true, true
		if id, err := log.ParseKey(text); err != nil || id != k.ID {
			t.Errorf("parsing %q: got %q, %v, want %q", text, id, err, k.ID)
		}
		if !k.Matches(text) || k.Matches(text[:len(text)-1]) || k.Matches("") {
			t.Errorf("key %q doesn't match itself alone", text)
		}
		if k.Role != log.RoleReader || k.Log != 3 || k.Name != "name" || k.CreatedAt != 7 {
			t.Errorf("key: got %+v", k)
		}
	}
	a, textA := log.NewKey(log.RoleAdmin, 0, "", 0)
	b, textB := log.NewKey(log.RoleAdmin, 0, "", 0)
	if a.Matches(textB) || b.Matches(textA) {
		t.Error("a key matches another one")
	}
}

func TestKeysEnd(t *testing.T) {
	for name, x := range map[string]struct {
		key  log.Key
		want error
	}{
		"no end":                       {log.Key{}, nil},
		"expires in a µs":              {log.Key{ExpiresAt: 101}, nil},
		"expires now":                  {log.Key{ExpiresAt: 100}, log.ErrKeyExpired},
		"revoked":                      {log.Key{RevokedAt: 99}, log.ErrKeyRevoked},
		"revoked by a clock ahead":     {log.Key{RevokedAt: 101}, log.ErrKeyRevoked},
		"revoked, and expires later":   {log.Key{RevokedAt: 99, ExpiresAt: 1000}, log.ErrKeyRevoked},
		"expired, and revoked somehow": {log.Key{RevokedAt: 1000, ExpiresAt: 99}, log.ErrKeyRevoked},
	} {
		if err := x.key.Ended(100); !errors.Is(err, x.want) {
			t.Errorf("%s: got %v, want %v", name, err, x.want)
		}
	}
}

// Any one character that is wrong, missing or too many shows before a server is asked.
func TestMistypedKeys(t *testing.T) {
	_, text := log.NewKey(log.RoleWriter, 1, "", 0)
	for i := range text {
		for _, c := range []string{"", "_", "0", "Z", "z", "é", " "} {
			typed := text[:i] + c + text[i+1:]
			if typed == text {
				continue
			}
			if id, err := log.ParseKey(typed); !errors.Is(err, log.ErrKeyFormat) {
				t.Errorf("%q for %q: got %q, %v, want ErrKeyFormat", typed, text, id, err)
			}
		}
	}
	for _, other := range []string{"", "tl_", text + "x", " " + text, text + "\n", strings.ToUpper(text), text[3:], text + text} {
		if _, err := log.ParseKey(other); !errors.Is(err, log.ErrKeyFormat) {
			t.Errorf("%q: got %v, want ErrKeyFormat", other, err)
		}
	}
}

func TestParseRole(t *testing.T) {
	for _, name := range []string{"writer", "reader", "exporter", "auditor", "manager", "admin"} {
		if r, err := log.ParseRole(name); err != nil || string(r) != name {
			t.Errorf("%s: got %q, %v", name, r, err)
		}
	}
	for _, name := range []string{"", "Writer", "root"} {
		if r, err := log.ParseRole(name); err == nil {
			t.Errorf("%q: got %q, want an error", name, r)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, text := range []string{
		"tl_K9s9C4ZIapsD_qfv2GWCrN7WA1gr3rWDYzfsEoo1l2zs0_4C6ud2", "tl_0NPUElVGsZw9_WjpEuvWCHtcZm0foOUT0DVGWkyMd7SL6_3CRUyc",
		"tl_K9s9C4ZIapsD_qfv2GWCrN7WA1gr3rWDYzfsEoo1l2zs0_4C6ud", "tl_K9s9C4ZIapsD-qfv2GWCrN7WA1gr3rWDYzfsEoo1l2zs0_4C6ud2",
		"sk_K9s9C4ZIapsD_qfv2GWCrN7WA1gr3rWDYzfsEoo1l2zs0_4C6ud2", "tl_", "",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := log.ParseKey(text)
		if err != nil {
			if !errors.Is(err, log.ErrKeyFormat) || id != "" {
				t.Errorf("%q: got %q, %v", text, id, err)
			}
			return
		}
		if len(text) != 55 || text[:3] != "tl_" || text[3:15] != id || strings.Count(text, "_") != 3 {
			t.Errorf("%q: got id %q", text, id)
		}
		// The checksum is over all of it: one character more or less is another key or none.
		last := "0"
		if strings.HasSuffix(text, last) {
			last = "1"
		}
		if _, err := log.ParseKey(text[:len(text)-1] + last); err == nil {
			t.Errorf("%q has two checksums", text)
		}
	})
}
