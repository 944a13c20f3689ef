package retention_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint/s3fence/s3test"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/archive"
	"github.com/treeline-log/treeline/log/retention"
)

// month keeps events for 30 days, no less and no more.
var month = log.Retention{Min: log.Age{Days: 30}, Max: log.Age{Days: 30}, Archive: true}

func (s *server) pass(d time.Duration) { s.clock.Add(d.Microseconds()) }

const day = 24 * time.Hour

// holds reports which of the secrets of the events [from, to) bytes hold.
func holdsSecrets(data []byte, l *log.Log, from, to uint64) (n int) {
	for i := from; i < to; i++ {
		if bytes.Contains(data, []byte(secret(l, i, "text"))) {
			n++
		}
	}
	return n
}

// What has expired is archived, read back, and only then purged; what remains proves all that was there.
func TestExpiredEventsAreArchivedThenPurged(t *testing.T) {
	t.Parallel()
	s := newServer(t, t.TempDir(), nil)
	l := s.create("acme", month)
	first := s.append(l, 100, "none")
	s.signed(l)
	proof, err := l.Proof(t.Context(), first+7)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.run(l); r.Purged != 0 || r.Blocked != nil || s.names(l) != "" {
		t.Fatalf("before anything has expired: %+v", r)
	}
	s.pass(31 * day)
	later := s.append(l, 10, "none")
	s.signed(l)
	dry, err := s.keeper.RunOnce(t.Context(), l, true)
	if err != nil || dry.Purged != 100 || dry.Expired != later || s.names(l) != "" {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	r := s.run(l)
	if r.Purged != 100 || r.Blocked != nil || len(r.Bundles) != 3 || !r.Bundles[0].Written || r.Expired != later {
		t.Fatalf("got %+v", r)
	}
	if want := "000000000000-000000000040.zip 000000000040-000000000080.zip 000000000080-000000000101.zip"; s.names(l) != want {
		t.Errorf("archived are %s, want %s", s.names(l), want)
	}
	if n := holdsSecrets(s.database(), l, 0, later); n != 0 {
		t.Errorf("%d of the purged events are still in the store's files", n)
	}
	if n := holdsSecrets(s.database(), l, later, later+10); n != 10 {
		t.Errorf("only %d of the other 10 are", n)
	}
	if n := holdsSecrets(raw(t, s.archiveDir()), l, first, later); n != 100 {
		t.Errorf("only %d of the purged 100 are in the archive", n)
	}
	found := s.archived(l)
	if len(found) != 101 || !bytes.Contains(found[first+7].Event, []byte(secret(l, first+7, "name"))) {
		t.Errorf("the archive shows %d events", len(found))
	}
	s.fsck(l)
	rec, err := l.Record(t.Context(), first+7)
	if err != nil || rec.PurgedBy == nil {
		t.Fatalf("got %+v, %v", rec, err)
	}
	if _, err := log.VerifyProof(proof, log.Trust{Keys: verifiers(t, l)}); err != nil {
		t.Errorf("an old proof: %v", err)
	}
	// The purge's own proof makes the entry's VALID.
	trust := log.Trust{Keys: verifiers(t, l), Removals: new(log.Removals)}
	purge, err := l.Proof(t.Context(), rec.PurgedBy.Index)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := l.Proof(t.Context(), first+7)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := log.VerifyProof(gone, trust); !errors.Is(err, log.ErrNotShown) {
		t.Errorf("without the purge's proof: got %+v, %v", v, err)
	}
	if _, err := trust.Removals.Add(purge, trust); err != nil {
		t.Fatal(err)
	}
	if v, err := log.VerifyProof(gone, trust); err != nil || *v.PurgedBy != *rec.PurgedBy {
		t.Errorf("with the purge's proof: got %+v, %v", v, err)
	}
	// Restored events are as they were exported.
	var restored bytes.Buffer
	n, err := archive.Restore(t.Context(), s.archive, archive.Query{
		Origin: l.Origin, Trust: trust, From: first, To: first + 50, Filter: &log.Filter{ActorIDs: []string{"u1"}},
	}, &restored)
	if err != nil || n != 17 || bytes.Count(restored.Bytes(), []byte("\n")) != 17 || !bytes.Contains(restored.Bytes(), []byte(`"id":"acme-2"`)) {
		t.Errorf("restored %d: %v\n%s", n, err, &restored)
	}
	if r := s.run(l); r.Purged != 0 || r.Blocked != nil || len(r.Bundles) != 0 {
		t.Errorf("once more: %+v", r)
	}
}

// Whatever is wrong with the archive, nothing is purged that isn't safely in it, and an operator is told.
func TestNothingIsPurgedUnarchived(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := &outage{Archive: openArchive(t, "dir:"+dir+"/archive")}
	s := newServer(t, dir, o)
	l := s.create("acme", month)
	first := s.append(l, 30, "none")
	s.signed(l)
	s.pass(31 * day)
	blocked := func(what, reason string) {
		t.Helper()
		r, err := s.keeper.RunOnce(t.Context(), l, false)
		if err != nil || r.Purged != 0 || r.Blocked == nil || r.Blocked.Reason != reason {
			t.Errorf("%s: got %+v, %v, want %s", what, r, err, reason)
		}
		if n := holdsSecrets(s.database(), l, first, first+30); n != 30 || len(l.Purges()) != 0 {
			t.Errorf("%s: only %d of 30 events are left, purged %v", what, n, l.Purges())
		}
		if n := gauge(t, s, "treeline_retention_blocked", reason); n != 1 {
			t.Errorf("%s: the metric says %v", what, n)
		}
	}
	o.down.Store(true)
	blocked("an archive that is down", retention.BlockedUnreachable)
	o.down.Store(false)
	o.corrupt.Store(true)
	blocked("an archive that reads back something else", retention.BlockedUnverified)
	o.corrupt.Store(false)
	s.pass(-62 * day)
	if r, err := s.keeper.RunOnce(t.Context(), l, false); err != nil || r.Purged != 0 {
		t.Errorf("a clock that was put back: got %+v, %v", r, err)
	}
	s.pass(62 * day)
	if !strings.Contains(s.logs.String(), "RETENTION BLOCKED") {
		t.Error("nobody is told")
	}
	if r := s.run(l); r.Purged != 30 || r.Blocked != nil {
		t.Errorf("at last: %+v", r)
	}
	if n := gauge(t, s, "treeline_retention_blocked", retention.BlockedUnverified); n != 0 {
		t.Errorf("the metric still says %v", n)
	}
	if n := holdsSecrets(s.database(), l, first, first+30); n != 0 {
		t.Errorf("%d of 30 events are left", n)
	}
	s.archived(l)
}

func gauge(t *testing.T, s *server, name, reason string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == reason {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// What holds keep stays, and is purged after its release because of the bundle that has had it all along. If that was lost or changed it
// stays.
func TestHeldEventsStay(t *testing.T) {
	t.Parallel()
	s := newServer(t, t.TempDir(), nil)
	l := s.create("acme", month)
	first := s.append(l, 20, "none")
	held := s.append(l, 5, "case7")
	s.append(l, 20, "none")
	hold, err := l.PlaceHold(t.Context(), log.ByServer(), "a lawsuit", "counsel asks for it", url.Values{"metadata.dossier": {"case7"}})
	if err != nil {
		t.Fatal(err)
	}
	s.signed(l)
	s.pass(31 * day)
	if r := s.run(l); r.Purged != 40 || r.Held != 5 || r.Blocked != nil {
		t.Fatalf("got %+v", r)
	}
	if n := holdsSecrets(s.database(), l, first, first+45); n != 5 || holdsSecrets(s.database(), l, held, held+5) != 5 {
		t.Errorf("%d events are left", n)
	}
	s.fsck(l)
	names := s.names(l)
	if _, err := l.ReleaseHold(t.Context(), log.ByServer(), hold.ID, "it is settled"); err != nil {
		t.Fatal(err)
	}
	s.signed(l)
	// Its bundle is lost, or another one has its place.
	name := l.Origin + "/" + strings.Fields(names)[0]
	path := s.archiveDir() + "/" + name
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for reason, spoil := range map[string]func() error{
		retention.BlockedMissing:    func() error { return os.Remove(path) },
		retention.BlockedUnverified: func() error { return os.WriteFile(path, content[:len(content)-1], 0o600) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if r, err := s.keeper.RunOnce(t.Context(), l, false); err != nil || r.Purged != 0 || r.Blocked == nil || r.Blocked.Reason != reason {
			t.Errorf("%s: got %+v, %v", reason, r, err)
		}
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.run(l); r.Purged != 5 || r.Held != 0 || r.Blocked != nil || s.names(l) != names {
		t.Errorf("released: got %+v, archived %s", r, s.names(l))
	}
	if n := holdsSecrets(s.database(), l, first, first+45); n != 0 {
		t.Errorf("%d events are left", n)
	}
	s.fsck(l)
}

// erase erases what can be erased of the events of an actor.
func (s *server) erase(l *log.Log, actor string, claims ...string) log.Erasure {
	s.t.Helper()
	plan, err := l.PlanErasure(s.t.Context(), log.ErasureRequest{
		Subject: url.Values{"actor_id": {actor}}, Claims: claims, LegalBasis: "GDPR article 17", Reference: "ticket 1",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	e, err := l.Erase(s.t.Context(), log.ByServer(), plan)
	if err != nil {
		s.t.Fatal(err)
	}
	s.signed(l)
	return e
}

// What is erased is gone from the store's files and from the archive, whose manifests stay; everything still verifies.
func TestErasureReachesTheArchive(t *testing.T) {
	t.Parallel()
	s := newServer(t, t.TempDir(), nil)
	policy := month
	policy.EraseEarly = true
	l := s.create("acme", policy)
	first := s.append(l, 60, "none")
	s.signed(l)
	s.pass(31 * day)
	before := s.run(l)
	second := s.append(l, 12, "none")
	s.signed(l)
	// Held events aside, what was purged can't be found by a search any more; so erasures come before. This one concerns both halves.
	e := s.erase(l, "u1", "/actor/email", "/actor/name", "/metadata/text")
	r := s.run(l)
	done, err := l.Erasure(t.Context(), e.ID)
	if err != nil || done.Outcome == nil || len(r.Erasures) != 1 {
		t.Fatalf("got %+v, %+v, %v", r, done, err)
	}
	data := s.database()
	for i := second; i < second+12; i++ {
		erased := (i-second)%3 == 1
		for _, what := range []string{"name", "text"} {
			if bytes.Contains(data, []byte(secret(l, i, what))) == erased {
				t.Errorf("event %d: erased is %v", i, erased)
			}
		}
	}
	s.fsck(l)
	s.pass(31 * day)
	after := s.run(l)
	if after.Purged != 12 || after.Blocked != nil {
		t.Errorf("got %+v", after)
	}
	bytesOfArchive := raw(t, s.archiveDir())
	for i := second; i < second+12; i++ {
		if erased := (i-second)%3 == 1; bytes.Contains(bytesOfArchive, []byte(secret(l, i, "name"))) == erased {
			t.Errorf("event %d in the archive: erased is %v", i, erased)
		}
	}
	if len(s.archived(l)) == 0 || len(before.Bundles) == 0 || holdsSecrets(bytesOfArchive, l, first, first+60) != 60 {
		t.Error("the archive has lost what wasn't erased")
	}
	s.fsck(l)
}

// A copy in the archive of what is still in the log, since a hold keeps it or since it was archived by the time of a crash, is written anew.
func TestErasureInAnArchivedCopy(t *testing.T) {
	t.Parallel()
	s := newServer(t, t.TempDir(), nil)
	l := s.create("acme", month)
	first := s.append(l, 30, "none")
	hold, err := l.PlaceHold(t.Context(), log.ByServer(), "a lawsuit", "counsel asks for it", url.Values{"actor_id": {"u1"}})
	if err != nil {
		t.Fatal(err)
	}
	s.signed(l)
	s.pass(31 * day)
	r := s.run(l)
	if r.Held != 10 || r.Purged != 20 {
		t.Fatalf("got %+v", r)
	}
	if _, err := l.ReleaseHold(t.Context(), log.ByServer(), hold.ID, "it is settled"); err != nil {
		t.Fatal(err)
	}
	e := s.erase(l, "u1", "/actor/name")
	again := s.run(l)
	if again.Purged != 10 || again.Blocked != nil || again.Bundles[0].Manifest != r.Bundles[0].Manifest {
		t.Errorf("got %+v", again)
	}
	data := raw(t, s.archiveDir())
	for i := first; i < first+30; i++ {
		if erased := (i-first)%3 == 1; bytes.Contains(data, []byte(secret(l, i, "name"))) == erased || !bytes.Contains(data, []byte(secret(l, i, "text"))) {
			t.Errorf("event %d in the archive: erased is %v", i, erased)
		}
	}
	done, err := l.Erasure(t.Context(), e.ID)
	if err != nil || !bytes.Contains(done.Outcome, []byte(again.Bundles[0].Name)) {
		t.Errorf("got %s, %v", done.Outcome, err)
	}
	s.archived(l)
	s.fsck(l)
}

// What only the archive has any more, since it was purged, is erased there as well; holds forbid that, too.
func TestErasureOfWhatWasPurged(t *testing.T) {
	t.Parallel()
	s := newServer(t, t.TempDir(), nil)
	l := s.create("acme", month)
	first := s.append(l, 30, "none")
	s.signed(l)
	s.pass(31 * day)
	before := s.run(l)
	if before.Purged != 30 {
		t.Fatalf("got %+v", before)
	}
	hold, err := l.PlaceHold(t.Context(), log.ByServer(), "a lawsuit", "counsel asks for it", url.Values{"actor_id": {"u1"}})
	if err != nil {
		t.Fatal(err)
	}
	request := log.ErasureRequest{Subject: url.Values{"actor_id": {"u1"}}, Claims: []string{"/actor/name"}, LegalBasis: "GDPR article 17"}
	plan, unsearched, err := s.keeper.PlanErasure(t.Context(), l, request)
	if err != nil || unsearched != nil || plan.Matching != 10 || plan.Purged != 10 || plan.Events != 10 || len(plan.First) != 10 || plan.First[0] != first+1 {
		t.Fatalf("got %+v, %v, %v", plan, unsearched, err)
	}
	if _, err := l.Erase(t.Context(), log.ByServer(), plan); !errors.Is(err, log.ErrHeld) {
		t.Errorf("held: got %v", err)
	}
	if _, err := l.ReleaseHold(t.Context(), log.ByServer(), hold.ID, "it is settled"); err != nil {
		t.Fatal(err)
	}
	if plan, _, err = s.keeper.PlanErasure(t.Context(), l, request); err != nil {
		t.Fatal(err)
	}
	e, err := l.Erase(t.Context(), log.ByServer(), plan)
	if err != nil {
		t.Fatal(err)
	}
	s.signed(l)
	s.run(l)
	data := raw(t, s.archiveDir())
	for i := first; i < first+30; i++ {
		if erased := (i-first)%3 == 1; bytes.Contains(data, []byte(secret(l, i, "name"))) == erased || !bytes.Contains(data, []byte(secret(l, i, "text"))) {
			t.Errorf("event %d in the archive: erased is %v", i, erased)
		}
	}
	if done, err := l.Erasure(t.Context(), e.ID); err != nil || !bytes.Contains(done.Outcome, []byte(before.Bundles[0].Name)) {
		t.Errorf("got %s, %v", done.Outcome, err)
	}
	if len(s.archived(l)) != 31 {
		t.Error("the archive has lost what wasn't erased")
	}
	if rec, err := l.Record(t.Context(), first+1); err != nil || rec.PurgedBy == nil || rec.Claims != nil {
		t.Errorf("got %+v, %v", rec, err)
	}
	s.fsck(l)
	// With another archive nobody knows what the old one has of a subject: that is told, and recorded.
	s.archive = openArchive(t, "dir:"+t.TempDir())
	s.close()
	s.open()
	l = s.Log("acme")
	s.append(l, 3, "none")
	s.signed(l)
	s.pass(31 * day)
	request.Subject = url.Values{"actor_id": {"u2"}}
	plan, unsearched, err = s.keeper.PlanErasure(t.Context(), l, request)
	if err != nil || !slices.Equal(unsearched, []string{before.Bundles[0].Name}) || plan.Events != 1 {
		t.Fatalf("got %+v, %v, %v", plan, unsearched, err)
	}
	if e, err = l.Erase(t.Context(), log.ByServer(), plan); err != nil {
		t.Fatal(err)
	}
	s.signed(l)
	if _, err := s.keeper.RunOnce(t.Context(), l, false); err != nil {
		t.Fatal(err)
	}
	unreachable := `"unreachable":[{"bundle":"` + before.Bundles[0].Name + `"}]`
	if done, err := l.Erasure(t.Context(), e.ID); err != nil || !bytes.Contains(done.Outcome, []byte(unreachable)) {
		t.Errorf("got %s, %v", done.Outcome, err)
	}
}

// How far a bundle goes is decided once, though more has expired by the time that it is written.
func TestABundleHasOneName(t *testing.T) {
	dir := t.TempDir()
	o := &outage{Archive: openArchive(t, "dir:"+dir+"/archive")}
	s := newServer(t, dir, o)
	l := s.create("acme", month)
	s.append(l, 10, "none")
	s.signed(l)
	s.pass(31 * day)
	first := l.Sizes().Size
	retention.SetStep(func(step string) { o.down.Store(o.down.Load() || step == "named") })
	r, err := s.keeper.RunOnce(t.Context(), l, false)
	retention.SetStep(nil)
	if err != nil || r.Blocked == nil || r.Purged != 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
	o.down.Store(false)
	s.append(l, 5, "none")
	s.signed(l)
	s.pass(31 * day)
	if r := s.run(l); r.Purged != 15 || len(r.Bundles) != 2 || r.Bundles[0].To != first {
		t.Errorf("got %+v, want a bundle up to %d and another one", r, first)
	}
}

// A server without an archive purges nothing of a log whose policy asks for one, and says so.
func TestNoArchiveNoPurge(t *testing.T) {
	t.Parallel()
	s := newServer(t, t.TempDir(), nil)
	s.archive = nil
	s.close()
	s.open()
	l := s.create("acme", month)
	first := s.append(l, 30, "none")
	s.signed(l)
	s.pass(31 * day)
	for _, dry := range []bool{true, false} {
		r, err := s.keeper.RunOnce(t.Context(), l, dry)
		if err != nil || r.Blocked == nil || r.Blocked.Reason != retention.BlockedNoArchive || len(l.Purges()) > 0 {
			t.Errorf("dry run %v: got %+v, %v", dry, r, err)
		}
	}
	if n := holdsSecrets(s.database(), l, first, first+30); n != 30 {
		t.Errorf("only %d of 30 events are left", n)
	}
}

// The same in a bucket with object lock, where the server is killed in mid-upload, and an older version can't be removed.
func TestS3ArchiveWithObjectLock(t *testing.T) {
	s3 := s3test.StartWithVersions(t)
	a := openArchive(t, "s3://"+s3test.LockingBucket+"/x?endpoint=http://"+s3.Addr()+"&lock=compliance&lock_for=30d")
	s := newServer(t, t.TempDir(), a)
	l := s.create("acme", month)
	first := s.append(l, 30, "none")
	hold, err := l.PlaceHold(t.Context(), log.ByServer(), "a lawsuit", "counsel asks for it", url.Values{"actor_id": {"u1"}})
	if err != nil {
		t.Fatal(err)
	}
	s.signed(l)
	s.pass(31 * day)
	retention.SetStep(func(step string) {
		if step == "named" {
			s3.Kill()
		}
	})
	r, err := s.keeper.RunOnce(t.Context(), l, false)
	retention.SetStep(nil)
	if err != nil || r.Blocked == nil || r.Blocked.Reason != retention.BlockedUnreachable || len(l.Purges()) > 0 {
		t.Errorf("while the server is down: got %+v, %v", r, err)
	}
	s3.Run(t)
	if r := s.run(l); r.Purged != 20 || r.Blocked != nil {
		t.Fatalf("got %+v", r)
	}
	if _, err := l.ReleaseHold(t.Context(), log.ByServer(), hold.ID, "it is settled"); err != nil {
		t.Fatal(err)
	}
	e := s.erase(l, "u1", "/actor/name")
	s.run(l)
	done, err := l.Erasure(t.Context(), e.ID)
	if err != nil || !bytes.Contains(done.Outcome, []byte(`"unreachable":[{"bundle":"`)) || !bytes.Contains(done.Outcome, []byte(`"until":"`)) {
		t.Errorf("got %s, %v", done.Outcome, err)
	}
	if found := s.archived(l); len(found) != 32 || found[first+1].Claims == nil {
		t.Errorf("readers of the archive get %d events: %+v", len(found), found[first+1])
	}
	// What is read back isn't what was written.
	s.append(l, 9, "none")
	s.signed(l)
	s.pass(31 * day)
	retention.SetStep(func(step string) {
		if step == "archived" {
			names, _ := a.List(t.Context(), l.Origin)
			s3.PutIn(t, s3test.LockingBucket, "x/"+names[len(names)-1], []byte("PK\x03\x04 something else"))
		}
	})
	purged := fmt.Sprint(l.Purges())
	r, err = s.keeper.RunOnce(t.Context(), l, false)
	retention.SetStep(nil)
	if err != nil || r.Blocked == nil || r.Blocked.Reason != retention.BlockedUnverified || fmt.Sprint(l.Purges()) != purged {
		t.Errorf("what was read back is something else: got %+v, %v", r, err)
	}
	if r := s.run(l); r.Purged != 9 || r.Blocked != nil || !r.Bundles[0].Written {
		t.Errorf("written again: got %+v", r)
	}
	s.archived(l)
	s.fsck(l)
}
