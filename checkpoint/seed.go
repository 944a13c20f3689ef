package checkpoint

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// A Seed is the master secret of an installation. All keys of all logs are derived
// from it, so whoever has it can sign for every log. It is kept in a file of its
// own, apart from the database and its backups: a backup with both could sign a
// second history.
//
// A Seed doesn't show itself: formatted or logged, it is a placeholder.
type Seed [32]byte

const (
	seedPrefix = "treeline-seed-v1 "
	secret     = "(secret)"
)

// Format writes a placeholder, whatever the verb.
func (s Seed) Format(f fmt.State, verb rune) { _, _ = io.WriteString(f, secret) }

// LogValue returns a placeholder.
func (s Seed) LogValue() slog.Value { return slog.StringValue(secret) }

// LoadSeed reads the seed from a file that [CreateSeed] made: one line,
// "treeline-seed-v1 ", 64 lower-case hexadecimal digits, and a newline. The file
// must be a regular one to which neither group nor others have any access. If
// there is no such file, the error wraps [fs.ErrNotExist]. No error has any of the
// contents in it.
func LoadSeed(path string) (Seed, error) {
	f, err := os.Open(path)
	if err != nil {
		return Seed{}, fmt.Errorf("reading the seed: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Seed{}, fmt.Errorf("reading the seed: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Seed{}, fmt.Errorf("seed file %s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return Seed{}, fmt.Errorf("seed file %s has mode %04o, so others may have read it; "+
			"if they have not, run: chmod 600 %[1]s", path, perm)
	}
	// One byte more than it may have shows whether it has more.
	data, err := io.ReadAll(io.LimitReader(f, int64(len(seedPrefix)+2*len(Seed{})+2)))
	if err != nil {
		return Seed{}, fmt.Errorf("reading the seed: %w", err)
	}
	seed, err := parseSeed(string(data))
	if err != nil {
		return Seed{}, fmt.Errorf("seed file %s: %w", path, err)
	}
	return seed, nil
}

// CreateSeed makes a random seed and writes it to a new file with mode 0600, which
// appears under its name only once it is whole and durable. If there is a file
// already, it is left as it is and the error wraps [fs.ErrExist].
func CreateSeed(path string) (Seed, error) {
	var seed Seed
	rand.Read(seed[:]) // never fails, says its documentation

	// Linking gives a file its name if nothing has that name, which renaming
	// doesn't promise. A crash leaves a seed that was used or none.
	tmp := path + ".tmp-" + rand.Text()
	if err := writeSynced(tmp, []byte(seed.text())); err != nil {
		return Seed{}, fmt.Errorf("creating the seed: %w", err)
	}
	if err := errors.Join(os.Link(tmp, path), os.Remove(tmp)); err != nil {
		return Seed{}, fmt.Errorf("creating the seed: %w", err)
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return Seed{}, fmt.Errorf("creating the seed: %w", err)
	}
	return seed, nil
}

// text returns the content of the seed's file.
func (s Seed) text() string {
	return seedPrefix + hex.EncodeToString(s[:]) + "\n"
}

// parseSeed is the inverse of Seed.text.
func parseSeed(text string) (Seed, error) {
	digits := strings.TrimSuffix(strings.TrimPrefix(text, seedPrefix), "\n")
	data, err := hex.DecodeString(digits)
	if err != nil || len(data) != len(Seed{}) {
		return Seed{}, errMalformedSeed
	}
	seed := Seed(data)
	if seed.text() != text {
		return Seed{}, errMalformedSeed
	}
	return seed, nil
}

var errMalformedSeed = fmt.Errorf("malformed, want %q, %d lower-case hexadecimal digits and a newline", seedPrefix, 2*len(Seed{}))
