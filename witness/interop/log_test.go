package interop

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// aLog is a log that belongs to neither side, made with x/mod alone: what a test feeds to witnesses by hand.
type aLog struct {
	t      testing.TB
	origin string
	skey   string
	vkey   string
	signer note.Signer
	stored []tlog.Hash // as tlog.StoredHashes orders them
	size   int64
}

func newLog(t testing.TB, origin string) *aLog {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return &aLog{t: t, origin: origin, skey: skey, vkey: vkey, signer: signer}
}

func (l *aLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		out[i] = l.stored[index]
	}
	return out, nil
}

// grow appends entries until the log has size.
func (l *aLog) grow(size int64) {
	l.t.Helper()
	for ; l.size < size; l.size++ {
		hashes, err := tlog.StoredHashes(l.size, fmt.Appendf(nil, "entry %d of %s", l.size, l.origin), l)
		if err != nil {
			l.t.Fatal(err)
		}
		l.stored = append(l.stored, hashes...)
	}
}

// root returns the root of the tree of the first size entries.
func (l *aLog) root(size int64) tlog.Hash {
	l.t.Helper()
	if size == 0 {
		return sha256.Sum256(nil)
	}
	root, err := tlog.TreeHash(size, l)
	if err != nil {
		l.t.Fatal(err)
	}
	return root
}

// checkpoint returns the log's signed note of a size and a root.
func (l *aLog) checkpoint(size int64, root tlog.Hash) string {
	l.t.Helper()
	msg, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", l.origin, size, root)}, l.signer)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(msg)
}

// request returns the body of an add-checkpoint request that takes a witness from one size to another.
func (l *aLog) request(from, to int64) string {
	l.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", from)
	if 0 < from && from < to {
		proof, err := tlog.ProveTree(to, from, l)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, h := range proof {
			fmt.Fprintf(&b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
		}
	}
	b.WriteString("\n" + l.checkpoint(to, l.root(to)))
	return b.String()
}
