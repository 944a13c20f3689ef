package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
)

var operator = log.ByCommand("treeline test", "operator")

const day = 24 * time.Hour

// personal returns an event of a person, whose secrets are in it and in no other person's.
func personal(t testing.TB, id string, person int) *log.Event {
	t.Helper()
	e, err := log.ParseEvent(fmt.Appendf(nil, `{"id":%q,"action":"user.seen","actor":{"id":"u%d","email":"u%d@secret.example","name":"Name%dx"},
		"targets":[{"id":"t%d","name":"%dTargetx"}],"context":{"ip":"10.0.0.%d"},"metadata":{"note":"note%dx","kept":"k%d"}}`,
		id, person, person, person, person, person, person, person, person), harnessOptions())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// people appends n events, of the persons of a few numbers in turn.
func (s *testService) people(n, persons int) {
	s.t.Helper()
	size := int(s.log().Sizes().Size)
	var events []*log.Event
	for i := range n {
		events = append(events, personal(s.t, fmt.Sprint("p", size+i), i%persons))
	}
	s.appendAll(s.log(), events)
}

func (s *testService) setRetention(r log.Retention) {
	s.t.Helper()
	if request, err := s.log().SetRetention(s.t.Context(), operator, r, "test"); err != nil || request != nil {
		s.t.Fatalf("setting %+v: got request %+v, %v", r, request, err)
	}
}

// unarchived purges after 30 days, without an archive.
var unarchived = log.Retention{Max: log.Age{Days: 30}}

// purge purges all that has expired, and returns what that was.
func (s *testService) purge() []log.Span {
	s.t.Helper()
	s.signed()
	x, err := s.log().Expired(s.t.Context(), 0, 1<<40)
	if err != nil || x.Blocked != nil {
		s.t.Fatalf("expired: got %+v, %v", x, err)
	}
	if len(x.Spans) > 0 {
		if err := s.log().Purge(s.t.Context(), log.ByServer(), x.Spans, nil); err != nil {
			s.t.Fatalf("purging %v: %v", x.Spans, err)
		}
	}
	return x.Spans
}

// erase erases claims of a person.
func (s *testService) erase(person int, claims ...string) (log.Erasure, error) {
	s.t.Helper()
	plan, err := s.log().PlanErasure(s.t.Context(), log.ErasureRequest{
		Subject: url.Values{"actor_id": {fmt.Sprint("u", person)}}, Claims: claims, LegalBasis: "Art. 17 GDPR", Reference: "T-1",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.log().Erase(s.t.Context(), operator, plan)
}

func (s *testService) record(index uint64) log.Record {
	s.t.Helper()
	r, err := s.log().Record(s.t.Context(), index)
	if err != nil {
		s.t.Fatalf("record %d: %v", index, err)
	}
	return r
}

// fail makes steps of the store fail until the returned function is called.
func (s *testService) fail(steps ...string) (mend func()) {
	fails := func(at string) bool { return slices.Contains(steps, at) }
	s.store.fault.Store(&fails)
	return func() { s.store.fault.Store(nil) }
}

// resume has all be done that is recorded.
func (s *testService) resume() {
	s.t.Helper()
	for more := true; more; {
		var err error
		if more, err = s.log().Resume(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
	}
}

// stored returns all that the store has of contents, as text.
func (s *testService) stored() string {
	s.t.Helper()
	store := s.openReader()
	defer store.Close()
	var b strings.Builder
	err := store.Payloads(s.t.Context(), s.log().ID, 0, s.log().Sizes().Size, func(_ uint64, p log.Payload) error {
		b.Write(p.Data)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

func TestAPolicyThatLosesSomethingWaitsAndIsApproved(t *testing.T) {
	s := &testService{t: t, dir: t.TempDir(), seed: testSeed, cooling: 7 * day, approval: true}
	if onPostgres {
		s.url = migrated(t)
	}
	s.open()
	ctx := t.Context()
	if _, err := s.CreateLog(ctx, operator, "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	key := func(by log.By, name string) log.Key {
		k, _, err := s.CreateKey(ctx, by, log.Key{Role: log.RoleAdmin, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	asks := key(operator, "asks")
	other := key(operator, "other")
	child := key(log.ByKey(asks), "child")
	grandchild := key(log.ByKey(child), "grandchild")
	rotated, _, err := s.RotateKey(ctx, operator, asks.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	rotatedChild := key(log.ByKey(rotated), "child of the rotated")

	policy, err := log.Preset("soc2")
	if err != nil {
		t.Fatal(err)
	}
	request, err := s.log().SetRetention(ctx, log.ByKey(asks), policy, "we need less")
	if err != nil || request == nil {
		t.Fatalf("got %+v, %v", request, err)
	}
	inForce := func(want log.Retention) {
		t.Helper()
		if got := s.log().Retention().Policy; got != want {
			t.Fatalf("in force is %+v, want %+v", got, want)
		}
	}
	inForce(log.DefaultRetention)
	if _, err := s.log().SetRetention(ctx, log.ByKey(other), policy, "again"); err != nil && !errors.Is(err, log.ErrPending) || err == nil {
		t.Errorf("a second request: got %v", err)
	}
	for name, by := range map[string]log.By{
		"the requester": log.ByKey(asks), "a key it made": log.ByKey(child), "a key of that one": log.ByKey(grandchild),
		"the key that took its place": log.ByKey(rotated), "a key that one made": log.ByKey(rotatedChild), "a command": operator,
		"nobody": log.ByKey(log.Key{ID: "000000000000"}),
	} {
		if err := s.log().ApproveRetention(ctx, by, request.ID); !errors.Is(err, log.ErrApprover) {
			t.Errorf("%s: got %v, want ErrApprover", name, err)
		}
	}
	if err := s.log().ApproveRetention(ctx, log.ByKey(other), "another"); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("another request: got %v", err)
	}
	s.clock.Store((6 * day).Microseconds())
	if err := s.log().ApproveRetention(ctx, log.ByKey(other), request.ID); err != nil {
		t.Fatal(err)
	}
	if settled, err := s.log().SettleRetention(ctx); settled || err != nil {
		t.Errorf("before its time: %v, %v", settled, err)
	}
	s.close()
	s.open()
	inForce(log.DefaultRetention)
	if p := s.log().Retention().Pending; p == nil || p.ApprovedBy == nil || p.ApprovedBy.ID != other.ID || p.By.ID != asks.ID || p.Policy != policy {
		t.Fatalf("pending after a restart: %+v", p)
	}
	s.clock.Store((7*day + time.Minute).Microseconds())
	if settled, err := s.log().SettleRetention(ctx); !settled || err != nil {
		t.Errorf("in time: %v, %v", settled, err)
	}
	inForce(policy)
	if got := s.log().Retention().Approvers; !slices.Equal(got, []string{asks.ID, other.ID}) {
		t.Errorf("approvers: %v", got)
	}

	// What loses nothing is at once; what is only approved late is in force then; what is cancelled never is.
	longer := log.Retention{Min: log.Age{Years: 6}, Max: log.Forever, Archive: true}
	if request, err := s.log().SetRetention(ctx, operator, longer, "we need more"); request != nil || err != nil {
		t.Fatalf("got %+v, %v", request, err)
	}
	inForce(longer)
	request, err = s.log().SetRetention(ctx, log.ByKey(other), policy, "less again")
	if err != nil {
		t.Fatal(err)
	}
	s.clock.Add((8 * day).Microseconds())
	if settled, err := s.log().SettleRetention(ctx); settled || err != nil {
		t.Errorf("without approval: %v, %v", settled, err)
	}
	if err := s.log().CancelRetention(ctx, operator, request.ID, "a mistake"); err != nil {
		t.Fatal(err)
	}
	if err := s.log().ApproveRetention(ctx, log.ByKey(rotated), request.ID); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("approving what is cancelled: %v", err)
	}
	if request, err = s.log().SetRetention(ctx, log.ByKey(other), policy, "less again"); err != nil {
		t.Fatal(err)
	}
	s.clock.Add((8 * day).Microseconds())
	if err := s.log().ApproveRetention(ctx, log.ByKey(rotated), request.ID); err != nil {
		t.Fatal(err)
	}
	inForce(policy)
	s.check()
}

func TestWhatIsPurgedIsGoneAndProven(t *testing.T) {
	s := newTestService(t)
	ctx := t.Context()
	s.people(60, 3)
	s.signed()
	var before []log.Record
	var proofs [][]byte
	for i := range uint64(60) {
		before = append(before, s.record(i))
		proof, err := s.log().Proof(ctx, i)
		if err != nil {
			t.Fatal(err)
		}
		proofs = append(proofs, proof)
	}
	s.setRetention(unarchived)
	hold, err := s.log().PlaceHold(ctx, operator, "a lawsuit", "counsel asked", url.Values{"actor_email": {"u1@secret.example"}})
	if err != nil {
		t.Fatal(err)
	}
	if x, err := s.log().Expired(ctx, 0, 100); err != nil || len(x.Spans) > 0 || x.End > 0 {
		t.Errorf("expired at once: %+v, %v", x, err)
	}
	s.clock.Store((31 * day).Microseconds())
	s.purge()

	check := func() {
		t.Helper()
		for i, old := range before {
			r := s.record(uint64(i))
			if r.Hash != old.Hash {
				t.Fatalf("record %d has another hash", i)
			}
			if held := i%3 == 1; held != (r.PurgedBy == nil) || held != (r.Event != nil) {
				t.Fatalf("record %d, held %v, is %+v", i, held, r)
			}
			if v, err := log.VerifyProof(proofs[i], log.Trust{Keys: []note.Verifier{verifier(t, s.log().Origin)}}); err != nil || v.Leaf != r.Hash {
				t.Fatalf("the old proof of %d: %v", i, err)
			}
			proof, err := s.log().Proof(ctx, uint64(i))
			if err != nil {
				t.Fatal(err)
			}
			_, err = log.VerifyProof(proof, log.Trust{Keys: []note.Verifier{verifier(t, s.log().Origin)}})
			if gone := r.PurgedBy != nil; gone != errors.Is(err, log.ErrNotShown) || !gone && err != nil {
				t.Fatalf("the new proof of %d: %v", i, err)
			}
		}
		byID, err := s.log().RecordByID(ctx, "p0")
		if err != nil || byID.ID != "p0" || byID.PurgedBy == nil {
			t.Fatalf("by its id: %+v, %v", byID, err)
		}
		text := string(byID.AppendJSON(nil, false))
		if !strings.Contains(text, `"purged_by":{"id":"treeline:purged:`) || !strings.Contains(text, `"digest":"`) || strings.Contains(text, "secret") {
			t.Fatalf("its JSON: %s", text)
		}
		by := s.record(byID.PurgedBy.Index)
		if by.ID != byID.PurgedBy.ID || !bytes.Contains(by.Event, []byte(`"archive_off":true`)) {
			t.Fatalf("it was purged by %s", by.Event)
		}
		found, err := s.log().Search(ctx, &log.Filter{ActorIDs: []string{"u0"}}, log.Page{Position: 1 << 40, Limit: 100, MaxBytes: 1 << 20})
		if err != nil || len(found.Records) > 0 {
			t.Fatalf("found %d, %v", len(found.Records), err)
		}
		places, err := s.log().Append(ctx, []*log.Event{personal(t, "p0", 9)})
		if err != nil || !places[0].Duplicate || !places[0].Unchecked || places[0].Index != 0 {
			t.Fatalf("appended again: %+v, %v", places, err)
		}
		if r := s.check(); r.Purged != 40 || r.Erased != 0 {
			t.Fatalf("fsck: %+v", r)
		}
	}
	check()
	if !onPostgres { // which removes them with Shred
		if text := s.stored(); strings.Contains(text, "u0@secret") || !strings.Contains(text, "u1@secret") {
			t.Error("the store has what is purged, or not what is held")
		}
	}
	s.close()
	s.open()
	check()

	// The hold's events go once it is released; the log's own never do.
	if _, err := s.log().ReleaseHold(ctx, operator, hold.ID, "settled"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.log().ReleaseHold(ctx, operator, hold.ID, "settled"); !errors.Is(err, log.ErrReleased) {
		t.Errorf("released again: %v", err)
	}
	if got := s.purge(); len(got) == 0 {
		t.Error("nothing is purged after the release")
	}
	s.clock.Store((90 * day).Microseconds())
	if got := s.purge(); got != nil {
		t.Errorf("own events are purged: %v", got)
	}
	if r := s.check(); r.Purged != 60 {
		t.Errorf("fsck: %+v", r)
	}
	if got, _, err := s.log().Held(ctx, []log.Span{{From: 0, To: 60}}); err != nil || got != nil {
		t.Errorf("held: %v, %v", got, err)
	}
}

func TestNothingIsPurgedThatMayNotBe(t *testing.T) {
	s := newTestService(t)
	ctx := t.Context()
	s.people(20, 2)
	s.signed()
	archived := log.Retention{Max: log.Age{Days: 30}, Archive: true}
	s.setRetention(archived)
	s.signed()
	all := []log.Span{{From: 0, To: 20}}
	purge := func(a *log.Archived) error { return s.log().Purge(ctx, log.ByServer(), all, a) }
	good := log.Archived{Name: "a.zip", Manifest: strings.Repeat("ab", 32), From: 0, To: 20, Size: 21}
	if err := purge(&good); !errors.Is(err, log.ErrChanged) {
		t.Errorf("before it has expired: %v", err)
	}
	s.clock.Store((31 * day).Microseconds())
	for name, change := range map[string]func(*log.Archived){
		"too short": func(a *log.Archived) { a.To = 19 }, "too late": func(a *log.Archived) { a.From = 1 }, "under a smaller checkpoint": func(a *log.Archived) { a.Size = 19 },
		"without a name": func(a *log.Archived) { a.Name = "" }, "without a hash": func(a *log.Archived) { a.Manifest = "ab" },
	} {
		a := good
		change(&a)
		if err := purge(&a); !errors.Is(err, log.ErrUnarchived) {
			t.Errorf("an archive %s: got %v, want ErrUnarchived", name, err)
		}
	}
	if err := purge(nil); !errors.Is(err, log.ErrUnarchived) {
		t.Errorf("no archive: %v", err)
	}

	// A clock that was put back.
	s.append("newest")
	s.clock.Store((30*day + 23*time.Hour).Microseconds())
	var blocked *log.BlockedError
	if err := purge(&good); !errors.Is(err, log.ErrBlocked) || !errors.As(err, &blocked) || blocked.Reason != log.BlockedClock {
		t.Errorf("a clock that was put back: %v", err)
	}
	if x, err := s.log().Expired(ctx, 0, 100); err != nil || x.Blocked == nil || x.Blocked.Reason != log.BlockedClock || x.Spans != nil {
		t.Errorf("expired: %+v, %v", x, err)
	}
	s.clock.Store((31 * day).Microseconds())

	// Its own events, and what is held.
	own := []log.Span{{From: 0, To: 21}}
	if err := s.log().Purge(ctx, log.ByServer(), own, &log.Archived{Name: "a", Manifest: good.Manifest, From: 0, To: 30, Size: 30}); !errors.Is(err, log.ErrChanged) {
		t.Errorf("the log's own event: %v", err)
	}
	hold, err := s.log().PlaceHold(ctx, operator, "m", "r", url.Values{"target_id": {"t1"}})
	if err != nil {
		t.Fatal(err)
	}
	var held *log.HeldError
	if err := purge(&good); !errors.Is(err, log.ErrHeld) || !errors.As(err, &held) || !slices.Equal(held.Holds, []string{hold.ID}) {
		t.Errorf("held: %v", err)
	}
	if r := s.check(); r.Purged != 0 {
		t.Errorf("fsck: %+v", r)
	}
	if _, err := s.log().ReleaseHold(ctx, operator, hold.ID, "r"); err != nil {
		t.Fatal(err)
	}
	if err := purge(&good); err != nil {
		t.Fatal(err)
	}
	if err := purge(&good); !errors.Is(err, log.ErrChanged) {
		t.Errorf("again: %v", err)
	}
	if _, err := s.log().PlaceHold(ctx, operator, "m", "r", url.Values{"colour": {"red"}}); !errors.Is(err, log.ErrFilter) {
		t.Errorf("a hold on nothing known: %v", err)
	}
	if _, err := s.log().PlaceHold(ctx, operator, "m", " ", nil); !errors.Is(err, log.ErrReason) {
		t.Errorf("a hold without a reason: %v", err)
	}
}

func TestNothingIsPurgedThatIsUnsignedOrUnwitnessed(t *testing.T) {
	s := newWitnessedService(t, quorumOf(t, 1, 1), true)
	unsigned := &testService{t: t, dir: t.TempDir(), seed: testSeed, signing: time.Hour}
	if onPostgres {
		unsigned.url = migrated(t)
	}
	unsigned.open()
	if _, err := unsigned.CreateLog(t.Context(), operator, "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]*testService{log.BlockedUnwitnessed: s, log.BlockedUnsigned: unsigned} {
		s.people(5, 1)
		s.setRetention(unarchived)
		s.clock.Store((31 * day).Microseconds())
		if want == log.BlockedUnwitnessed {
			s.signed()
		}
		x, err := s.log().Expired(t.Context(), 0, 100)
		if err != nil || x.Spans != nil || x.Blocked == nil || x.Blocked.Reason != want || x.End != 6 {
			t.Errorf("%s: expired is %+v, %v", want, x, err)
		}
		var blocked *log.BlockedError
		if err := s.log().Purge(t.Context(), operator, []log.Span{{From: 0, To: 5}}, nil); !errors.As(err, &blocked) || blocked.Reason != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	s.cosign(s.log().Sizes().Signed, 1)
	s.purge()
	if r := s.check(); r.Purged != 5 {
		t.Errorf("fsck: %+v", r)
	}
}

func TestWhatIsManyIsToldBySeveralEvents(t *testing.T) {
	s := newTestService(t)
	s.people(4000, 2)
	erasure, err := s.erase(1, "/actor/email")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(erasure.Events); n < 2 || len(erasure.Entries()) != 2000 {
		t.Errorf("it is told by %d events of %d entries", n, len(erasure.Entries()))
	}
	s.setRetention(unarchived)
	if _, err := s.log().PlaceHold(t.Context(), operator, "m", "r", url.Values{"actor_id": {"u1"}}); err != nil {
		t.Fatal(err)
	}
	s.clock.Store((31 * day).Microseconds())
	if spans := s.purge(); len(spans) != 2000 {
		t.Errorf("%d ranges are purged", len(spans))
	}
	s.close()
	s.open()
	by := map[string]bool{}
	for _, p := range s.log().Purges() {
		by[p.By.ID] = true
	}
	if len(by) < 2 {
		t.Errorf("the purge is told by %d events", len(by))
	}
	if r := s.check(); r.Purged != 2000 || r.Erased != 2000 {
		t.Errorf("fsck: %+v", r)
	}
}

func TestWhatIsErasedIsGoneAndProven(t *testing.T) {
	s := newTestService(t)
	ctx := t.Context()
	s.people(30, 3)
	s.signed()
	var before []log.Record
	var proofs [][]byte
	for i := range uint64(30) {
		before = append(before, s.record(i))
		proof, err := s.log().Proof(ctx, i)
		if err != nil {
			t.Fatal(err)
		}
		proofs = append(proofs, proof)
	}
	erasure, err := s.erase(1, "/actor/email", "/actor/name", "/targets/*/name", "/metadata/note")
	if err != nil {
		t.Fatal(err)
	}
	pointers := []string{"/actor/email", "/actor/name", "/metadata/note", "/targets/0/name"}
	if !erasure.Store || erasure.Subject != "actor_id" || len(erasure.Erased) != 1 || !slices.Equal(erasure.Erased[0].Pointers, pointers) ||
		len(erasure.Entries()) != 10 {
		t.Errorf("the erasure: %+v", erasure)
	}
	check := func() {
		t.Helper()
		for i, old := range before {
			r := s.record(uint64(i))
			erased := i%3 == 1
			if r.Hash != old.Hash || erased != (r.Event == nil) || erased != (r.Claims != nil) || erased != (len(r.ErasedBy) == 1) {
				t.Fatalf("record %d, erased %v, is %+v", i, erased, r)
			}
			text := string(r.AppendJSON(nil, false))
			for _, secret := range []string{"u1@secret.example", "Name1x", "1Targetx", "note1x"} {
				if strings.Contains(text, secret) {
					t.Fatalf("record %d shows %s: %s", i, secret, text)
				}
			}
			if erased && (!strings.Contains(text, `"u1"`) || !strings.Contains(text, `"k1"`) || !strings.Contains(text, `"erased_by":[{"id":"treeline:erased:`)) {
				t.Fatalf("record %d: %s", i, text)
			}
			trust := log.Trust{Keys: []note.Verifier{verifier(t, s.log().Origin)}}
			if v, err := log.VerifyProof(proofs[i], trust); err != nil || v.Leaf != r.Hash {
				t.Fatalf("the old proof of %d: %v", i, err)
			}
			proof, err := s.log().Proof(ctx, uint64(i))
			if err != nil {
				t.Fatal(err)
			}
			v, err := log.VerifyProof(proof, trust)
			if err != nil || v.Leaf != r.Hash || erased && !slices.Equal(v.Withheld(), pointers) {
				t.Fatalf("the new proof of %d: %v", i, err)
			}
		}
		for name, want := range map[string]int{"actor_id=u1": 10, "actor_email=u1@secret.example": 0, "actor_email=u2@secret.example": 10,
			"target_id=t1": 10, "metadata.note=note1x": 0, "metadata.kept=k1": 10, "ip=10.0.0.1": 10, "q=1Targetx": 0, "q=2Targetx": 10} {
			query, _ := url.ParseQuery(name)
			f, err := log.ParseFilter(query)
			if err != nil {
				t.Fatal(err)
			}
			found, err := s.log().Search(ctx, f, log.Page{Position: 1 << 40, Limit: 100, MaxBytes: 1 << 20})
			if err != nil || len(found.Records) != want {
				t.Fatalf("%s: found %d, %v, want %d", name, len(found.Records), err, want)
			}
		}
		places, err := s.log().Append(ctx, []*log.Event{personal(t, "p1", 8)})
		if err != nil || !places[0].Duplicate || !places[0].Unchecked || places[0].Index != 1 {
			t.Fatalf("appended again: %+v, %v", places, err)
		}
		if r := s.check(); r.Erased != 10 || r.Purged != 0 || r.Pending != 0 {
			t.Fatalf("fsck: %+v", r)
		}
		if strings.Contains(s.stored(), "u1@secret") {
			t.Fatal("the store still has it")
		}
	}
	check()
	s.close()
	s.open()
	check()
	s.resume()
	outcome := []byte(`{"archive":[]}`)
	s.until("the index to be clean", func() bool {
		s.resume()
		return s.log().FinishErasure(ctx, erasure.ID, outcome) == nil
	})
	if got, err := s.log().Erasure(ctx, erasure.ID); err != nil || !got.Store || !got.Index || !bytes.Equal(got.Outcome, outcome) {
		t.Errorf("in the end: %+v, %v", got, err)
	}
	// A second erasure takes more of the same events, and nothing twice.
	if _, err := s.erase(1, "/actor/email"); !errors.Is(err, log.ErrNothing) {
		t.Errorf("the same again: %v", err)
	}
	if _, err := s.erase(1, "/actor/*", "/context/ip"); err != nil {
		t.Fatal(err)
	}
	if r := s.record(1); len(r.ErasedBy) != 2 || strings.Contains(string(r.AppendJSON(nil, false)), `"u1"`) {
		t.Errorf("after a second erasure: %+v", r)
	}
	s.check()
}

func TestNothingIsErasedThatMayNotBe(t *testing.T) {
	s := newTestService(t)
	ctx := t.Context()
	s.people(9, 3)
	for _, claim := range []string{"/id", "/action", "/credential", "/occurred_at", "/actor", "actor/email", "/nothing/*", "", "/", "/targets/x/name", "/metadata/a/b"} {
		_, err := s.log().PlanErasure(ctx, log.ErasureRequest{Subject: url.Values{"actor_id": {"u1"}}, Claims: []string{claim}, LegalBasis: "x"})
		if !errors.Is(err, log.ErrErasure) {
			t.Errorf("%q: got %v, want ErrErasure", claim, err)
		}
	}
	for _, subject := range []url.Values{nil, {"actor_id": nil}, {"actor_id": {""}}, {"q": {"u1"}}, {"action": {"x"}}, {"metadata.": {"x"}}} {
		_, err := s.log().PlanErasure(ctx, log.ErasureRequest{Subject: subject, Claims: []string{"/actor/email"}, LegalBasis: "x"})
		if !errors.Is(err, log.ErrErasure) && !errors.Is(err, log.ErrFilter) {
			t.Errorf("%v: got %v, want an error", subject, err)
		}
	}
	hold, err := s.log().PlaceHold(ctx, operator, "m", "r", url.Values{"metadata.kept": {"k1"}})
	if err != nil {
		t.Fatal(err)
	}
	var held *log.HeldError
	if _, err := s.erase(1, "/actor/email"); !errors.As(err, &held) || !slices.Equal(held.Holds, []string{hold.ID}) {
		t.Errorf("held: %v", err)
	}
	if _, err := s.erase(2, "/actor/email"); err != nil {
		t.Errorf("not held: %v", err)
	}
	if _, err := s.log().ReleaseHold(ctx, operator, hold.ID, "r"); err != nil {
		t.Fatal(err)
	}
	s.setRetention(log.Retention{Min: log.Age{Days: 40}, Max: log.Forever, Archive: true})
	if _, err := s.erase(1, "/actor/email"); !errors.Is(err, log.ErrTooEarly) {
		t.Errorf("before the minimum age: %v", err)
	}
	s.clock.Store((41 * day).Microseconds())
	plan, err := s.log().PlanErasure(ctx, log.ErasureRequest{Subject: url.Values{"actor_id": {"u1"}}, Claims: []string{"/actor/email"}, LegalBasis: "x"})
	if err != nil || plan.Events != 3 || plan.Early != 0 || plan.Claims["/actor/email"] != 3 || !slices.Equal(plan.First, []uint64{1, 4, 7}) {
		t.Fatalf("the plan: %+v, %v", plan, err)
	}
	if _, err := s.log().PlaceHold(ctx, operator, "m", "r", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.log().Erase(ctx, operator, plan); !errors.Is(err, log.ErrChanged) {
		t.Errorf("a hold was placed since: %v", err)
	}
	if r := s.check(); r.Erased != 3 {
		t.Errorf("fsck: %+v", r)
	}
}

func TestAFrozenLogTakesItsOwnEvents(t *testing.T) {
	s := newTestService(t)
	ctx := t.Context()
	s.people(6, 2)
	if _, err := s.log().Close(ctx, operator, "the customer left"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.log().Append(ctx, []*log.Event{event(t, "late", "x")}); !errors.Is(err, log.ErrFrozen) {
		t.Errorf("a client's event: %v", err)
	}
	if got := s.log().Retention().Policy; !got.Closing || got.Max != log.Forever {
		t.Errorf("policy: %+v", got)
	}
	if _, err := s.erase(1, "/actor/email"); err != nil {
		t.Errorf("an erasure: %v", err)
	}
	s.close()
	s.open()
	s.setRetention(log.Retention{Max: log.Forever, Closing: true})
	s.purge()
	if r := s.check(); r.Purged != 6 || !r.Frozen || r.Size != 6+4 {
		t.Errorf("fsck: %+v", r)
	}
	if _, err := s.log().Append(ctx, []*log.Event{event(t, "late", "x")}); !errors.Is(err, log.ErrFrozen) {
		t.Errorf("a client's event: %v", err)
	}
}

// A client's event that waits in the queue when the log ends is refused, also if it is in one batch with an event of the log's own.
func TestAFrozenLogRefusesWhatIsInABatchWithItsOwnEvents(t *testing.T) {
	s := newTestService(t)
	release := s.hold()
	var group sync.WaitGroup
	late := func(id string) {
		if _, err := s.log().Append(t.Context(), []*log.Event{event(t, id, "x")}); !errors.Is(err, log.ErrFrozen) {
			t.Errorf("%s: got %v, want ErrFrozen", id, err)
		}
	}
	group.Go(func() { late("first") })
	s.untilHeld()
	group.Go(func() { late("second") })
	group.Go(func() {
		if _, err := s.log().PlaceHold(t.Context(), operator, "m", "r", nil); err != nil {
			t.Error(err)
		}
	})
	s.untilQueued(2)
	if err := s.store.Freeze(t.Context(), s.log().ID); err != nil {
		t.Fatal(err)
	}
	s.store.hold.Store(nil)
	release()
	group.Wait()
	if r := s.check(); r.Size != 1 {
		t.Errorf("fsck: %+v", r)
	}
}

// A crash between an event and the deed: what is recorded counts at once, and is done after the next start.
func TestWhatIsRecordedCountsBeforeItIsDone(t *testing.T) {
	s := newTestService(t)
	s.people(20, 2)
	s.setRetention(unarchived)
	mend := s.fail("reduce", "purge")
	erasure, err := s.erase(1, "/actor/email")
	if err != nil || erasure.Store {
		t.Fatalf("got %+v, %v", erasure, err)
	}
	s.clock.Store((31 * day).Microseconds())
	s.append("kept")
	// Only the first half is purged.
	s.signed()
	if err := s.log().Purge(t.Context(), log.ByServer(), []log.Span{{From: 0, To: 10}}, nil); err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		var b []byte
		records, err := s.log().Records(t.Context(), 0, 20, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for i := range records {
			if (records[i].PurgedBy != nil) != (i < 10) {
				t.Fatalf("record %d: %+v", i, records[i])
			}
			b = records[i].AppendJSON(b, false)
		}
		return string(b)
	}
	if text := shown(); strings.Contains(text, "u1@secret") || strings.Count(text, "u0@secret") != 5 {
		t.Errorf("shown is %s", text)
	}
	if text := s.stored(); strings.Count(text, "u1@secret") != 10 {
		t.Error("the faults didn't keep the store from losing it")
	}
	// What readers aren't shown no retry is compared with either.
	for _, id := range []string{"p0", "p11"} {
		if places, err := s.log().Append(t.Context(), []*log.Event{personal(t, id, 9)}); err != nil || !places[0].Unchecked {
			t.Errorf("%s appended again: %+v, %v", id, places, err)
		}
	}
	if r := s.check(); r.Pending != 10+5 || r.Purged != 10 || r.Erased != 5 {
		t.Errorf("fsck: %+v", r)
	}
	s.close()
	mend()
	s.open()
	if text := shown(); strings.Contains(text, "u1@secret") || strings.Count(text, "u0@secret") != 5 {
		t.Errorf("shown after a restart is %s", text)
	}
	if text := s.stored(); !onPostgres && (strings.Contains(text, "u1@secret") || strings.Count(text, "u0@secret") != 5) {
		t.Error("the store still has it")
	}
	if r := s.check(); !onPostgres && r.Pending != 0 || r.Purged != 10 || r.Erased != 5 {
		t.Errorf("fsck: %+v", r)
	}
}

func TestWhatIsPutBackIsNotShown(t *testing.T) {
	s := newTestService(t)
	s.people(20, 2)
	s.setRetention(unarchived)
	s.close()
	type row struct {
		Idx           int
		Seed, Payload []byte
	}
	var rows []row
	s.forge(t, func(f *intruder) {
		if err := f.db.Select(&rows, `SELECT idx, seed, payload FROM payloads WHERE log = ? AND idx < 20`, f.log.ID); err != nil {
			t.Fatal(err)
		}
	})
	putBack := func() {
		s.forge(t, func(f *intruder) {
			for _, r := range rows {
				f.exec(`INSERT OR REPLACE INTO payloads (log, idx, seed, payload) VALUES (?, ?, ?, ?)`, f.log.ID, r.Idx, r.Seed, r.Payload)
			}
		})
	}
	s.open()
	s.clock.Store((31 * day).Microseconds())
	s.append("kept")
	if _, err := s.erase(1, "/actor/email"); err != nil {
		t.Fatal(err)
	}
	s.signed()
	if err := s.log().Purge(t.Context(), log.ByServer(), []log.Span{{From: 0, To: 10}}, nil); err != nil {
		t.Fatal(err)
	}
	putBack()
	check := func() {
		t.Helper()
		for i := range uint64(20) {
			r := s.record(i)
			if (r.PurgedBy != nil) != (i < 10) || strings.Contains(string(r.AppendJSON(nil, false)), "u1@secret") {
				t.Fatalf("record %d: %+v", i, r)
			}
		}
		found, err := s.log().Search(t.Context(), &log.Filter{ActorEmails: []string{"u1@secret.example"}}, log.Page{Position: 1 << 40, Limit: 100, MaxBytes: 1 << 20})
		if err != nil || len(found.Records) > 0 {
			t.Fatalf("found %d, %v", len(found.Records), err)
		}
	}
	check()
	if !strings.Contains(s.stored(), "u1@secret") {
		t.Error("it wasn't put back")
	}
	s.close()
	s.open()
	check()
	if text := s.stored(); strings.Contains(text, "u1@secret") || strings.Count(text, "u0@secret") != 5 {
		t.Error("the store still has what was put back")
	}
	s.check()
}

func TestWhatIsMissingWithoutAnEventIsDamage(t *testing.T) {
	s := newTestService(t)
	s.people(10, 2)
	if _, err := s.erase(1, "/actor/email"); err != nil {
		t.Fatal(err)
	}
	s.signed()
	// A claim that is missing, though all hashes are right, and a content.
	store := s.store.Store
	r := s.record(2)
	d, err := r.Disclosure()
	if err == nil {
		d, err = d.Withhold("/actor/email")
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	claims, _, _ := bytes.Cut(text, []byte(`,"previous_hash"`))
	reduced := slices.Concat([]byte{3}, claims, []byte(`,"erased_by":[]}`))
	s.forge(t, func(f *intruder) {
		f.exec(`DELETE FROM payloads WHERE log = ? AND idx = 4`, f.log.ID)
		f.exec(`UPDATE payloads SET seed = NULL, payload = ? WHERE log = ? AND idx = 2`, reduced, f.log.ID)
	})
	for _, at := range []uint64{2, 4} {
		if _, err := s.log().Record(t.Context(), at); !errors.Is(err, log.ErrDamaged) {
			t.Errorf("entry %d: got %v, want ErrDamaged", at, err)
		}
	}
	if err := log.Scrub(t.Context(), store, s.log().ID, 10); !errors.Is(err, log.ErrDamaged) {
		t.Errorf("the scrub: %v", err)
	}
	var at []uint64
	for _, p := range s.fsck().Problems {
		at = append(at, p.Index)
	}
	if !slices.Equal(at, []uint64{2, 4}) {
		t.Errorf("fsck finds %v", at)
	}

	// What was decided can't be read any more: nothing is decided then.
	s.setRetention(unarchived)
	s.close()
	s.forge(t, func(f *intruder) { f.exec(`DELETE FROM payloads WHERE log = ? AND idx = 11`, f.log.ID) })
	s.open()
	if _, err := s.log().PlaceHold(t.Context(), operator, "m", "r", nil); !errors.Is(err, log.ErrDamaged) {
		t.Errorf("a decision on what can't be read: %v", err)
	}
}

func TestTheIndexIsRidOfWhatIsGone(t *testing.T) {
	s := newTestService(t)
	s.people(3*index.Width+100, 5)
	s.searched(s.log(), index.Width)
	s.setRetention(unarchived)
	words := func() string {
		var b strings.Builder
		metas, err := s.store.Segments(t.Context(), s.log().ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range metas {
			err := s.store.Blocks(t.Context(), s.log().ID, m.Level, []uint64{m.Number}, []index.Range{index.Whole}, func(_ uint64, key, data []byte) error {
				b.Write(key)
				b.Write(data)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return b.String()
	}
	if !strings.Contains(words(), "1targetx") {
		t.Fatal("the index doesn't have the word")
	}
	erasure, err := s.erase(1, "/targets/*/name")
	if err != nil {
		t.Fatal(err)
	}
	s.until("the index to be clean", func() bool { // the follower does it, unasked
		e, err := s.log().Erasure(t.Context(), erasure.ID)
		if onPostgres {
			return !strings.Contains(words(), "1targetx")
		}
		return err == nil && e.Index
	})
	if text := words(); strings.Contains(text, "1targetx") || !strings.Contains(text, "2targetx") {
		t.Error("the index has what was erased, or not what is left")
	}
	s.clock.Store((31 * day).Microseconds())
	s.append("kept")
	s.signed()
	if err := s.log().Purge(t.Context(), log.ByServer(), []log.Span{{From: 0, To: 3 * index.Width}}, nil); err != nil {
		t.Fatal(err)
	}
	s.until("the index to be clean", func() bool { return !strings.Contains(words(), "2targetx") })
	if _, err := log.CheckIndex(t.Context(), s.store, s.log().Info, nil); err != nil {
		t.Error(err)
	}
}

// What one server decides, another one that shares the store heeds at once where it decides itself, and within seconds where it reads.
func TestServersHeedEachOthersDecisions(t *testing.T) {
	if !onPostgres {
		t.Skip("a SQLite file has one server")
	}
	one := newTestService(t)
	one.people(10, 2)
	two := &testService{t: t, dir: one.dir, url: one.url, seed: testSeed}
	two.open()
	hold, err := one.log().PlaceHold(t.Context(), operator, "m", "r", url.Values{"actor_id": {"u0"}})
	if err != nil {
		t.Fatal(err)
	}
	var held *log.HeldError
	if _, err := two.erase(0, "/actor/email"); !errors.As(err, &held) || !slices.Equal(held.Holds, []string{hold.ID}) {
		t.Errorf("what the other server holds: %v", err)
	}
	if _, err := one.erase(1, "/actor/email"); err != nil {
		t.Fatal(err)
	}
	if r := two.record(1); r.Claims == nil { // it finds the content reduced, and looks why
		t.Errorf("what the other server has erased: %+v", r)
	}
	one.setRetention(unarchived)
	defer one.fail("purge")()
	one.clock.Store((31 * day).Microseconds())
	one.purge()
	two.until("what the other server has purged to be gone", func() bool { return two.record(3).PurgedBy != nil })
	two.check()
}

// Whoever comes first: a purge or an erasure never takes what a hold that was placed before it keeps.
func TestHoldsAndRemovalsRace(t *testing.T) {
	s := newTestService(t)
	ctx := t.Context()
	s.setRetention(unarchived)
	for round := range 12 {
		from := s.log().Sizes().Size
		s.people(6, 2)
		s.clock.Add((31 * day).Microseconds())
		s.append(fmt.Sprint("kept", round))
		s.signed()
		var group sync.WaitGroup
		var hold log.Hold
		group.Go(func() {
			var err error
			if hold, err = s.log().PlaceHold(ctx, operator, "m", "r", url.Values{"actor_id": {"u1"}}); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() {
			err := s.log().Purge(ctx, log.ByServer(), []log.Span{{From: from, To: from + 2}}, nil)
			if err != nil && !errors.Is(err, log.ErrHeld) {
				t.Error(err)
			}
		})
		group.Go(func() {
			if _, err := s.erase(1, "/actor/name"); err != nil && !errors.Is(err, log.ErrHeld) && !errors.Is(err, log.ErrChanged) && !errors.Is(err, log.ErrNothing) {
				t.Error(err)
			}
		})
		group.Wait()
		for i := from; i < from+6; i++ {
			r := s.record(i)
			e, err := r.Shown()
			if err != nil {
				t.Fatal(err)
			}
			purgedAfter := r.PurgedBy != nil && r.PurgedBy.Index > hold.Event.Index && i == from+1
			erasedAfter := slices.ContainsFunc(r.ErasedBy, func(by log.Ref) bool { return by.Index > hold.Event.Index })
			if purgedAfter || erasedAfter {
				t.Fatalf("round %d: entry %d, held by %d, is gone: %+v, %v", round, i, hold.Event.Index, r, e)
			}
		}
		if _, err := s.log().ReleaseHold(ctx, operator, hold.ID, "r"); err != nil {
			t.Fatal(err)
		}
	}
	s.check()
}

// modelled is an entry as it must be.
type modelled struct {
	person int // -1: not of a person
	record log.Record
	proofs [][]byte
	purged bool
	erased map[string]bool
}

// Whatever is appended, held, erased and purged in whatever order, with restarts and failures in between: hashes stay, old proofs verify,
// nothing that is gone is shown, all else is found, and fsck is content.
func TestCustodyKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newTestService(t)
		defer s.close()
		ctx := t.Context()
		s.setRetention(unarchived)
		trust := log.Trust{Keys: []note.Verifier{verifier(t, s.log().Origin)}}
		var model []*modelled
		var holds []log.Hold
		held := map[string]int{} // by hold: the person, -1 for all
		learn := func() {        // what is new in the log
			s.signed()
			for i := uint64(len(model)); i < s.log().Sizes().Size; i++ {
				m := &modelled{person: -1, record: s.record(i), erased: map[string]bool{}}
				e, err := m.record.Shown()
				if err != nil {
					rt.Fatal(err)
				}
				if e.Action() == "user.seen" {
					for _, c := range e.Claims() {
						if c.Pointer == "/metadata/kept" {
							fmt.Sscanf(string(c.Value), `"k%d"`, &m.person)
						}
					}
				}
				proof, err := s.log().Proof(ctx, i)
				if err != nil {
					rt.Fatal(err)
				}
				m.proofs = append(m.proofs, proof)
				model = append(model, m)
			}
		}
		isHeld := func(person int) bool {
			for _, h := range holds {
				if p := held[h.ID]; p == person || p == -1 {
					return true
				}
			}
			return false
		}
		verify := func(proofs bool) {
			records, err := s.log().Records(ctx, 0, uint64(len(model)), 1<<30)
			if err != nil || len(records) != len(model) {
				rt.Fatalf("records: %d, %v", len(records), err)
			}
			var emails, targets [4]int
			for i, m := range model {
				r := &records[i]
				d, err := r.Disclosure()
				if err != nil {
					rt.Fatal(err)
				}
				if entry := d.Entry(); entry.LeafHash() != m.record.Hash || r.Hash != m.record.Hash {
					rt.Fatalf("entry %d has another hash", i)
				}
				if (r.PurgedBy != nil) != m.purged || !m.purged && (r.Claims != nil) != (len(m.erased) > 0) {
					rt.Fatalf("entry %d: %+v, want purged %v, erased %v", i, r, m.purged, m.erased)
				}
				if m.person < 0 && r.Event == nil {
					rt.Fatalf("entry %d, of the log's own, is gone: %+v", i, r)
				}
				text := string(r.AppendJSON(nil, false))
				for pointer, secret := range map[string]string{
					"/actor/email": "u%d@secret.example", "/actor/name": "Name%dx", "/targets/0/name": "%dTargetx", "/metadata/note": "note%dx",
				} {
					if m.person < 0 {
						continue
					}
					want := !m.purged && !m.erased[pointer]
					if got := strings.Contains(text, fmt.Sprintf(secret, m.person)); got != want {
						rt.Fatalf("entry %d shows %s: %v, want %v: %s", i, pointer, got, want, text)
					}
				}
				if m.person >= 0 && !m.purged {
					targets[m.person]++
					if !m.erased["/actor/email"] {
						emails[m.person]++
					}
				}
				for _, proof := range m.proofs {
					if !proofs {
						break
					}
					if v, err := log.VerifyProof(proof, trust); err != nil && !errors.Is(err, log.ErrNotShown) || v.Leaf != m.record.Hash {
						rt.Fatalf("a proof of entry %d: %v", i, err)
					}
				}
			}
			for person := range 4 {
				for filter, want := range map[*log.Filter]int{
					{ActorEmails: []string{fmt.Sprintf("u%d@secret.example", person)}}: emails[person],
					{TargetIDs: []string{fmt.Sprintf("t%d", person)}}:                  targets[person],
				} {
					found, err := s.log().Search(ctx, filter, log.Page{Oldest: true, Limit: 10_000, MaxBytes: 1 << 30})
					if err != nil || len(found.Records) != want || found.More {
						rt.Fatalf("%+v: found %d, %v, want %d", filter, len(found.Records), err, want)
					}
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				s.people(rapid.IntRange(1, 12).Draw(rt, "events"), 4)
				learn()
			},
			"wait": func(rt *rapid.T) {
				s.clock.Add((time.Duration(rapid.IntRange(1, 20).Draw(rt, "days")) * day).Microseconds())
			},
			"hold": func(rt *rapid.T) {
				person := rapid.IntRange(-1, 3).Draw(rt, "person")
				filter := url.Values{}
				if person >= 0 {
					filter.Set("target_id", fmt.Sprint("t", person))
				}
				h, err := s.log().PlaceHold(ctx, operator, "m", "r", filter)
				if err != nil {
					rt.Fatal(err)
				}
				holds, held[h.ID] = append(holds, h), person
				learn()
			},
			"release": func(rt *rapid.T) {
				for _, h := range holds {
					if _, err := s.log().ReleaseHold(ctx, operator, h.ID, "r"); err != nil {
						rt.Fatal(err)
					}
				}
				holds = nil
				learn()
			},
			"erase": func(rt *rapid.T) {
				person := rapid.IntRange(0, 3).Draw(rt, "person")
				pointers := map[string]string{"/actor/email": "/actor/email", "/actor/*": "/actor/name", "/targets/*/name": "/targets/0/name", "/metadata/note": "/metadata/note"}
				pattern := rapid.SampledFrom([]string{"/actor/email", "/targets/*/name", "/metadata/note"}).Draw(rt, "claims")
				if rapid.Bool().Draw(rt, "failing") {
					defer s.fail("reduce")()
				}
				_, err := s.erase(person, pattern)
				left := func(m *modelled) bool { return m.person == person && !m.purged && !m.erased[pointers[pattern]] }
				switch {
				case !slices.ContainsFunc(model, left):
					if !errors.Is(err, log.ErrNothing) {
						rt.Fatalf("nothing to erase: %v", err)
					}
				case isHeld(person):
					if !errors.Is(err, log.ErrHeld) {
						rt.Fatalf("held: %v", err)
					}
				case err != nil:
					rt.Fatal(err)
				default:
					for _, m := range model {
						if left(m) {
							m.erased[pointers[pattern]] = true
						}
					}
				}
				learn()
			},
			"purge": func(rt *rapid.T) {
				if rapid.Bool().Draw(rt, "failing") {
					defer s.fail("purge")()
				}
				now := time.Now().Add(time.Duration(s.clock.Load()) * time.Microsecond).UnixMicro()
				s.purge()
				for _, m := range model {
					if m.person >= 0 && unarchived.Max.Reached(m.record.ReceivedAt, now) && !isHeld(m.person) {
						m.purged = true
					}
				}
				learn()
			},
			"restart": func(*rapid.T) {
				s.close()
				s.open()
				verify(true)
			},
			"prove": func(rt *rapid.T) {
				for i, m := range model {
					proof, err := s.log().Proof(ctx, uint64(i))
					if err != nil {
						rt.Fatal(err)
					}
					m.proofs = append(m.proofs[:1], proof)
				}
			},
			"": func(*rapid.T) { verify(false) },
		})
		learn()
		verify(true)
		if r := s.check(); r.Size != uint64(len(model)) {
			rt.Fatalf("fsck: %+v", r)
		}
	})
}
