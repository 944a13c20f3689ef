package log

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// Witnesses cosign what is signed, on a clock of their own: appending and signing never wait for them. Whoever feeds them calls the
// methods here. What is released is derived anew from what is stored, by the policy, whenever that changes and at start.

// ErrContradicted is wrapped by the reason for which a log is stopped when a witness has shown a checkpoint under the log's key that
// isn't in its history.
var ErrContradicted = errors.New("a witness has seen another history of the log")

// errOutvoted is wrapped by that reason when witnesses enough for the quorum claim a size that the log never signed.
var errOutvoted = errors.New("witnesses enough for the quorum claim more of the log than it ever signed")

// errUnasked holds a log's signing at start.
var errUnasked = errors.New("its witnesses are being asked")

// contradicted reports whether a log is stopped, by that reason, for what its witnesses say.
func contradicted(reason error) bool {
	return errors.Is(reason, ErrContradicted) || errors.Is(reason, errOutvoted)
}

// holding returns why the log isn't signed for now, or nil. At start witnesses are asked first whether they have seen more than this
// store has. They know nothing of the logs in a hub, so those wait for the hub, and while its witnesses contradict it none of them
// goes on: what set back the hub has set back them as well.
func (l *Log) holding() error {
	if hub := l.service.hub; hub != nil {
		l = hub.log
	}
	if err := l.progress.holding(); err != nil {
		return err
	}
	if err := l.Stopped(); contradicted(err) {
		return err
	}
	return nil
}

// feeds reports whether the checkpoints of a log are brought to witnesses: those of the hub, or where none is kept those of every log.
func (s *Service) feeds(info Info) bool {
	return s.config.Policy != nil && info.IsHub() == s.config.Hub
}

// gates reports whether what is signed of a log is released only when the policy is met, by cosignatures of its own or of the hub's.
// A hub that isn't kept any more has nobody to wait for.
func (s *Service) gates(info Info) bool {
	if info.IsHub() && !s.config.Hub {
		return false
	}
	return !s.config.FailOpen && s.asksWitnesses()
}

// asksWitnesses reports whether there is a policy that isn't met without a witness.
func (s *Service) asksWitnesses() bool {
	nobody := func(checkpoint.Witness) bool { return false }
	return s.config.Policy != nil && !s.config.Policy.Met(nobody)
}

// Release says what of the log is released: all that is "signed", only what is "witnessed", or, where the service has a witness
// policy and doesn't mind it, "fail-open".
func (l *Log) Release() string {
	switch s := l.service; {
	case s.gates(l.Info):
		return "witnessed"
	case s.Witnessed() && s.config.FailOpen:
		return "fail-open"
	}
	return "signed"
}

// Fed returns the logs whose checkpoints are to be brought to the witnesses: those that can be signed, and those that have ended.
func (s *Service) Fed() []*Log {
	var fed []*Log
	for _, l := range s.Logs() {
		if s.feeds(l.Info) && l.Stopped() == nil {
			fed = append(fed, l)
		}
	}
	return fed
}

// Signs reports whether this server is the one that signs the log, so that it is the one to feed witnesses.
func (l *Log) Signs() bool { return !l.service.config.Shared || l.signs.Load() }

// Confirmed returns the largest size that witnesses with one of the keys have confirmed, and the newest time in their cosignatures.
func (l *Log) Confirmed(ctx context.Context, keys []string) (size uint64, at time.Time, err error) {
	all, err := l.service.store.Confirmations(ctx, l.ID)
	for _, key := range keys {
		c, ok := all[key]
		if !ok {
			continue
		}
		size = max(size, c.Size)
		if t := time.Unix(c.At, 0); t.After(at) {
			at = t
		}
	}
	return size, at, err
}

// Cosign keeps witnesses' signatures on the signed checkpoint of a size, and releases it if they meet the policy. Whoever calls it
// has checked them.
func (l *Log) Cosign(ctx context.Context, size uint64, sigs []note.Signature) error {
	all := make([]Cosignature, len(sigs))
	for i, sig := range sigs {
		at, err := checkpoint.CosignatureTime(sig)
		if err != nil {
			return err
		}
		all[i] = Cosignature{
			Size: size, Key: checkpoint.KeyID(sig.Name, sig.Hash), At: at.Unix(), Line: checkpoint.SignatureLine(sig),
		}
	}
	if err := l.service.store.Cosign(ctx, l.ID, all); err != nil {
		return fmt.Errorf("keeping cosignatures: %w", err)
	}
	return l.judge(ctx, size)
}

// judge releases the checkpoint of a size if what is kept on it meets the policy.
func (l *Log) judge(ctx context.Context, size uint64) error {
	l.judging.Lock()
	defer l.judging.Unlock()
	if c, msg := l.progress.witnessed(); msg != nil && size < c.Size {
		return nil // it came late, and is kept
	}
	s, err := l.service.store.Checkpoint(ctx, l.ID, size)
	if err != nil {
		return fmt.Errorf("reading the checkpoint of size %d: %w", size, err)
	}
	msg, witnesses, err := l.Cosigned(ctx, s)
	if err != nil || s.Size != size {
		return err
	}
	met := l.service.config.Policy.Met(func(w checkpoint.Witness) bool {
		return slices.ContainsFunc(witnesses, func(c Cosigner) bool { return c.Key == w.Key() })
	})
	if !met {
		return nil
	}
	c, _, err := checkpoint.ParseNote(msg)
	if err != nil {
		return err
	}
	l.progress.release(c, msg)
	l.progress.witness(size)
	return nil
}

// Cosigner is a witness of the policy that has cosigned a checkpoint.
type Cosigner struct {
	Name string // in the policy
	Key  string // <name>+<8 hex digits>
	At   int64  // when, in seconds since 1970 UTC
}

// Cosigned returns a recorded checkpoint's note with the cosignatures that are kept on it, of those witnesses that the policy names
// and in its order. A stored one that doesn't verify is left out.
func (l *Log) Cosigned(ctx context.Context, s Signed) ([]byte, []Cosigner, error) {
	policy := l.service.config.Policy
	if policy == nil {
		return s.Note, nil, nil
	}
	kept, err := l.service.store.Cosignatures(ctx, l.ID, s.Size)
	if err != nil || len(kept) == 0 {
		return s.Note, nil, err
	}
	c, _, err := checkpoint.ParseNote(s.Note)
	if err != nil {
		return nil, nil, fmt.Errorf("the checkpoint of size %d: %v: %w", s.Size, err, ErrDamaged)
	}
	msg := bytes.Clone(s.Note)
	var by []Cosigner
	for _, w := range policy.Witnesses {
		i := slices.IndexFunc(kept, func(k Cosignature) bool { return k.Key == w.Key() })
		if i < 0 || !kept[i].verifies(c, w.Verifier) {
			continue
		}
		msg = append(msg, kept[i].Line...)
		by = append(by, Cosigner{Name: w.Name, Key: kept[i].Key, At: kept[i].At})
	}
	return msg, by, nil
}

// verifies reports whether a stored cosignature is the verifier's on the checkpoint, and of the time that is stored with it.
func (k *Cosignature) verifies(c checkpoint.Checkpoint, v note.Verifier) bool {
	msg := c.Text() + "\n" + k.Line
	_, sigs, err := checkpoint.ParseForeignNote([]byte(msg))
	if err != nil || len(sigs) != 1 || sigs[0].Name != v.Name() || sigs[0].Hash != v.KeyHash() {
		return false
	}
	at, err := checkpoint.CosignatureTime(sigs[0])
	if err != nil || at.Unix() != k.At {
		return false
	}
	raw, err := base64.StdEncoding.DecodeString(sigs[0].Base64)
	return err == nil && v.Verify([]byte(c.Text()), raw[4:])
}

// learnWitnessed learns what is witnessed of a log whose checkpoints are brought to witnesses: at start, and where another server
// collects cosignatures.
func (l *Log) learnWitnessed(ctx context.Context) error {
	if !l.service.feeds(l.Info) {
		return nil
	}
	return l.findWitnessed(ctx)
}

// findWitnessed finds the newest checkpoint in the store that meets the policy by its own cosignatures, and releases it.
func (l *Log) findWitnessed(ctx context.Context) error {
	signed, msg := l.Signed()
	released, before := l.progress.witnessed()
	if msg == nil || before != nil && released.Size >= signed.Size {
		return nil
	}
	size, found, err := l.newestWitnessed(ctx, signed.Size)
	if err != nil || !found || before != nil && size <= released.Size {
		return err
	}
	return l.judge(ctx, size)
}

// newestWitnessed returns the largest size up to the given one at which the cosignatures that are kept, as their keys say, meet the
// policy.
func (l *Log) newestWitnessed(ctx context.Context, most uint64) (size uint64, found bool, err error) {
	policy := l.service.config.Policy
	confirmed, err := l.service.store.Confirmations(ctx, l.ID)
	if err != nil {
		return 0, false, fmt.Errorf("reading what witnesses have confirmed: %w", err)
	}
	// At most at this size witnesses enough have got to it or beyond. It saves a look at all that one of them has cosigned alone
	// since, and at everything where the policy names others than it did.
	sizes := []uint64{most}
	for _, c := range confirmed {
		sizes = append(sizes, c.Size)
	}
	slices.SortFunc(sizes, func(a, b uint64) int { return cmp.Compare(b, a) })
	at := slices.IndexFunc(sizes, func(s uint64) bool {
		return s <= most && policy.Met(func(w checkpoint.Witness) bool {
			c, ok := confirmed[w.Key()]
			return ok && c.Size >= s
		})
	})
	if at < 0 {
		return 0, false, nil
	}
	keys := make(map[string]bool) // that have cosigned size
	size = sizes[at]
	met := func() bool {
		return len(keys) > 0 && policy.Met(func(w checkpoint.Witness) bool { return keys[w.Key()] })
	}
	err = l.service.store.CosignaturesDown(ctx, l.ID, size, func(c Cosignature) error {
		if c.Size != size {
			if met() {
				return errEnough
			}
			size = c.Size
			clear(keys)
		}
		keys[c.Key] = true
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return 0, false, fmt.Errorf("reading cosignatures: %w", err)
	}
	return size, met(), nil
}

// Recorded reads from the store which size is the largest that any server has signed.
func (l *Log) Recorded(ctx context.Context) (uint64, error) {
	s, err := l.service.store.Checkpoint(ctx, l.ID, merkle.MaxSize)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return s.Size, err
}

// Examine compares a checkpoint that the witness with the key has shown with the log's history as it is recorded now. If the log's
// key has signed it and it isn't in that history, the log is stopped, the evidence is kept, and the result is true. It is an error
// if the log's key hasn't signed it, or the history can't be read.
func (l *Log) Examine(ctx context.Context, key string, shown []byte) (contradicts bool, err error) {
	verifier, err := note.NewVerifier(l.VKeys[0])
	if err != nil {
		return false, err
	}
	theirs, _, err := checkpoint.Open(shown, l.Origin, verifier)
	if err != nil {
		return false, fmt.Errorf("what the witness shows: %w", err)
	}
	l.signing.Lock() // nothing is signed before it is decided
	defer l.signing.Unlock()
	recorded, err := l.service.store.Checkpoint(ctx, l.ID, merkle.MaxSize)
	if err != nil {
		return false, fmt.Errorf("reading the newest checkpoint: %w", err)
	}
	ours, _, err := checkpoint.Open(recorded.Note, l.Origin, verifier)
	if err != nil {
		return false, fmt.Errorf("the newest checkpoint: %v: %w", err, ErrDamaged)
	}
	if theirs.Size <= ours.Size {
		extends, err := l.extends(ctx, theirs, ours)
		if extends || err != nil {
			return false, err
		}
	}
	e := Evidence{
		Kind: EvidenceContradiction, Key: key, Size: theirs.Size, At: l.service.config.Now().UnixMicro(), Ours: recorded.Note, Theirs: shown,
	}
	l.stop(e.reason())
	if err := l.service.store.AddEvidence(ctx, l.ID, e); err != nil {
		return true, fmt.Errorf("keeping the evidence that stopped log %s: %w", l.Name, err)
	}
	return true, nil
}

// extends reports whether the tree of one checkpoint extends that of another, which isn't larger. It is ErrDamaged if the store no
// longer has the larger tree, which says nothing about the smaller.
func (l *Log) extends(ctx context.Context, from, to checkpoint.Checkpoint) (bool, error) {
	stored := tiles{l.service.store, l.ID}
	tree, err := merkle.RangeFromTiles(ctx, to.Size, stored)
	if err == nil && tree.Root() != to.Root {
		err = fmt.Errorf("the stored tree of size %d isn't the signed one: %w", to.Size, ErrDamaged)
	}
	if err != nil {
		return false, err
	}
	proof, err := merkle.ConsistencyProof(ctx, from.Size, to.Size, stored)
	if err != nil {
		return false, err
	}
	return merkle.VerifyConsistency(from.Size, to.Size, proof, from.Root, to.Root) == nil, nil
}

// reason returns why the log is stopped by the evidence.
func (e *Evidence) reason() error {
	if e.Kind == EvidenceClaim {
		return fmt.Errorf("%w: %s and others, size %d; if none of them can show a checkpoint that this log's key has signed, and the store is "+
			"surely the newest one, start with --accept-witness-claim", errOutvoted, e.Key, e.Size)
	}
	return fmt.Errorf("%w: %s has shown a checkpoint of size %d under this log's key; both are kept as evidence", ErrContradicted, e.Key, e.Size)
}

// Outvoted stops the log, since witnesses that alone meet the quorum claim sizes, by key, that it never signed.
func (l *Log) Outvoted(ctx context.Context, claims map[string]uint64) error {
	l.signing.Lock()
	defer l.signing.Unlock()
	_, ours := l.Signed()
	var errs []error
	for key, size := range claims {
		e := Evidence{Kind: EvidenceClaim, Key: key, Size: size, At: l.service.config.Now().UnixMicro(), Ours: ours}
		l.stop(e.reason())
		errs = append(errs, l.service.store.AddEvidence(ctx, l.ID, e))
	}
	return errors.Join(errs...)
}

// Accepted returns the size up to which an operator has let claims of witnesses pass.
func (l *Log) Accepted() uint64 { return l.accepted.Load() }

// heed returns why the log is stopped by what is kept of its witnesses, what is proven before what is claimed, or nil.
func (l *Log) heed(ctx context.Context) error {
	all, err := l.service.store.Evidence(ctx, l.ID)
	if err != nil {
		return fmt.Errorf("reading the evidence against log %s: %w", l.Name, err)
	}
	for _, e := range all {
		if e.Kind == EvidenceAccepted && e.Size > l.accepted.Load() {
			l.accepted.Store(e.Size)
		}
	}
	var claimed error
	for _, e := range all {
		switch {
		case e.Kind == EvidenceContradiction:
			return e.reason()
		case e.Kind == EvidenceClaim && e.Size > l.accepted.Load() && claimed == nil:
			claimed = e.reason()
		}
	}
	return claimed
}

// checkAccepted refuses to accept claims about logs that no witness is asked about: whoever mistyped a name would look for another
// reason why the log isn't signed, and what is accepted stays so.
func (s *Service) checkAccepted(infos []Info) error {
	for name := range s.config.AcceptClaims {
		if slices.ContainsFunc(infos, func(i Info) bool { return i.Name == name && s.feeds(i) }) {
			continue
		}
		if s.config.Hub && name != HubName {
			return fmt.Errorf("claims about log %q can't be accepted: witnesses are asked about the log %q only, whose claims to accept", name, HubName)
		}
		return fmt.Errorf("claims about log %q can't be accepted: the store has no log of that name; give it as /readyz and the server's log "+
			"have it", name)
	}
	return nil
}

// acceptClaims records that an operator lets claims pass, and keeps it, unless as much was let pass before. The logs are open, and those
// claims don't stop them; nothing has been signed since.
func (s *Service) acceptClaims(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(s.config.AcceptClaims)) {
		l, size := s.Log(name), s.config.AcceptClaims[name]
		kept, err := l.Evidence(ctx)
		if err != nil {
			return fmt.Errorf("reading the evidence against log %s: %w", name, err)
		}
		if slices.ContainsFunc(kept, func(e Evidence) bool { return e.Kind == EvidenceAccepted && e.Size >= size }) {
			continue
		}
		// As text, since a witness may claim a size that is no number of JSON.
		act := Act{Action: "log.claims_accepted", Targets: []Target{l.Target()}, Metadata: map[string]any{"size": strconv.FormatUint(size, 10)}}
		err = s.do(ctx, s.config.AcceptedBy, act, func(ctx context.Context) error { return l.accept(ctx, size) })
		if err != nil {
			return fmt.Errorf("accepting claims about log %s: %w", name, err)
		}
	}
	return nil
}

// accept keeps that an operator lets claims pass up to a size.
func (l *Log) accept(ctx context.Context, size uint64) error {
	_, ours := l.Signed()
	e := Evidence{Kind: EvidenceAccepted, Size: size, At: l.service.config.Now().UnixMicro(), Ours: ours}
	if err := l.service.store.AddEvidence(ctx, l.ID, e); err != nil {
		return fmt.Errorf("keeping that claims of witnesses are accepted: %w", err)
	}
	l.service.logger.Warn("claims of witnesses are accepted, as the operator has said: they don't keep the log from being signed",
		"log", l.Name, "up to size", size)
	return nil
}

// Evidence returns what is kept of contradictions between the log and its witnesses.
func (l *Log) Evidence(ctx context.Context) ([]Evidence, error) {
	return l.service.store.Evidence(ctx, l.ID)
}

// Asked tells, with nil, that the log may be signed from here on, since no witness claims more of it; or why it may not yet be.
func (l *Log) Asked(objection error) {
	before := l.progress.hold(objection)
	if objection != nil && (before == nil || before.Error() != objection.Error()) {
		waits := "SIGNING WAITS: a witness claims more of a log than was ever signed here"
		if l.IsHub() {
			waits = "SIGNING WAITS, of all logs: a witness claims more of the hub than was ever signed here"
		}
		l.service.logger.Error(waits+"; find the newest store, or start with --accept-witness-claim", "log", l.Name, "claim", objection)
	}
}
