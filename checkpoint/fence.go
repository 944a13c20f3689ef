package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrFenceMoved is wrapped by the error of [Fence.Swap] when the fence doesn't hold
// what the caller believes. Nothing was changed.
var ErrFenceMoved = errors.New("the fence has moved")

// A Fence remembers the newest checkpoint of each log, in a place that isn't restored
// or failed over together with the store. A store that is behind it has lost entries
// for which somebody may hold a proof.
//
// Loads must see every Swap that has returned, also that of another process, and
// Swaps of one origin must be serialised among all processes that share the fence.
// If an error's outcome is unknown, as when a connection is lost, the change may have
// happened or not, but never in part; the caller loads again to find out. All
// methods may be called concurrently.
type Fence interface {
	// Load returns the note that was last put there for the origin, byte for byte,
	// or nil if there is none. A fence that can't be read, or holds something else
	// than a note of that origin, is an error and never nil.
	Load(ctx context.Context, origin string) ([]byte, error)

	// Swap replaces the note old by new if the fence holds exactly old; nil stands
	// for none. Otherwise the error wraps ErrFenceMoved. When it returns without an
	// error, the change survives a crash of the machine.
	Swap(ctx context.Context, origin string, old, new []byte) error

	// Origins returns the origins that have a note, in ascending order. A fence that
	// can't be read, or holds something else than notes, is an error.
	Origins(ctx context.Context) ([]string, error)

	// Drop durably forgets the origin; there being none is no error. It takes away
	// what protects the log, so only an operator's explicit command calls it.
	Drop(ctx context.Context, origin string) error
}

// FenceName returns the name under which a fence that keeps a file or an object for
// each log keeps that of the origin: its [OriginHash].
func FenceName(origin string) string { return OriginHash(origin) }

// IsFenceName reports whether [FenceName] may have returned the name.
func IsFenceName(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == name
}

// FencedOrigin returns the origin of the note that a fence keeps under the name. It is
// an error if that is not the note's name, or if msg is not a note at all.
func FencedOrigin(name string, msg []byte) (string, error) {
	c, _, err := ParseNote(msg)
	if err != nil {
		return "", err
	}
	if want := FenceName(c.Origin); name != want {
		return "", fmt.Errorf("it has a checkpoint of %s, which belongs in %s", c.Origin, want)
	}
	return c.Origin, nil
}

// CheckFenced returns an error unless msg is in the form of a note with a checkpoint
// of the log. A fence checks that of what it is given and of what it finds. Who signed
// it, the publisher checks.
func CheckFenced(origin string, msg []byte) error {
	c, _, err := ParseNote(msg)
	if err != nil {
		return err
	}
	if c.Origin != origin {
		return fmt.Errorf("checkpoint of log %q, want one of %q", c.Origin, origin)
	}
	return nil
}
