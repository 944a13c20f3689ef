package log_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/log"
)

// told is an event of the system log.
type told struct {
	ID         string
	Action     string
	OccurredAt string `json:"occurred_at"`
	Actor      struct{ ID, Type, Name string }
	Credential string
	Targets    []log.Target
	Context    struct {
		IP        string
		UserAgent string `json:"user_agent"`
		RequestID string `json:"request_id"`
	}
	Outcome  string
	Changes  []log.Change
	Metadata map[string]any
}

// newSystem opens a service that keeps a system log, with a log named "default".
func newSystem(t testing.TB) *testService {
	t.Helper()
	s := &testService{t: t, dir: t.TempDir(), seed: testSeed, system: true}
	if onPostgres {
		s.url = migrated(t)
	}
	s.open()
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// told returns what the newest system log tells, from its from-th event on.
func (s *testService) told(from uint64) (all []told) {
	s.t.Helper()
	l := s.Systems()[0]
	if err := l.Refresh(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	records, err := l.Records(s.t.Context(), from, l.Sizes().Size, 64<<20)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range records {
		var e told
		if err := json.Unmarshal(r.Event, &e); err != nil {
			s.t.Fatalf("%s: %v", r.Event, err)
		}
		all = append(all, e)
	}
	return all
}

func (s *testService) toldSize() uint64 { return uint64(len(s.told(0))) }

// byTest is who does things in tests.
var byTest = log.By{ID: "testkey", Type: "api_key", Name: "a \x00test\xff's", IP: "192.0.2.7", UserAgent: "curl\x00", RequestID: "r1"}

// byOperator is who accepts claims of witnesses in tests.
var byOperator = log.ByCommand("treeline serve --accept-witness-claim", "root")

// acts are all acts there are, each with what is told of it, and whether it was done. They can be done once, in this order.
func (s *testService) acts() []act {
	ctx := s.t.Context()
	return []act{
		{"treeline.log.created", func() error {
			_, err := s.CreateLog(ctx, byTest, "made", log.Settings{Title: "T", Public: true})
			return err
		}, func() bool { return s.hasLog("made") }},
		{"treeline.key.created", func() error {
			_, _, err := s.CreateKey(ctx, byTest, log.Key{Role: log.RoleReader, Log: s.log().ID, Name: "reader", Networks: "192.0.2.0/24"})
			return err
		}, func() bool { return s.keyNamed("reader").ID != "" }},
		{"treeline.key.rotated", func() error {
			_, _, err := s.RotateKey(ctx, byTest, s.keyNamed("reader").ID, time.Hour)
			return err
		}, func() bool { return s.keyNamed("reader").ReplacedBy != "" }},
		{"treeline.key.revoked", func() error {
			_, err := s.RevokeKey(ctx, byTest, s.keyNamed("reader").ID)
			return err
		}, func() bool { return s.keyNamed("reader").RevokedAt != 0 }},
		{"treeline.log.updated", func() error {
			_, err := s.log().Configure(ctx, byTest, func(c *log.Settings) error { c.Title = "New"; return nil })
			return err
		}, func() bool { return s.info("default").Settings.Title == "New" }},
		{"treeline.log.frozen", func() error { return s.log().Freeze(ctx, byTest) }, func() bool { return s.info("default").Frozen }},
		{"treeline.log.succeeded", func() error {
			_, _, err := s.Succeed(ctx, byTest, "default", "next", "why")
			return err
		}, func() bool { return s.hasLog("next") }},
	}
}

type act struct {
	action string
	do     func() error
	done   func() bool
}

func (s *testService) info(name string) log.Info {
	s.t.Helper()
	infos, err := s.store.Logs(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, info := range infos {
		if info.Name == name {
			return info
		}
	}
	return log.Info{}
}

func (s *testService) hasLog(name string) bool { return s.info(name).Name == name }

// keyNamed returns the oldest key of that name.
func (s *testService) keyNamed(name string) log.Key {
	s.t.Helper()
	keys, err := s.store.Keys(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, k := range keys {
		if k.Name == name {
			return k
		}
	}
	return log.Key{}
}

// failAppends makes appends fail at a step.
func (s *testService) failAppends(step string) {
	fail := func(at string) bool { return at == step }
	s.store.fault.Store(&fail)
}

func TestEachActIsToldOnceAndWhole(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, a := range s.acts() {
		before := s.toldSize()
		if err := a.do(); err != nil {
			t.Fatalf("%s: %v", a.action, err)
		}
		all := s.told(before)
		if len(all) != 1 || all[0].Action != a.action || !a.done() {
			t.Fatalf("%s: got %+v", a.action, all)
		}
		e := all[0]
		if e.Actor.ID != "testkey" || e.Actor.Type != "api_key" || e.Actor.Name != "a test\uFFFD's" || e.Credential != "testkey" ||
			e.Context.IP != "192.0.2.7" || e.Context.UserAgent != "curl" || e.Context.RequestID != "r1" || e.Outcome != "" {
			t.Errorf("%s: by whom: got %+v", a.action, e)
		}
		name := map[string]string{"treeline.log.created": "made"}[a.action]
		if name == "" {
			name = "default"
		}
		if want := s.Log(name).Target(); !slices.Contains(e.Targets, want) || want.Type != "log" || len(want.ID) != 64 {
			t.Errorf("%s: targets: got %+v, want %+v among them", a.action, e.Targets, want)
		}
	}
	all := s.told(0)
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]string{
		"a log's settings":       `"changes":[{"field":"title","before":"","after":"T"},{"field":"public","before":false,"after":true}]`,
		"a change of settings":   `"changes":[{"field":"title","before":"","after":"New"}]`,
		"what a key may do":      `"networks":["192.0.2.0/24"],"role":"reader"`,
		"why a log was followed": `"reason":"why"`,
	} {
		if !strings.Contains(strings.ToLower(string(text)), strings.ToLower(want)) {
			t.Errorf("%s: want %s in %s", what, want, text)
		}
	}
	s.checkSystem()
}

// checkSystem re-verifies the system log, under the key that the seed derives.
func (s *testService) checkSystem() {
	s.t.Helper()
	l := s.Systems()[0]
	if err := l.Wait(s.t.Context(), l.Sizes().Size, log.StateSigned); err != nil {
		s.t.Fatal(err)
	}
	r, err := log.Fsck(s.t.Context(), s.store, l.Info, log.FsckOptions{Verifiers: []note.Verifier{verifier(s.t, l.Origin)}, Fence: s.fence()})
	if err != nil || len(r.Problems) > 0 {
		s.t.Errorf("fsck of the system log: got %+v, %v", r, err)
	}
}

// What isn't recorded isn't done, and the error says so.
func TestAnActThatCantBeRecordedIsNotDone(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, a := range s.acts() {
		before := s.toldSize()
		s.failAppends("before commit")
		if err := a.do(); !errors.Is(err, log.ErrUnrecorded) || a.done() {
			t.Fatalf("%s: got %v, done: %t", a.action, err, a.done())
		}
		s.store.fault.Store(nil)
		if size := s.toldSize(); size != before {
			t.Fatalf("%s: %d events are told of it", a.action, size-before)
		}
		if err := a.do(); err != nil {
			t.Fatalf("%s: %v", a.action, err)
		}
	}
}

// A record whose outcome is unknown is made again under the same id, so the act is done and told of once.
func TestAnActIsToldOnceIfItIsUnknownWhetherItWas(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, a := range s.acts() {
		before := s.toldSize()
		var failed atomic.Bool
		fail := func(at string) bool { return at == "after commit" && failed.CompareAndSwap(false, true) }
		s.store.fault.Store(&fail)
		if err := a.do(); err != nil || !a.done() {
			t.Fatalf("%s: got %v, done: %t", a.action, err, a.done())
		}
		s.store.fault.Store(nil)
		if all := s.told(before); len(all) != 1 || !failed.Load() {
			t.Errorf("%s: told: got %+v, want it once", a.action, all)
		}
	}
}

// failingActs is a store whose acts fail, as they do on a disk that is full or when the process is killed before them.
type failingActs struct {
	log.Store
	err atomic.Pointer[error]
}

func (s *failingActs) fails(do func() error) error {
	if err := s.err.Load(); err != nil {
		return *err
	}
	return do()
}

func (s *failingActs) CreateLog(ctx context.Context, info *log.Info) error {
	return s.fails(func() error { return s.Store.CreateLog(ctx, info) })
}

func (s *failingActs) CreateKey(ctx context.Context, k log.Key) error {
	return s.fails(func() error { return s.Store.CreateKey(ctx, k) })
}

func (s *failingActs) ChangeKey(ctx context.Context, id string, change func(*log.Key) (*log.Key, error)) error {
	return s.fails(func() error { return s.Store.ChangeKey(ctx, id, change) })
}

func (s *failingActs) Configure(ctx context.Context, id log.ID, change func(*log.Settings) error) (c log.Settings, err error) {
	err = s.fails(func() (err error) { c, err = s.Store.Configure(ctx, id, change); return err })
	return c, err
}

func (s *failingActs) Freeze(ctx context.Context, id log.ID) error {
	return s.fails(func() error { return s.Store.Freeze(ctx, id) })
}

// An act that fails after it was recorded has a second event that says so. That it did nothing is said only where it is known.
func TestAnActThatFailsIsToldOf(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	acts := &failingActs{Store: s.store.Store}
	s.store.Store = acts
	for _, a := range s.acts() {
		for failure, outcome := range map[error]string{errInjected: "unknown", log.ErrExists: "failure"} {
			before := s.toldSize()
			acts.err.Store(&failure)
			if err := a.do(); !errors.Is(err, failure) && !errors.Is(err, log.ErrExists) {
				t.Fatalf("%s: got %v, want %v", a.action, err, failure)
			}
			acts.err.Store(nil)
			all := s.told(before)
			if len(all) != 2 || all[0].Action != a.action || all[1].Action != a.action || all[0].Outcome != "" || all[1].Outcome != outcome ||
				all[1].Metadata["act"] != all[0].ID || all[1].Actor != all[0].Actor || len(all[1].Targets) != len(all[0].Targets) {
				t.Errorf("%s, %v: told: got %+v", a.action, failure, all)
			}
		}
		if err := a.do(); err != nil {
			t.Fatalf("%s: %v", a.action, err)
		}
	}
}

// A crash between the record and the act leaves the record, and not the act: never the other way round.
func TestACrashBeforeAnActLeavesItsRecord(t *testing.T) {
	t.Parallel()
	for i := range (&testService{t: t}).acts() {
		s := newSystem(t)
		acts := &failingActs{Store: s.store.Store}
		s.store.Store = acts
		a := s.acts()[i]
		for _, before := range s.acts()[:i] {
			if err := before.do(); err != nil {
				t.Fatalf("%s: %v", before.action, err)
			}
		}
		before := s.toldSize()
		// From the act on nothing reaches the store any more.
		dead := errors.New("killed")
		var records atomic.Int64
		fail := func(at string) bool { return at == "append" && records.Add(1) > 1 }
		s.store.fault.Store(&fail)
		acts.err.Store(&dead)
		if err := a.do(); !errors.Is(err, dead) {
			t.Fatalf("%s: got %v", a.action, err)
		}
		s.close()
		s.open()
		if all := s.told(before); len(all) != 1 || all[0].Action != a.action || a.done() {
			t.Errorf("%s: told: got %+v, done: %t", a.action, all, a.done())
		}
		s.close()
	}
}

func TestNobodyButTheServerAppendsToTheSystemLog(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	system := s.Log(log.SystemName)
	if !system.IsSystem() || system.Public() || slices.Contains(s.Tenants(), system) {
		t.Errorf("the system log: got %+v, tenants %v", system.Info, s.Tenants())
	}
	before := s.toldSize()
	for what, err := range map[string]error{
		"appending": func() error { _, err := system.Append(t.Context(), []*log.Event{event(t, "x", "y")}); return err }(),
		"setting it up": func() error {
			_, err := system.Configure(t.Context(), byTest, func(*log.Settings) error { return nil })
			return err
		}(),
		"ending it": system.Freeze(t.Context(), byTest),
		"following it with a tenant's": func() error {
			_, _, err := s.Succeed(t.Context(), byTest, log.SystemName, "other", "")
			return err
		}(),
	} {
		if !errors.Is(err, log.ErrSystem) {
			t.Errorf("%s: got %v, want ErrSystem", what, err)
		}
	}
	for _, name := range []string{log.SystemName, "system-2", "system-17"} {
		if err := log.CheckName(name); !errors.Is(err, log.ErrName) {
			t.Errorf("name %s: got %v, want ErrName", name, err)
		}
	}
	for _, name := range []string{"systems", "system-", "system-1", "system-02", "system-a", "my-system"} {
		if err := log.CheckName(name); err != nil {
			t.Errorf("name %s: got %v", name, err)
		}
	}
	if size := s.toldSize(); size != before {
		t.Errorf("%d events are told of it", size-before)
	}
}

// A system log whose store lost what was signed is followed by another one, so that acts go on.
func TestTheSystemLogIsFollowed(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	old := s.Log(log.SystemName)
	next, last, err := s.Succeed(t.Context(), byTest, log.SystemName, "system-2", "lost")
	if err != nil || next.Name != "system-2" || !old.Frozen() || last.Origin != old.Origin {
		t.Fatalf("got %v, %v, %v", next, last, err)
	}
	if _, err := s.CreateLog(t.Context(), byTest, "later", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	all := s.told(0)
	var actions []string
	for _, e := range all {
		actions = append(actions, e.Action)
	}
	if want := []string{"treeline.log.started", "treeline.log.succeeded", "treeline.log.created"}; !slices.Equal(actions, want) {
		t.Errorf("told: got %v, want %v", actions, want)
	}
	s.close()
	s.open()
	if systems := s.Systems(); len(systems) != 2 || systems[0].Name != "system-2" || systems[1].Name != log.SystemName {
		t.Errorf("after a restart: got %v", systems)
	}
	s.checkSystem()
}

// Reads are told of by key, log, address and minute, however many they are.
func TestReadsAreCounted(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	other, err := s.CreateLog(t.Context(), byTest, "other", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	s.clock.Store(time.Until(time.Now().Truncate(time.Minute).Add(90 * time.Second)).Microseconds()) // amid a minute
	minute := time.Now().Add(time.Duration(s.clock.Load()) * time.Microsecond).UTC().Truncate(time.Minute)
	reader := log.ByKey(log.Key{ID: "reader", Name: "R"})
	reader.IP = "192.0.2.1"
	elsewhere := reader
	elsewhere.IP = "192.0.2.2"
	for range 3 {
		s.CountRead(reader, s.log(), log.ReadList)
		s.CountRead(elsewhere, s.log(), log.ReadList)
	}
	s.CountRead(reader, s.log(), log.ReadProof)
	s.CountRead(reader, other, log.ReadFeed)
	s.CountRead(reader, nil, log.ReadKeys)
	before := s.toldSize()
	if err := s.RecordReads(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.RecordReads(t.Context()); err != nil { // nothing is left
		t.Fatal(err)
	}
	var got []string
	for _, e := range s.told(before) {
		target := "none"
		if len(e.Targets) > 0 {
			target = e.Targets[0].Name
		}
		if at, err := time.Parse(time.RFC3339, e.OccurredAt); err != nil || !at.Equal(minute) || e.Credential != "reader" || e.Actor.Name != "R" {
			t.Errorf("got %+v, want it in minute %v", e, minute)
		}
		got = append(got, fmt.Sprint(e.Action, " ", target, " ", e.Context.IP, " ", e.Metadata))
	}
	slices.Sort(got)
	want := []string{
		"treeline.log.read default 192.0.2.1 map[reads:map[list:3 proof:1]]",
		"treeline.log.read default 192.0.2.2 map[reads:map[list:3]]",
		"treeline.log.read other 192.0.2.1 map[reads:map[feed:1]]",
		"treeline.server.read none 192.0.2.1 map[reads:map[keys:1]]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A key that comes from many addresses fills neither the memory nor the system log, and none of its reads is lost.
func TestReadsFromManyAddressesAreBounded(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	before := s.toldSize()
	const n = 100
	for i := range n {
		by := log.ByKey(log.Key{ID: "reader"})
		by.IP = fmt.Sprint("192.0.2.", i)
		s.CountRead(by, s.log(), log.ReadList)
	}
	if err := s.RecordReads(t.Context()); err != nil {
		t.Fatal(err)
	}
	var reads float64
	all := s.told(before)
	for _, e := range all {
		reads += e.Metadata["reads"].(map[string]any)["list"].(float64)
	}
	if most := 2 * (log.MaxAddresses + 1); len(all) > most || reads != n { // twice, if a minute ended meanwhile
		t.Errorf("got %d events of %v reads, want at most %d of %d", len(all), reads, most, n)
	}
}

// What can't be appended is kept, and told once when it can be; and what was counted is told when the service is closed.
func TestReadsAreToldAfterAFault(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"before commit", "after commit"} {
		s := newSystem(t)
		before := s.toldSize()
		s.failAppends(step)
		s.CountRead(byTest, s.log(), log.ReadList)
		if err := s.RecordReads(t.Context()); err == nil {
			t.Fatalf("%s: no error", step)
		}
		s.CountRead(byTest, s.log(), log.ReadFeed)
		s.store.fault.Store(nil)
		s.close()
		s.open()
		all := s.told(before)
		if len(all) != 2 || fmt.Sprint(all[0].Metadata, all[1].Metadata) != "map[reads:map[list:1]] map[reads:map[feed:1]]" {
			t.Errorf("%s: told: got %+v", step, all)
		}
		s.close()
	}
}

// A clock that is set back doesn't make reads be forgotten that were counted before.
func TestReadsAreToldAfterTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	before := s.toldSize()
	other := log.ByKey(log.Key{ID: "reader"})
	for range 5 {
		s.clock.Store(time.Hour.Microseconds())
		s.CountRead(byTest, s.log(), log.ReadList)
		s.clock.Store(0)
		s.CountRead(other, s.log(), log.ReadList)
		if err := s.RecordReads(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got := len(s.told(before)); got != 10 {
		t.Errorf("%d events tell of it, want 10", got)
	}
}

// Past what is kept in memory reads are lost, which a metric counts.
func TestReadsThatAreTooManyAreCountedAsLost(t *testing.T) {
	defer log.SetMaxTallies(10, 20)()
	s := newSystem(t)
	before := s.toldSize()
	s.failAppends("before commit")
	for i := range 45 {
		s.CountRead(log.ByKey(log.Key{ID: fmt.Sprint("key", i)}), s.log(), log.ReadList)
	}
	s.store.fault.Store(nil)
	if err := s.RecordReads(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := s.told(before); len(all)+int(s.ReadsLost()) != 45 || s.ReadsLost() == 0 {
		t.Errorf("got %d events and %v lost, want 45 in all", len(all), s.ReadsLost())
	}
}

// An export is told of before it begins, and how it ended.
func TestAnExportIsTold(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	before := s.toldSize()
	s.failAppends("before commit")
	if _, err := s.log().BeginExport(t.Context(), byTest, "action=a", "csv"); !errors.Is(err, log.ErrUnrecorded) {
		t.Errorf("an export that can't be recorded: got %v, want ErrUnrecorded", err)
	}
	s.store.fault.Store(nil)
	long := strings.Repeat("actor_id=someone&", 3000)
	x, err := s.log().BeginExport(t.Context(), byTest, long, "csv")
	if err != nil {
		t.Fatal(err)
	}
	x.End(map[string]any{"count": 7}, nil)
	y, err := s.log().BeginExport(t.Context(), byTest, "action=a", "ndjson")
	if err != nil {
		t.Fatal(err)
	}
	y.End(map[string]any{"count": 3}, http.ErrAbortHandler)
	all := s.told(before)
	if len(all) != 4 {
		t.Fatalf("got %+v", all)
	}
	for i, action := range []string{"treeline.export.started", "treeline.export.finished"} {
		for _, e := range []told{all[i], all[i+2]} {
			if e.Action != action || e.Targets[0] != s.log().Target() || e.Actor.ID != "testkey" {
				t.Errorf("got %+v, want %s", e, action)
			}
		}
	}
	if m := all[0].Metadata; m["format"] != "csv" || !strings.HasPrefix(long, m["filter"].(string)) || len(m["filter_sha256"].(string)) != 64 {
		t.Errorf("a long filter: got %v", m)
	}
	if m := all[2].Metadata; m["filter"] != "action=a" || m["filter_sha256"] != nil {
		t.Errorf("a filter: got %v", m)
	}
	if all[1].Outcome != "success" || all[1].Metadata["count"] != 7.0 || all[1].Metadata["started"] != all[0].ID ||
		all[3].Outcome != "failure" || all[3].Metadata["count"] != 3.0 || all[3].Metadata["started"] != all[2].ID {
		t.Errorf("ends: got %+v and %+v", all[1], all[3])
	}
}
