package client_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/treeline-log/treeline/api/client"
)

// problems collects what a spool reports.
type problems struct {
	mu  sync.Mutex
	all []string
}

func (p *problems) add(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, err.Error())
}

func (p *problems) has(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.all, func(s string) bool { return strings.Contains(s, text) })
}

// openSpool opens a spool to the server in a folder.
func openSpool(t testing.TB, s *server, dir string, change func(*client.SpoolConfig)) (*client.Spool, *problems) {
	t.Helper()
	p := &problems{}
	config := client.SpoolConfig{Client: s.client(t), Dir: dir, OnError: p.add}
	if change != nil {
		change(&config)
	}
	spool, err := client.OpenSpool(config)
	if err != nil {
		t.Fatal(err)
	}
	return spool, p
}

// record records events with the actions.
func record(t testing.TB, r client.Recorder, actions ...string) {
	t.Helper()
	for _, a := range actions {
		if err := r.Record(t.Context(), client.Event{Action: a}); err != nil {
			t.Fatal(err)
		}
	}
}

func numbers(from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, "n."+strconv.Itoa(i))
	}
	return out
}

func closeSpool(t testing.TB, s *client.Spool) {
	t.Helper()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func closed(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestASpoolSendsWhatItWasGivenInOrder(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	spool, _ := openSpool(t, s, dir, nil)
	record(t, spool, numbers(0, 50)...)
	if err := spool.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.actions(t); !reflect.DeepEqual(got, numbers(0, 50)) {
		t.Errorf("after Flush got %v", got)
	}
	record(t, spool, numbers(50, 60)...)
	closeSpool(t, spool)
	if got := s.actions(t); !reflect.DeepEqual(got, numbers(0, 60)) {
		t.Errorf("after Close got %v", got)
	}
	got := spool.Stats()
	want := client.Stats{Recorded: 60, Sent: 60}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, e := range s.events(t) {
		if e.ID == "" || time.Since(e.OccurredAt) > time.Hour {
			t.Errorf("got %+v, want an id and the time of recording", e)
		}
	}
	if err := spool.Record(t.Context(), client.Event{Action: "late"}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after Close: got %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.spool")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestASpoolOutlivesServerAndProcess(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	s.refuse.Store(true)
	spool, _ := openSpool(t, s, dir, nil)
	record(t, spool, numbers(0, 10)...)
	if err := spool.Close(closed(t)); err == nil || !strings.Contains(err.Error(), "10 events are not sent yet") {
		t.Errorf("got %v, want how many are left", err)
	}
	spool, problems := openSpool(t, s, dir, nil)
	record(t, spool, numbers(10, 20)...)
	until(t, "a failure", func() bool { return spool.Stats().Retries > 1 })
	if got := spool.Stats(); got.Recovered != 10 || got.Pending != 20 || got.Bytes == 0 || got.LastError == "" {
		t.Errorf("got %+v", got)
	}
	if !problems.has("store_unavailable") || len(problems.all) != 1 {
		t.Errorf("reported %v, want the first failure only", problems.all)
	}
	s.refuse.Store(false)
	s.lose.Store(1) // and the answer to the first batch that gets through
	closeSpool(t, spool)
	if got := s.actions(t); !reflect.DeepEqual(got, numbers(0, 20)) {
		t.Errorf("got %v", got)
	}
	if got := spool.Stats(); got.Sent != 20 || got.Duplicates == 0 || got.Pending != 0 || got.LastError != "" {
		t.Errorf("got %+v", got)
	}
}

func TestAFullSpool(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.refuse.Store(true)
	const most = 1 << 20
	spool, _ := openSpool(t, s, t.TempDir(), func(c *client.SpoolConfig) { c.MaxBytes, c.SyncEvery = most, time.Hour })
	defer spool.Close(closed(t))
	big := client.Event{Action: "a", Metadata: map[string]any{"x": strings.Repeat("x", 10_000)}}
	var err error
	n := 0
	for ; err == nil; n++ {
		err = spool.Record(t.Context(), big)
	}
	got := spool.Stats()
	if !errors.Is(err, client.ErrFull) || got.Dropped != 1 || got.Recorded != uint64(n-1) || got.Bytes > most || got.Bytes < most-2*10_000 {
		t.Errorf("got %v, %+v after %d events", err, got, n)
	}
	s.refuse.Store(false)
	if err := spool.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := spool.Record(t.Context(), big); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := spool.Flush(t.Context()); err != nil || s.Log.Sizes().Size != uint64(n) {
		t.Errorf("the log has %d events, want %d; %v", s.Log.Sizes().Size, n, err)
	}
}

func TestWaitingForRoom(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.refuse.Store(true)
	spool, _ := openSpool(t, s, t.TempDir(), func(c *client.SpoolConfig) {
		c.MaxBytes, c.SyncEvery, c.BlockFor = 1<<20, time.Hour, time.Hour
	})
	big := client.Event{Action: "a", Metadata: map[string]any{"x": strings.Repeat("x", 20_000)}}
	for spool.Stats().Bytes+20_500 < 1<<20 {
		if err := spool.Record(t.Context(), big); err != nil {
			t.Fatal(err)
		}
	}
	if err := spool.Record(closed(t), big); !errors.Is(err, client.ErrFull) || !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: got %v", err)
	}
	recorded := make(chan error)
	go func() { recorded <- spool.Record(t.Context(), big) }()
	select {
	case err := <-recorded:
		t.Errorf("got %v, want it to wait", err)
	case <-time.After(20 * time.Millisecond):
	}
	s.refuse.Store(false)
	if err := <-recorded; err != nil {
		t.Error(err)
	}
	closeSpool(t, spool)
	if got := spool.Stats(); got.Dropped != 1 || got.Sent != got.Recorded || s.Log.Sizes().Size != got.Sent {
		t.Errorf("got %+v and %d events in the log", got, s.Log.Sizes().Size)
	}
}

// One event that is refused for good must not keep the others from being sent, nor be lost without a word.
func TestRejectedEventsArePutAside(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	s.refuse.Store(true)
	spool, problems := openSpool(t, s, dir, nil)
	record(t, spool, "n.0", "not an action", "n.1")
	for _, e := range []client.Event{
		{ID: "once", Action: "n.2"},
		{ID: "once", Action: "n.2"},      // the application's own retry
		{ID: "once", Action: "n.2.else"}, // another event under its id
		{Action: "n.3", Metadata: map[string]any{"n": int64(9007199254740993)}},
		{Action: "n.4", Metadata: map[string]any{"x": strings.Repeat("x", 100<<10)}},
	} {
		if err := spool.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	record(t, spool, "n.5")
	s.refuse.Store(false)
	closeSpool(t, spool)
	if got, want := s.actions(t), []string{"n.0", "n.1", "n.2", "n.5"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := spool.Stats(); got.Rejected != 4 || got.Sent != 5 || got.Duplicates != 1 || got.Pending != 0 || got.Bytes == 0 {
		t.Errorf("got %+v", got)
	}
	data, err := os.ReadFile(filepath.Join(dir, "rejected.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string) // why, by action
	for line := range strings.Lines(string(data)) {
		var r struct {
			At    time.Time
			Error string
			Event client.Event
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.At.IsZero() || got[r.Event.Action] != "" {
			t.Errorf("got line %.300s, %v", line, err)
		}
		got[r.Event.Action] = r.Error
	}
	for action, want := range map[string]string{
		"not an action": "400 invalid_event: /action: ", "n.2.else": "409 conflict: ",
		"n.3": "400 invalid_event: /metadata/n: ", "n.4": "400 invalid_event: ",
	} {
		if !strings.HasPrefix(got[action], want) || strings.Contains(got[action], "event 1") {
			t.Errorf("%s: got %q, want %q", action, got[action], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("got %v", got)
	}
	if !problems.has("is rejected") {
		t.Errorf("reported %v", problems.all)
	}
}

// A key that is for some actions only keeps none of these from being sent.
func TestActionsThatTheKeyIsNotForArePutAside(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	req, err := http.NewRequest(http.MethodPost, s.URL+"/v1/keys", strings.NewReader(`{"role":"writer","actions":["n.*"]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var made struct{ Key string }
	if err := json.NewDecoder(res.Body).Decode(&made); err != nil || made.Key == "" {
		t.Fatalf("got %d %+v, %v", res.StatusCode, made, err)
	}
	c, err := client.New(client.Config{Server: s.URL, Key: made.Key})
	if err != nil {
		t.Fatal(err)
	}
	s.refuse.Store(true) // until all are there
	spool, problems := openSpool(t, s, t.TempDir(), func(config *client.SpoolConfig) { config.Client = c })
	record(t, spool, "n.0", "other", "n.1")
	s.refuse.Store(false)
	closeSpool(t, spool)
	if got, want := s.actions(t), []string{"n.0", "n.1"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := spool.Stats(); got.Rejected != 1 || !problems.has("403 action_not_allowed: /action: ") {
		t.Errorf("got %+v, reported %v", got, problems.all)
	}
}

func TestASpoolBelongsToOneProcess(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	spool, _ := openSpool(t, s, dir, nil)
	if _, err := client.OpenSpool(client.SpoolConfig{Client: s.client(t), Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
	closeSpool(t, spool)
	spool, _ = openSpool(t, s, dir, nil)
	closeSpool(t, spool)
}

// segments returns the files of a spool's events.
func segments(t testing.TB, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*.spool"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// lastFrame returns where the last frame of a segment begins.
func lastFrame(segment []byte) (at int) {
	for next := 0; next < len(segment); next += 8 + int(binary.BigEndian.Uint32(segment[next:])) {
		at = next
	}
	return at
}

func TestWhatIsNoEventIsKeptAndReported(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.refuse.Store(true)
	for name, x := range map[string]struct {
		damage  func([]byte) []byte
		sent    int // of three events
		damaged bool
	}{
		"nothing":                                  {func(b []byte) []byte { return b }, 3, false},
		"a torn event":                             {func(b []byte) []byte { return b[:len(b)-1] }, 2, false},
		"a torn header":                            {func(b []byte) []byte { return append(b, 0, 0, 0) }, 3, false},
		"zeros after a power loss":                 {func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, 3, true},
		"a bit of the last event":                  {func(b []byte) []byte { b[len(b)-10] ^= 1; return b }, 2, true},
		"a bit of the first event":                 {func(b []byte) []byte { b[20] ^= 1; return b }, 0, true},
		"a bit of the first length":                {func(b []byte) []byte { b[0] ^= 0x80; return b }, 0, true},
		"a first length that leads behind the end": {func(b []byte) []byte { b[2] ^= 0x80; return b }, 0, true},
		"a last length that leads behind the end":  {func(b []byte) []byte { b[lastFrame(b)+2] ^= 0x80; return b }, 2, true},
		"all is gone":                              {func([]byte) []byte { return nil }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			spool, _ := openSpool(t, s, dir, nil)
			record(t, spool, numbers(0, 3)...)
			if err := spool.Close(closed(t)); err == nil {
				t.Fatal("sent to nowhere")
			}
			path := segments(t, dir)[0]
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			after := x.damage(bytes.Clone(before))
			if err := os.WriteFile(path, after, 0o600); err != nil {
				t.Fatal(err)
			}
			there := newServer(t)
			spool, problems := openSpool(t, there, dir, nil)
			record(t, spool, "last")
			got := spool.Stats()
			closeSpool(t, spool)
			if want := append(numbers(0, x.sent), "last"); !reflect.DeepEqual(there.actions(t), want) {
				t.Errorf("got %v, want %v", there.actions(t), want)
			}
			kept, err := os.ReadFile(path + ".damaged")
			if x.damaged != (err == nil) || x.damaged != (got.Damaged > 0) || x.damaged != problems.has("no events") {
				t.Errorf("got %+v, %v, reported %v", got, err, problems.all)
			}
			if x.damaged && (!bytes.HasSuffix(after, kept) || int64(len(kept)) != got.Damaged) {
				t.Errorf("%d bytes are kept, and are not the end of the file", len(kept))
			}
		})
	}
}

// A place that is lost, or of no use, only makes events be sent again, which their ids make harmless.
func TestAPlaceThatIsLost(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "x", "0000000000000001 7\n", "0000000000000001 99999999\n", "\x00\x00\x00"} {
		s, dir := newServer(t), t.TempDir()
		spool, _ := openSpool(t, s, dir, nil)
		record(t, spool, numbers(0, 3)...)
		if err := spool.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.refuse.Store(true)
		record(t, spool, numbers(3, 6)...)
		if err := spool.Close(closed(t)); err == nil {
			t.Fatal("sent to nowhere")
		}
		path := filepath.Join(dir, "position")
		if data, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(data), "0000000000000001 ") {
			t.Fatalf("got %q, %v", data, err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.refuse.Store(false)
		spool, _ = openSpool(t, s, dir, nil)
		closeSpool(t, spool)
		if got := spool.Stats(); got.Recovered != 6 || got.Duplicates != 3 {
			t.Errorf("%q: got %+v, want that all were sent again", text, got)
		}
		if got := s.actions(t); !reflect.DeepEqual(got, numbers(0, 6)) {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

// What is settled isn't sent again after a restart, and its files go.
func TestSettledEventsAreNotSentAgain(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	spool, _ := openSpool(t, s, dir, func(c *client.SpoolConfig) { c.MaxBytes, c.SyncEvery = 1<<20, time.Hour })
	for i := range 40 { // over several segments
		e := client.Event{Action: "n." + strconv.Itoa(i), Metadata: map[string]any{"x": strings.Repeat("x", 20_000)}}
		if err := spool.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := spool.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(segments(t, dir)); got != 1 {
		t.Errorf("%d segments are left of what was sent, want the last", got)
	}
	s.refuse.Store(true)
	record(t, spool, numbers(40, 45)...)
	if err := spool.Close(closed(t)); err == nil {
		t.Fatal("sent to nowhere")
	}
	s.refuse.Store(false)
	spool, _ = openSpool(t, s, dir, nil)
	if got := spool.Stats(); got.Recovered != 5 {
		t.Errorf("got %+v, want 5 recovered", got)
	}
	closeSpool(t, spool)
	if got := s.actions(t); !reflect.DeepEqual(got, numbers(0, 45)) || spool.Stats().Duplicates != 0 {
		t.Errorf("got %v, %+v", got, spool.Stats())
	}
}

const childEnv = "TREELINE_TEST_SPOOL_CHILD"

// TestMain is, in a child of the test below, the process that is killed.
func TestMain(m *testing.M) {
	if args := os.Getenv(childEnv); args != "" {
		if err := recordForever(strings.Split(args, " ")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// writers is how many goroutines of the child record, each its own sequence.
const writers = 4

// recordForever records, in each of several goroutines, events that are numbered, and prints a line for each that was taken.
func recordForever(args []string) error {
	server, key, dir, run := args[0], args[1], args[2], args[3]
	c, err := client.New(client.Config{Server: server, Key: key})
	if err != nil {
		return err
	}
	spool, err := client.OpenSpool(client.SpoolConfig{Client: c, Dir: dir})
	if err != nil {
		return err
	}
	errs := make(chan error)
	for w := range writers {
		go func() {
			for n := 0; ; n++ {
				e := client.Event{Action: "n", Metadata: map[string]any{"run": run, "writer": w, "n": n, "x": strings.Repeat("x", rand.IntN(3000))}}
				if err := spool.Record(context.Background(), e); err != nil {
					errs <- err
					return
				}
				fmt.Printf("%s %d %d\n", run, w, n)
			}
		}()
	}
	return <-errs
}

// A process is killed again and again while it records, while it sends, and while answers are lost: every event for which Record returned
// is in the log, none is twice, and those of each goroutine are in their order.
func TestKilledProcesses(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	type sequence struct {
		run    string
		writer int
	}
	taken := make(map[sequence]int) // so many events of it
	for run := range 6 {
		if run%2 == 1 {
			s.lose.Store(2)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{s.URL, s.Key, dir, strconv.Itoa(run)}, " "))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for limit, n := 50+rand.IntN(300), 0; lines.Scan(); n++ {
			var q sequence
			var number int
			if _, err := fmt.Sscanf(lines.Text(), "%s %d %d", &q.run, &q.writer, &number); err != nil {
				continue // the line that it was killed in
			}
			taken[q] = number + 1
			if n == limit {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
	}
	spool, problems := openSpool(t, s, dir, nil)
	closeSpool(t, spool)
	stats := spool.Stats()
	got := make(map[sequence]int)
	for i, e := range s.events(t) {
		q := sequence{e.Metadata["run"].(string), int(e.Metadata["writer"].(float64))}
		if n := int(e.Metadata["n"].(float64)); n != got[q] {
			t.Fatalf("event %d of the log is number %d of %+v, want %d", i, n, q, got[q])
		}
		got[q]++
	}
	total := 0
	for q, n := range taken {
		total += n
		if got[q] < n {
			t.Errorf("of %+v the log has %d events, and %d were taken", q, got[q], n)
		}
	}
	if total < 6*50 || stats.Damaged > 0 || stats.Rejected > 0 {
		t.Errorf("%d events were taken; %+v, %v", total, stats, problems.all)
	}
	t.Logf("%d events were taken and %d are in the log; at last %+v", total, s.Log.Sizes().Size, stats)
}

// Close doesn't make a Record fail whose event it takes: that is an error of the disk to the application.
func TestRecordDuringClose(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.refuse.Store(true)
	for range 20 {
		spool, _ := openSpool(t, s, t.TempDir(), nil)
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				for {
					err := spool.Record(t.Context(), client.Event{Action: "n.0"})
					if errors.Is(err, client.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(5 * time.Millisecond)
		_ = spool.Close(closed(t))
		all.Wait()
	}
}
