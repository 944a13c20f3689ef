package api

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
)

func TestCursorsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := cursors{[32]byte{1}}
		at := cursor{rapid.Uint64().Draw(t, "position"), rapid.Int64().Draw(t, "as of")}
		id, params := log.ID(rapid.Int64Min(1).Draw(t, "log")), rapid.String().Draw(t, "params")
		text := c.encode(at, id, params)
		if got, err := c.decode(text, id, params); err != nil || got != at {
			t.Fatalf("got %v, %v, want %v", got, err, at)
		}
		otherID, otherParams := log.ID(rapid.Int64Min(1).Draw(t, "other log")), rapid.String().Draw(t, "other params")
		if otherID == id && otherParams == params {
			return
		}
		if got, err := c.decode(text, otherID, otherParams); !errors.Is(err, errCursor) {
			t.Fatalf("for another list: got %v, %v", got, err)
		}
		if got, err := (cursors{[32]byte{2}}).decode(text, id, params); !errors.Is(err, errCursor) {
			t.Fatalf("of another server: got %v, %v", got, err)
		}
	})
}

func FuzzCursor(f *testing.F) {
	c := cursors{[32]byte{1}}
	whole := c.encode(cursor{7, 5}, 1, "newest")
	for _, text := range []string{
		whole, whole[1:], whole + "=", whole + "A", "B" + whole[1:], c.encode(cursor{1<<64 - 1, -1}, 1, "newest"), c.encode(cursor{7, 5}, 2, "newest"),
		c.encode(cursor{7, 5}, 1, "oldest"), "", "AAAA", "\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := c.decode(text, 1, "newest")
		if err != nil {
			if !errors.Is(err, errCursor) || at != (cursor{}) {
				t.Errorf("%q: got %v, %v", text, at, err)
			}
			return
		}
		if again := c.encode(at, 1, "newest"); again != text {
			t.Errorf("%q is taken for %q", text, again)
		}
	})
}
