package log_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// A store that is set back together with its fence contradicts only what others remember: the witnesses, who have seen the hub.

// unsigned appends to a log, which is taken, and checks that it isn't signed.
func (s *testService) unsigned(name string) {
	s.t.Helper()
	before := s.Log(name).Sizes()
	s.grow(name, 1)
	time.Sleep(100 * time.Millisecond)
	if got := s.Log(name).Sizes(); got.Size != before.Size+1 || got.Signed != before.Signed {
		s.t.Errorf("log %s: got %+v after %+v, want it grown and nothing signed", name, got, before)
	}
}

// logsHeld returns what the metric says.
func (s *testService) logsHeld() (held float64) {
	s.t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "treeline_logs_held" {
			held = f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return held
}

func TestLogsWaitForTheHubsWitnesses(t *testing.T) {
	s, w := newHubService(t)
	s.grow("default", 1)
	s.witnessHub(w)
	s.unasked = true
	for range 2 { // the second time after what was taken unsigned
		s.close() // which signs no more either
		s.open()
		s.unsigned("default")
	}
	s.create("new") // which is born with its checkpoint of size 0: there is only one such tree
	s.unsigned("new")
	if err := s.Ready(t.Context()); err != nil || s.logsHeld() != 3 {
		t.Errorf("while the witnesses are asked: got %v, %v logs held, want it ready, and 3", err, s.logsHeld())
	}

	hub := s.Log(log.HubName)
	hub.Asked(errors.New("W1 says 12"))
	s.unsigned("default")
	err := s.Ready(t.Context())
	for _, want := range []string{"W1 says 12", "no log is signed"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ready while one objects: got %v, want %q", err, want)
		}
	}
	if !strings.Contains(s.logs.String(), "SIGNING WAITS, of all logs") {
		t.Error("nothing in the log about it")
	}

	hub.Asked(nil)
	s.witnessHub(w)
	if err := s.Ready(t.Context()); err != nil || s.logsHeld() != 0 {
		t.Errorf("afterwards: got %v, %v logs held", err, s.logsHeld())
	}
	s.checkHub()
}

// contradictHub has a witness show a checkpoint under the hub's key that isn't in its history.
func (s *testService) contradictHub() {
	s.t.Helper()
	hub := s.Log(log.HubName)
	signer, _, err := testSeed.Ed25519(hub.Origin, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	shown, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: hub.Origin, Size: 7, Root: merkle.Hash{1}}, signer)
	if err != nil {
		s.t.Fatal(err)
	}
	if contradicts, err := hub.Examine(s.t.Context(), "witness.example/w1+00000000", shown); err != nil || !contradicts {
		s.t.Fatalf("examined: got %t, %v", contradicts, err)
	}
}

func TestNoLogIsSignedWhileWitnessesContradictTheHub(t *testing.T) {
	s, w := newHubService(t)
	s.grow("default", 1)
	s.witnessHub(w)
	s.contradictHub()
	hub := s.Log(log.HubName)
	check := func() {
		t.Helper()
		// What would be appended to a store that is to be replaced would be lost with it.
		if _, err := s.log().Append(t.Context(), []*log.Event{event(t, "", "x")}); !errors.Is(err, log.ErrStopped) || !errors.Is(err, log.ErrContradicted) {
			t.Errorf("appending: got %v, want ErrStopped for ErrContradicted", err)
		}
		if s.log().Stopped() != nil || !errors.Is(hub.Stopped(), log.ErrContradicted) {
			t.Errorf("stopped: got %v for the log and %v for the hub, want it for the hub alone", s.log().Stopped(), hub.Stopped())
		}
		err := s.Ready(t.Context())
		for _, want := range []string{"another history", "no log is signed"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("ready: got %v, want %q", err, want)
			}
		}
		if !strings.Contains(s.logs.String(), "SIGNING WAITS: no log is signed while the hub is stopped") || s.logsHeld() != 1 {
			t.Errorf("%v logs are held, want 1, and a word about it in the log:\n%s", s.logsHeld(), s.logs.String())
		}
	}
	check()
	s.close()
	s.open() // and what plays the feeder asks again
	hub = s.Log(log.HubName)
	check()

	s.close()
	s.hub, s.policy = false, nil // who gives up the hub, and its witnesses, goes on
	s.open()
	s.grow("default", 1)
	s.signed()
}

func TestLogsGoOnWhenWhatAQuorumClaimsOfTheHubIsAccepted(t *testing.T) {
	s, w := newHubService(t)
	s.grow("default", 1)
	s.witnessHub(w)
	if err := s.Log(log.HubName).Outvoted(t.Context(), map[string]uint64{"witness.example/w1+00000000": 9}); err != nil {
		t.Fatal(err)
	}
	s.unsigned("default")
	s.close()
	s.accept = map[string]uint64{log.HubName: 9}
	s.open()
	s.signed()
}

// Witnesses that only claim more of the hub, as many as they are, keep nobody from appending. One that can show it does, also after them.
func TestAClaimAboutTheHubKeepsNobodyFromAppending(t *testing.T) {
	s, w := newHubService(t)
	s.grow("default", 1)
	s.witnessHub(w)
	if err := s.Log(log.HubName).Outvoted(t.Context(), map[string]uint64{"witness.example/w1+00000000": 9}); err != nil {
		t.Fatal(err)
	}
	s.unsigned("default")
	s.contradictHub()
	for range 2 { // the second time after a restart
		if _, err := s.log().Append(t.Context(), []*log.Event{event(t, "", "x")}); !errors.Is(err, log.ErrContradicted) {
			t.Errorf("appending after a proof: got %v, want ErrContradicted", err)
		}
		s.close()
		s.open()
	}
}

// What one server finds, the others heed before they sign.
func TestServersShareWhatWitnessesSayOfTheHub(t *testing.T) {
	if !onPostgres {
		t.Skip("the embedded store has one server")
	}
	s, w := newHubService(t)
	s.grow("default", 1)
	s.witnessHub(w)
	peer := &testService{t: t, dir: s.dir, url: s.url, seed: testSeed, hub: true, policy: w.policy}
	peer.open()
	s.Service.Close()
	if err := s.store.AddEvidence(t.Context(), peer.Log(log.HubName).ID, log.Evidence{
		Kind: log.EvidenceContradiction, Key: "witness.example/w1+00000000", Size: 7, At: 1,
	}); err != nil {
		t.Fatal(err)
	}
	peer.until("it to heed that", func() bool { return peer.Log(log.HubName).Stopped() != nil })
	if _, err := peer.log().Append(t.Context(), []*log.Event{event(t, "", "x")}); !errors.Is(err, log.ErrStopped) {
		t.Errorf("appending: got %v, want ErrStopped", err)
	}
	if !errors.Is(peer.Log(log.HubName).Stopped(), log.ErrContradicted) {
		t.Errorf("the hub: got %v, want ErrContradicted", peer.Log(log.HubName).Stopped())
	}
}

// graft replaces the default log in a stopped service's store and fence by what another one has of it.
func (s *testService) graft(t *testing.T, other *testService) {
	t.Helper()
	s.forge(t, func(f *intruder) {
		run := func(query string, args ...any) {
			t.Helper()
			if _, err := f.db.Exec(query, args...); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		run(`ATTACH ? AS other`, other.path())
		run(`UPDATE heads AS h SET (size, received_at, last, edge) = (SELECT size, received_at, last, edge FROM other.heads WHERE log = h.log)
			WHERE log = ?`, f.log.ID)
		for _, table := range []string{"entries", "nodes", "ids", "payloads", "checkpoints"} {
			run(`DELETE FROM main.`+table+` WHERE log = ?`, f.log.ID)
			run(`INSERT INTO main.`+table+` SELECT * FROM other.`+table+` WHERE log = ?`, f.log.ID)
		}
	})
	theirs, err := other.fence().Load(t.Context(), defaultOrigin)
	if err != nil {
		t.Fatal(err)
	}
	s.moveFence(t, theirs)
}

const defaultOrigin = "test.example/logs/default"

// moveFence makes a note what the fence has of the default log.
func (s *testService) moveFence(t *testing.T, note []byte) {
	t.Helper()
	have, err := s.fence().Load(t.Context(), defaultOrigin)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.fence().Swap(t.Context(), defaultOrigin, have, note); err != nil {
		t.Fatal(err)
	}
}

// One log of a store is set back or rewritten, with its checkpoints and its fence. Only the hub still knows what it had signed.
func TestALogThatIsNotWhatTheHubSaysIsNotSigned(t *testing.T) {
	for _, c := range []struct {
		name   string
		before int    // events that the fork has beyond the common ones, when it begins
		want   string // why the log is stopped; "" if it isn't
	}{
		{"an old copy", 0, "the store has 3 entries of it; this is not the newest store"},
		{"a fork that is shorter", 1, "the store has 4 entries of it; this is not the newest store"},
		{"a fork of the same size", 2, "the store has another tree of that size"},
		{"a fork that is longer", 300, "the store has another tree of that size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, w := newHubService(t)
			s.create("neighbour")
			s.grow("default", 3)
			s.grow("neighbour", 1)
			s.witnessHub(w)
			s.close()
			other := s.copyTo(t)
			s.open()
			s.grow("default", 2)
			s.witnessHub(w)
			hubSize := s.Log(log.HubName).Sizes().Size
			s.close()
			other.open() // without a hub
			if c.before > 0 {
				other.grow("default", c.before)
				other.signed()
			}
			other.close()
			s.graft(t, other)

			s.open()
			if err := s.log().Stopped(); !errors.As(err, new(*checkpoint.Refusal)) || !strings.Contains(err.Error(), c.want) ||
				!strings.Contains(err.Error(), "of the hub says that the log has signed size 5") {
				t.Errorf("stopped: got %v, want %q", err, c.want)
			}
			if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "log default is stopped") {
				t.Errorf("ready: got %v, want the log named", err)
			}
			if _, err := s.log().Append(t.Context(), []*log.Event{event(t, "", "x")}); !errors.Is(err, log.ErrStopped) {
				t.Errorf("appending: got %v, want ErrStopped", err)
			}
			if sizes := s.log().Sizes(); c.before >= 2 && sizes.Released != 0 {
				t.Errorf("what is released of two histories: got %+v, want nothing", sizes)
			}
			// What the hub has of it can't be shown any more, which is for its monitors to see.
			if _, err := s.Log(log.HubName).Extension(t.Context(), 2); !errors.Is(err, log.ErrNoProof) {
				t.Errorf("the growth from 3 to 5: got %v, want ErrNoProof", err)
			}
			s.grow("neighbour", 1) // which goes on, and the hub with it
			s.until("the neighbour to be in the hub", func() bool { return s.Log(log.HubName).Sizes().Signed == hubSize+1 })
			if e := s.hubEntries(hubSize + 1)[hubSize]; e.LogID != checkpoint.LogID(s.Log("neighbour").VKeys[0]) {
				t.Errorf("the hub's newest entry is %+v, want the neighbour's", e)
			}
			if text := s.logs.String(); strings.Contains(text, "the hub failed") {
				t.Errorf("the hub fails:\n%s", text)
			}
		})
	}
}

// What the hub doesn't have yet, as after a crash, and what it has of logs that went on, is no contradiction.
func TestALogMayBeAheadOfTheHub(t *testing.T) {
	s, w := newHubService(t)
	s.grow("default", 3)
	s.witnessHub(w)
	s.close()
	s.hub, s.policy = false, nil
	s.open()
	s.grow("default", 300)
	s.signed()
	s.close()
	s.hub, s.policy = true, w.policy
	s.open()
	if err := s.log().Stopped(); err != nil {
		t.Fatal(err)
	}
	s.witnessHub(w)
	s.checkHub()
}

// A log that has lost its newest checkpoint, and the fence with it, but no entry, signs the very same tree again. Until it may, it
// can't be told to be witnessed, which keeps the service from nothing else.
func TestALogSignsAgainWhatTheHubHas(t *testing.T) {
	s, w := newHubService(t)
	s.grow("default", 3)
	s.witnessHub(w)
	_, older := s.log().Signed()
	s.grow("default", 2)
	s.witnessHub(w)
	s.close()
	s.forge(t, func(f *intruder) { f.exec(`DELETE FROM checkpoints WHERE log = ? AND size = 5`, f.log.ID) })
	s.moveFence(t, older)
	s.unasked = true
	s.open()
	s.until("the hub to complain", func() bool { return strings.Contains(s.logs.String(), "the hub failed") })
	closed := make(chan struct{})
	go func() { s.close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(60 * time.Second):
		t.Fatal("the service doesn't close")
	}
	s.unasked = false
	s.open()
	s.until("the log to be witnessed again", func() bool { return s.log().Sizes().Witnessed == 5 })
	s.checkHub()
}
