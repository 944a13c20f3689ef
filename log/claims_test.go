package log_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
)

// The three hashes of an event once more, as the specification writes them and without regard to speed.

func plainSalt(seed []byte, pointer string) []byte {
	h := hmac.New(sha256.New, seed)
	h.Write([]byte(pointer))
	return h.Sum(nil)
}

func plainCommitment(salt []byte, pointer, value string) []byte {
	return plainHash(string(salt), u32(len(pointer)), pointer, value)
}

// plainDigest takes pointers and commitments by turns.
func plainDigest(committed ...string) []byte {
	parts := []string{"treeline/event/v1\n"}
	for i := 0; i < len(committed); i += 2 {
		parts = append(parts, u32(len(committed[i])), committed[i], committed[i+1])
	}
	return plainHash(parts...)
}

func plainHash(parts ...string) []byte {
	h := sha256.Sum256([]byte(strings.Join(parts, "")))
	return h[:]
}

func u32(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

// options are those that tests parse events with.
var options = log.ParseOptions{
	Now:        time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC),
	NewID:      func() string { return "01971c4e-6b00-7000-8000-000000000001" },
	Credential: "0123456789ab",
}

func mustParse(t testing.TB, data string) *log.Event {
	t.Helper()
	e, err := log.ParseEvent([]byte(data), options)
	if err != nil {
		t.Fatalf("parsing %s: %v", data, err)
	}
	return e
}

func TestSaltIsHMAC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed"))
		pointer := string(rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "pointer"))
		got := log.Salt(&seed, pointer)
		if want := plainSalt(seed[:], pointer); !slices.Equal(got[:], want) {
			t.Fatalf("got %x, want %x", got, want)
		}
	})
}

func TestCommitmentIsAsSpecified(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		salt := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "salt"))
		pointer := string(rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "pointer"))
		value := string(rapid.SliceOfN(rapid.Byte(), 0, 1000).Draw(t, "value"))
		got := log.Commitment(&salt, pointer, []byte(value))
		if want := plainCommitment(salt[:], pointer, value); !slices.Equal(got[:], want) {
			t.Fatalf("got %x, want %x", got, want)
		}
	})
}

func TestDigestIsAsSpecified(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvent(t)
		seed := drawHash(t, "seed")
		var committed []string
		for _, c := range e.Claims() {
			commitment := plainCommitment(plainSalt(seed[:], c.Pointer), c.Pointer, string(c.Value))
			committed = append(committed, c.Pointer, string(commitment))
		}
		got := e.Digest(&seed)
		if want := plainDigest(committed...); !slices.Equal(got[:], want) {
			t.Fatalf("%s: got %x, want %x", e.JSON(), got, want)
		}
	})
}

func drawHash(t *rapid.T, label string) [32]byte {
	return [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, label))
}

// drawEvent draws an event of any shape: all members, many sizes, names that need escaping.
func drawEvent(t *rapid.T) *log.Event {
	text := rapid.StringN(1, 20, 60)
	quoted := rapid.Custom(func(t *rapid.T) string { return quote(text.Filter(noNUL).Draw(t, "text")) })
	value := rapid.Custom(func(t *rapid.T) string {
		return rapid.OneOf(quoted, rapid.SampledFrom([]string{
			"null", "true", `""`, "[]", "{}", "0", "-1.5", "1e300", `{"b":[1,{"a":null}],"":2}`,
		})).Draw(t, "value")
	})
	object := func(prefix string, names ...string) []string {
		members := []string{`"id":` + quoted.Draw(t, prefix+" id")}
		for _, name := range names {
			if rapid.Bool().Draw(t, prefix+" has "+name) {
				members = append(members, quote(name)+":"+quoted.Draw(t, name))
			}
		}
		return members
	}
	braces := func(members []string) string { return "{" + strings.Join(members, ",") + "}" }
	members := []string{`"action":"a.b"`, `"id":"e1"`}
	if rapid.Bool().Draw(t, "outcome") {
		members = append(members, `"outcome":"denied"`, `"occurred_at":"2026-05-31T23:00:00.1+02:00"`)
	}
	if rapid.Bool().Draw(t, "actor") {
		members = append(members, `"actor":`+braces(object("actor", "type", "name", "email")))
	}
	if rapid.Bool().Draw(t, "context") {
		members = append(members, `"context":`+braces(object("context", "location", "session_id")[1:]))
	}
	var targets, changes, metadata []string
	for range rapid.SampledFrom([]int{0, 0, 1, 2, 11, 20}).Draw(t, "targets") {
		targets = append(targets, braces(object("target", "type", "name")))
	}
	for range rapid.SampledFrom([]int{0, 0, 1, 2, 11, 50}).Draw(t, "changes") {
		changes = append(changes, `{"field":`+quoted.Draw(t, "field")+`,"after":`+value.Draw(t, "after")+`}`)
	}
	name := rapid.StringOfN(rapid.SampledFrom([]rune("ab/~01é€😀ﬃ\"\\\n ")), 1, 16, 64)
	for _, n := range rapid.SliceOfNDistinct(name, 0, 12, rapid.ID).Draw(t, "metadata names") {
		metadata = append(metadata, quote(n)+":"+value.Draw(t, "metadata"))
	}
	members = append(members, fmt.Sprintf(`"targets":[%s],"changes":[%s],"metadata":{%s}`,
		strings.Join(targets, ","), strings.Join(changes, ","), strings.Join(metadata, ",")))
	e, err := log.ParseEvent([]byte(braces(members)), options)
	if err != nil {
		t.Fatalf("parsing %s: %v", braces(members), err)
	}
	return e
}

func noNUL(s string) bool { return !strings.ContainsRune(s, 0) }

// curlEvent is an application's typical event: ten claims, no long ones.
const curlEvent = `{"action":"user.permission.updated","actor_id":"user_123","actor_email":"admin@example.com",
	"target_type":"user","target_id":"user_456",
	"metadata":{"old_role":"viewer","new_role":"editor","ip":"203.0.113.42"}}`

func TestDigestHardlyAllocates(t *testing.T) {
	e, seed := mustParse(t, curlEvent), [32]byte{1}
	if got := testing.AllocsPerRun(100, func() { e.Digest(&seed) }); got > 3 {
		t.Errorf("got %v allocations, want at most 3", got)
	}
}

func BenchmarkDigest(b *testing.B) {
	e, seed := mustParse(b, curlEvent), [32]byte{1}
	b.ReportAllocs()
	for b.Loop() {
		e.Digest(&seed)
	}
}
