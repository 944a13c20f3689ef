package log

import (
	"context"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// Attested returns the checkpoint that evidence is best given under, with the cosignatures that there are: the newest for which the
// witness policy is met, or where there is none the newest signed one. It is ErrNotReady if there is none of these either.
func (l *Log) Attested(ctx context.Context) (checkpoint.Checkpoint, []byte, error) {
	if c, note := l.progress.witnessed(); note != nil {
		return c, note, nil
	}
	c, note := l.Signed()
	if note == nil {
		return c, nil, ErrNotReady
	}
	note, _, err := l.Cosigned(ctx, Signed{Size: c.Size, Note: note})
	return c, note, err
}

// PolicyFile returns a policy with the log's keys, and the witnesses that cosign its checkpoints.
func (l *Log) PolicyFile() []byte {
	var witnesses *checkpoint.Policy
	if l.service.feeds(l.Info) {
		witnesses = l.service.config.Policy
	}
	return checkpoint.PolicyFile(l.VKeys, witnesses)
}

// Cover returns the hashes of the cover of the entries [from, to) in the tree of a signed size, see merkle.CoverHashes.
func (l *Log) Cover(ctx context.Context, from, to, size uint64) ([]merkle.Hash, error) {
	if err := l.checkSigned(ctx, size); err != nil {
		return nil, err
	}
	return merkle.CoverHashes(ctx, from, to, size, l.proven())
}
