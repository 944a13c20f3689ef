package log_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// witnessKey is the key of the n-th witness of the tests' policies.
func witnessKey(t testing.TB, n int) *checkpoint.Cosigner {
	t.Helper()
	key, err := checkpoint.Seed{byte(100 + n)}.Ed25519Cosigner(fmt.Sprintf("w%d.example", n))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// quorumOf returns a policy that asks for k of the first n witnesses.
func quorumOf(t testing.TB, k, n int) *checkpoint.Policy {
	t.Helper()
	text, group := "", fmt.Sprintf("group all-of-them %d", k)
	for i := range n {
		text += fmt.Sprintf("witness W%d %s https://w%d.example\n", i+1, witnessKey(t, i+1).VKey(), i+1)
		group += fmt.Sprintf(" W%d", i+1)
	}
	policy, err := checkpoint.ParsePolicy([]byte(text + group + "\nquorum all-of-them\n"))
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// newWitnessedService opens a service with a policy, and a log whose witnesses were asked.
func newWitnessedService(t *testing.T, policy *checkpoint.Policy, failOpen bool) *testService {
	t.Helper()
	s := &testService{t: t, dir: t.TempDir(), seed: testSeed, policy: policy, failOpen: failOpen}
	if onPostgres {
		s.url = migrated(t)
	}
	s.open()
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	s.log().Asked(nil)
	return s
}

// cosign has witnesses cosign the checkpoint of a size.
func (s *testService) cosign(size uint64, witnesses ...int) {
	s.t.Helper()
	recorded, err := s.log().CheckpointAt(s.t.Context(), size)
	if err != nil || recorded.Size != size {
		s.t.Fatalf("checkpoint of size %d: got %d, %v", size, recorded.Size, err)
	}
	c, _, err := checkpoint.ParseNote(recorded.Note)
	if err != nil {
		s.t.Fatal(err)
	}
	var sigs []note.Signature
	for _, n := range witnesses {
		sig, err := witnessKey(s.t, n).Cosign(c, time.Now())
		if err != nil {
			s.t.Fatal(err)
		}
		sigs = append(sigs, sig)
	}
	if err := s.log().Cosign(s.t.Context(), size, sigs); err != nil {
		s.t.Fatal(err)
	}
}

// grown appends an event, and waits for the checkpoint over it, whose size it returns.
func (s *testService) grown(id string) uint64 {
	s.t.Helper()
	size := s.append(id).Index + 1
	s.signed()
	return size
}

// released checks what is released and what is witnessed, and how many signatures the released checkpoint has.
func (s *testService) released(released, witnessed uint64, signatures int) {
	s.t.Helper()
	sizes := s.log().Sizes()
	if sizes.Released != released || sizes.Witnessed != witnessed {
		s.t.Errorf("released: got %d, witnessed %d, want %d and %d", sizes.Released, sizes.Witnessed, released, witnessed)
	}
	c, msg := s.log().Released()
	if signatures == 0 {
		if msg != nil {
			s.t.Errorf("released checkpoint: got %q, want none", msg)
		}
		return
	}
	_, sigs, err := checkpoint.ParseNote(msg)
	if err != nil || c.Size != released || len(sigs) != signatures {
		s.t.Errorf("released checkpoint: got size %d with %d signatures, %v, want %d with %d", c.Size, len(sigs), err, released, signatures)
	}
}

func TestWhatIsReleasedMeetsThePolicy(t *testing.T) {
	s := newWitnessedService(t, quorumOf(t, 2, 3), false)
	one := s.grown("one")
	s.released(0, 0, 0) // not even the tree of size 0
	s.cosign(one, 1)
	s.released(0, 0, 0)
	s.cosign(one, 2)
	s.released(one, one, 3)
	tile := merkle.Tile{Level: merkle.EntriesLevel, Width: 1}
	if _, err := s.log().Tile(t.Context(), tile); err != nil {
		t.Errorf("a tile of what is released: got %v", err)
	}
	two := s.grown("two")
	s.cosign(two, 3)
	s.released(one, one, 3)
	tile.Width = 2
	if _, err := s.log().Tile(t.Context(), tile); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("a tile of what is signed only: got %v, want ErrNotFound", err)
	}
	s.cosign(one, 3) // late, and merged
	s.released(one, one, 4)

	s.close()
	s.open()
	s.released(one, one, 4)
	s.log().Asked(nil)
	s.cosign(two, 1)
	s.released(two, two, 3)
}

func TestFailOpenReleasesWhatIsSigned(t *testing.T) {
	s := newWitnessedService(t, quorumOf(t, 1, 1), true)
	one := s.grown("one")
	s.released(one, 0, 1)
	s.cosign(one, 1)
	s.released(one, one, 2)
	two := s.grown("two")
	s.released(two, one, 1)
	if got := s.log().Release(); got != "fail-open" {
		t.Errorf("release: got %q, want it to show", got)
	}
}

func TestReleaseFollowsThePolicyOfToday(t *testing.T) {
	s := newWitnessedService(t, quorumOf(t, 1, 2), false)
	one := s.grown("one")
	s.cosign(one, 1, 2)
	two := s.grown("two")
	s.cosign(two, 1)
	three := s.grown("three")
	s.cosign(three, 2)
	s.released(three, three, 2)
	s.close()
	s.policy = quorumOf(t, 2, 2) // both now
	s.open()
	s.released(one, one, 3)
	s.close()
	s.policy = quorumOf(t, 3, 3) // and one that has never been there
	s.open()
	s.released(0, 0, 0)
}

func TestProofsPreferWhatIsWitnessed(t *testing.T) {
	s := newWitnessedService(t, quorumOf(t, 1, 1), false)
	one := s.grown("one")
	s.cosign(one, 1)
	s.grown("two")
	for index, want := range map[uint64]struct {
		size       uint64
		signatures int
		state      log.State
	}{0: {one, 2, log.StateWitnessed}, 1: {2, 1, log.StateSigned}} {
		file, err := s.log().Proof(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := checkpoint.ParseProof(file)
		if err != nil {
			t.Fatal(err)
		}
		c, sigs, err := checkpoint.ParseNote(proof.Checkpoint)
		if err != nil || c.Size != want.size || len(sigs) != want.signatures {
			t.Errorf("the proof of %d: got size %d with %d signatures, %v, want %d with %d", index, c.Size, len(sigs), err, want.size, want.signatures)
		}
		if r, err := s.log().Record(t.Context(), index); err != nil || r.State != want.state {
			t.Errorf("the state of %d: got %s, %v, want %s", index, r.State, err, want.state)
		}
	}
}

func TestSigningWaitsUntilWitnessesWereAsked(t *testing.T) {
	s := newWitnessedService(t, quorumOf(t, 1, 1), false)
	s.grown("one")
	s.close()
	s.open()
	s.append("two") // is taken all the same
	time.Sleep(100 * time.Millisecond)
	if got := s.log().Sizes().Signed; got != 1 {
		t.Errorf("signed before the witnesses were asked: got size %d, want 1", got)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("ready while they are asked: got %v", err)
	}
	s.log().Asked(errors.New("W1 says 12"))
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "W1 says 12") {
		t.Errorf("ready while one objects: got %v, want what it says", err)
	}
	if !strings.Contains(s.logs.String(), "SIGNING WAITS") {
		t.Error("nothing in the log about it")
	}
	s.log().Asked(nil)
	s.signed()
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("ready afterwards: got %v", err)
	}
}

// forged returns a checkpoint of the default log as somebody with the seed can sign it.
func (s *testService) forged(seed checkpoint.Seed, size uint64, root merkle.Hash) []byte {
	s.t.Helper()
	signer, _, err := seed.Ed25519(s.log().Origin, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	msg, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: s.log().Origin, Size: size, Root: root}, signer)
	if err != nil {
		s.t.Fatal(err)
	}
	return msg
}

func TestAnotherHistoryUnderTheLogsKeyStopsItForGood(t *testing.T) {
	for name, c := range map[string]struct {
		seed  checkpoint.Seed
		size  uint64
		root  merkle.Hash
		stops bool
		fails bool
	}{
		"larger than all that was signed": {testSeed, 7, merkle.Hash{1}, true, false},
		"another of the same size":        {testSeed, 2, merkle.Hash{1}, true, false},
		"a smaller one that isn't in it":  {testSeed, 1, merkle.Hash{1}, true, false},
		"the empty one":                   {testSeed, 0, merkle.EmptyRoot(), false, false},
		"under another key":               {checkpoint.Seed{8}, 7, merkle.Hash{1}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWitnessedService(t, quorumOf(t, 1, 1), false)
			s.grown("one")
			two := s.grown("two")
			s.cosign(two, 1)
			shown := s.forged(c.seed, c.size, c.root)
			contradicts, err := s.log().Examine(t.Context(), "w1.example+00000000", shown)
			if contradicts != c.stops || (err != nil) != c.fails {
				t.Fatalf("examined: got %t, %v", contradicts, err)
			}
			if !c.stops {
				s.grown("three")
				return
			}
			check := func() {
				t.Helper()
				if !errors.Is(s.log().Stopped(), log.ErrContradicted) {
					t.Fatalf("stopped: got %v, want ErrContradicted", s.log().Stopped())
				}
				if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "w1.example") {
					t.Errorf("ready: got %v, want the witness named", err)
				}
				if _, err := s.log().Append(t.Context(), []*log.Event{event(t, "more", "x")}); !errors.Is(err, log.ErrStopped) {
					t.Errorf("appending: got %v, want ErrStopped", err)
				}
				all, err := s.log().Evidence(t.Context())
				if err != nil || len(all) == 0 || string(all[0].Theirs) != string(shown) || len(all[0].Ours) == 0 {
					t.Errorf("evidence: got %+v, %v, want both notes", all, err)
				}
				if len(s.Fed()) != 0 {
					t.Error("it is fed still")
				}
				s.released(two, two, 2) // what was public stays so
			}
			check()
			if !strings.Contains(s.logs.String(), "LOG STOPPED") {
				t.Error("nothing in the log about it")
			}
			s.close()
			s.accept = map[string]uint64{"default": 100} // which isn't for what is proven
			s.open()
			check()
			s.close()
			s.policy, s.accept = nil, nil // nor does doing without witnesses help
			s.open()
			if !errors.Is(s.log().Stopped(), log.ErrContradicted) {
				t.Errorf("without a policy: got %v, want it stopped", s.log().Stopped())
			}
			report := s.fsck()
			if len(report.Problems) != 1 || report.Problems[0].Kind != log.KindDiverged {
				t.Errorf("fsck: got %+v, want that it diverged", report.Problems)
			}
		})
	}
}

func TestClaimsOfAQuorumStopALogUntilTheyAreAccepted(t *testing.T) {
	s := newWitnessedService(t, quorumOf(t, 2, 2), false)
	s.grown("one")
	if err := s.log().Outvoted(t.Context(), map[string]uint64{"w1.example+00000000": 9, "w2.example+00000000": 7}); err != nil {
		t.Fatal(err)
	}
	stopped := func(want bool) {
		t.Helper()
		if got := s.log().Stopped(); (got != nil) != want {
			t.Errorf("stopped: got %v, want %t", got, want)
		}
	}
	stopped(true)
	for _, c := range []struct {
		accept  uint64
		stopped bool
	}{{0, true}, {8, true}, {9, false}, {0, false}} { // what was accepted once stays so
		s.close()
		s.accept = map[string]uint64{"default": c.accept}
		s.open()
		stopped(c.stopped)
	}
	// Another server was told of less, and wrote that down later.
	less := log.Evidence{Kind: log.EvidenceAccepted, Size: 5, At: time.Now().Add(time.Hour).UnixMicro(), Ours: []byte("x"), Theirs: []byte{}}
	if err := s.store.AddEvidence(t.Context(), s.log().ID, less); err != nil {
		t.Fatal(err)
	}
	s.close()
	s.open()
	stopped(false)
	s.log().Asked(nil)
	s.grown("two")
	if s.log().Accepted() != 9 || !strings.Contains(s.logs.String(), "claims of witnesses are accepted") {
		t.Errorf("accepted up to %d, want 9, and a word about it in the log", s.log().Accepted())
	}
}

func TestAStoredCosignatureIsCheckedAgain(t *testing.T) {
	s := newWitnessedService(t, quorumOf(t, 1, 2), false)
	one := s.grown("one")
	s.cosign(one, 1)
	forged := log.Cosignature{Size: 1, Key: checkpoint.KeyID("w2.example", witnessKey(t, 2).KeyHash()), At: time.Now().Unix()}
	sig, err := witnessKey(t, 2).Cosign(checkpoint.Checkpoint{Origin: s.log().Origin, Size: 1}, time.Unix(forged.At, 0)) // another root
	if err != nil {
		t.Fatal(err)
	}
	forged.Line = checkpoint.SignatureLine(sig)
	if err := s.store.Cosign(t.Context(), s.log().ID, []log.Cosignature{forged}); err != nil {
		t.Fatal(err)
	}
	s.close()
	s.open()
	s.released(one, one, 2)
	reader := s.openReader()
	defer reader.Close()
	report, err := log.Fsck(t.Context(), reader, s.log().Info, log.FsckOptions{Policy: s.policy, Verifiers: []note.Verifier{verifier(t, s.log().Origin)}})
	if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0].What, "w2.example") || report.Cosigned != 2 {
		t.Errorf("fsck: got %+v, %v, want the forged one named", report, err)
	}
	report, err = log.Fsck(t.Context(), reader, s.log().Info, log.FsckOptions{Verifiers: []note.Verifier{verifier(t, s.log().Origin)}})
	if err != nil || len(report.Problems) != 0 || report.Uncheckable != 2 {
		t.Errorf("fsck without a policy: got %+v, %v, want both counted as not checkable", report, err)
	}
}

func TestAFrozenLogIsFedToItsEnd(t *testing.T) {
	s := newWitnessedService(t, quorumOf(t, 1, 1), false)
	one := s.grown("one")
	if err := s.store.Freeze(t.Context(), s.log().ID); err != nil {
		t.Fatal(err)
	}
	s.close()
	s.open()
	if len(s.Fed()) != 1 {
		t.Fatal("a log that has ended isn't fed")
	}
	s.cosign(one, 1)
	s.released(one, one, 2)
}

func TestServersShareWhatWitnessesSay(t *testing.T) {
	if !onPostgres {
		return // one server only
	}
	s := newWitnessedService(t, quorumOf(t, 1, 1), false)
	peer := &testService{t: t, dir: s.dir, url: s.url, seed: testSeed, policy: s.policy}
	peer.open()
	peer.log().Asked(nil)
	one := s.grown("one")
	s.cosign(one, 1)
	peer.until("the other server's release is known", func() bool { return peer.log().Sizes().Witnessed == one })
	peer.released(one, one, 2)
	if s.log().Signs() == peer.log().Signs() {
		t.Errorf("the server that signs: got %t and %t, want one of them", s.log().Signs(), peer.log().Signs())
	}
	// A server that hasn't taken up the newest checkpoint yet doesn't release it either.
	two := s.grown("two")
	peer.until("the second checkpoint is known", func() bool { return peer.log().Sizes().Signed == two })
	release := peer.holdPublisher()
	three := s.grown("three")
	s.cosign(three, 1)
	peer.Learned(t.Context())
	peer.released(one, one, 2)
	release()
	peer.until("the second release is known", func() bool { return peer.log().Sizes().Released == three })
	if _, err := s.log().Examine(t.Context(), "w1.example+00000000", s.forged(testSeed, 7, merkle.Hash{1})); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.log().Append(t.Context(), []*log.Event{event(t, "four", "x")}); err != nil {
		t.Fatal(err)
	}
	peer.until("the other server stops the log, too", func() bool { return peer.log().Stopped() != nil })
	if got := peer.log().Sizes().Signed; got != three {
		t.Errorf("signed by the other server after the contradiction: got size %d, want %d", got, three)
	}
}
