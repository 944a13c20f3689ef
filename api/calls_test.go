package api_test

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/merkle"
)

// callLog is what a store was asked for requests, a text each.
type callLog struct {
	mu    sync.Mutex
	calls []string
}

func (l *callLog) add(ctx context.Context, call string) {
	if ctx.Value(http.ServerContextKey) == nil { // it is the service's own
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, call)
}

// take returns the calls since the last time.
func (l *callLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.calls
	l.calls = nil
	return calls
}

func (s *faultStore) Head(ctx context.Context, id log.ID) (log.Head, error) {
	s.calls.add(ctx, fmt.Sprint("head of ", id))
	return s.Store.Head(ctx, id)
}

func (s *faultStore) Logs(ctx context.Context) ([]log.Info, error) {
	s.calls.add(ctx, "logs")
	return s.Store.Logs(ctx)
}

func (s *faultStore) Sizes(ctx context.Context) (map[log.ID]uint64, error) {
	s.calls.add(ctx, "sizes")
	return s.Store.Sizes(ctx)
}

func (s *faultStore) Nodes(ctx context.Context, id log.ID, level int, from, to uint64) ([]merkle.Hash, error) {
	s.calls.add(ctx, fmt.Sprint("nodes of ", id))
	return s.Store.Nodes(ctx, id, level, from, to)
}

func (s *faultStore) PayloadsAt(ctx context.Context, id log.ID, indices []uint64, fn func(uint64, log.Payload) error) error {
	s.calls.add(ctx, fmt.Sprint("contents of ", id))
	return s.Store.PayloadsAt(ctx, id, indices, fn)
}

func (s *faultStore) Checkpoint(ctx context.Context, id log.ID, size uint64) (log.Signed, error) {
	s.calls.add(ctx, fmt.Sprint("checkpoint of ", id))
	return s.Store.Checkpoint(ctx, id, size)
}

func (s *faultStore) Checkpoints(ctx context.Context, id log.ID, from uint64, fn func(log.Signed) error) error {
	s.calls.add(ctx, fmt.Sprint("checkpoints of ", id))
	return s.Store.Checkpoints(ctx, id, from, fn)
}

func (s *faultStore) Cosignatures(ctx context.Context, id log.ID, size uint64) ([]log.Cosignature, error) {
	s.calls.add(ctx, fmt.Sprint("cosignatures of ", id))
	return s.Store.Cosignatures(ctx, id, size)
}

func (s *faultStore) CosignaturesDown(ctx context.Context, id log.ID, size uint64, fn func(log.Cosignature) error) error {
	s.calls.add(ctx, fmt.Sprint("cosignatures of ", id))
	return s.Store.CosignaturesDown(ctx, id, size, fn)
}

func (s *faultStore) Evidence(ctx context.Context, id log.ID) ([]log.Evidence, error) {
	s.calls.add(ctx, fmt.Sprint("evidence of ", id))
	return s.Store.Evidence(ctx, id)
}

func (s *faultStore) Growths(ctx context.Context, hub log.ID, from, to uint64, fn func(log.Growth) error) error {
	s.calls.add(ctx, "growths")
	return s.Store.Growths(ctx, hub, from, to, fn)
}

func (s *faultStore) GrowthBefore(ctx context.Context, hub, id log.ID, size uint64) (log.Growth, error) {
	s.calls.add(ctx, fmt.Sprint("growth of ", id))
	return s.Store.GrowthBefore(ctx, hub, id, size)
}

func (s *faultStore) Counts(ctx context.Context, id log.ID) (log.Counts, error) {
	s.calls.add(ctx, fmt.Sprint("counts of ", id))
	return s.Store.Counts(ctx, id)
}

func (s *faultStore) Segments(ctx context.Context, id log.ID) ([]index.Meta, error) {
	s.calls.add(ctx, fmt.Sprint("segments of ", id))
	return s.Store.Segments(ctx, id)
}

func (s *faultStore) Blocks(
	ctx context.Context, id log.ID, level int, segments []uint64, ranges []index.Range, fn func(uint64, []byte, []byte) error,
) error {
	s.calls.add(ctx, fmt.Sprint("blocks of ", id))
	return s.Store.Blocks(ctx, id, level, segments, ranges, fn)
}

func (s *faultStore) Keys(ctx context.Context) ([]log.Key, error) {
	s.calls.add(ctx, "keys")
	return s.Store.Keys(ctx)
}

func (s *faultStore) Configure(ctx context.Context, id log.ID, change func(*log.Settings) error) (log.Settings, error) {
	s.calls.add(ctx, fmt.Sprint("set up ", id))
	return s.Store.Configure(ctx, id, change)
}

func (s *faultStore) Freeze(ctx context.Context, id log.ID) error {
	s.calls.add(ctx, fmt.Sprint("freeze ", id))
	return s.Store.Freeze(ctx, id)
}

func (s *faultStore) CreateLog(ctx context.Context, info *log.Info) error {
	s.calls.add(ctx, "create log "+info.Name)
	return s.Store.CreateLog(ctx, info)
}

func (s *faultStore) CreateKey(ctx context.Context, k log.Key) error {
	s.calls.add(ctx, fmt.Sprint("create key of ", k.Log))
	return s.Store.CreateKey(ctx, k)
}

func (s *faultStore) ChangeKey(ctx context.Context, id string, change func(*log.Key) (*log.Key, error)) error {
	s.calls.add(ctx, "change key "+id)
	return s.Store.ChangeKey(ctx, id, change)
}

func (s *faultStore) IDsWithPrefix(ctx context.Context, id log.ID, prefix string, fn func(string, uint64) error) error {
	s.calls.add(ctx, fmt.Sprintf("ids in %v from %s", id, prefix))
	return s.Store.IDsWithPrefix(ctx, id, prefix, fn)
}

func (s *faultStore) Custody(ctx context.Context) (map[log.ID]uint64, error) {
	s.calls.add(ctx, "custody")
	return s.Store.Custody(ctx)
}

func (s *faultStore) Guard(ctx context.Context, id log.ID) (func(), error) {
	s.calls.add(ctx, fmt.Sprint("guard of ", id))
	return s.Store.Guard(ctx, id)
}

func (s *faultStore) Reduce(ctx context.Context, id log.ID, contents []log.Reduced) error {
	s.calls.add(ctx, fmt.Sprint("reduce contents of ", id))
	return s.Store.Reduce(ctx, id, contents)
}

func (s *faultStore) Purge(ctx context.Context, id log.ID, spans []log.Span) error {
	s.calls.add(ctx, fmt.Sprint("purge contents of ", id))
	return s.Store.Purge(ctx, id, spans)
}

func (s *faultStore) Shred(ctx context.Context) (bool, error) {
	s.calls.add(ctx, "shred")
	return s.Store.Shred(ctx)
}

func (s *faultStore) Retain(ctx context.Context, id log.ID, class string) error {
	s.calls.add(ctx, fmt.Sprint("retain contents of ", id))
	return s.Store.Retain(ctx, id, class)
}

// Whatever a store can be asked is noted, but for what only the service itself asks, and when keys were used.
func TestAllCallsOfTheStoreAreNoted(t *testing.T) {
	t.Parallel()
	own := []string{
		"AddEvidence", "AddVKey", "CheckpointsOf", "Close", "Confirmations", "Cosign", "DropIndex", "IDs", "Incarnation", "Indexed", "Label", "Labels",
		"NewestGrowths", "Ping", "Record", "UseKeys", "WriteIndex",
	}
	request := context.WithValue(t.Context(), http.ServerContextKey, "of a request")
	for method := range reflect.TypeFor[log.Store]().Methods() {
		if slices.Contains(own, method.Name) {
			continue
		}
		s := new(faultStore) // of nothing, so that each call ends in a panic, after it was noted
		call := reflect.ValueOf(s).MethodByName(method.Name)
		args := []reflect.Value{reflect.ValueOf(request)}
		for arg := range call.Type().Ins() {
			if len(args) < call.Type().NumIn() && arg != reflect.TypeFor[context.Context]() {
				args = append(args, argument(arg))
			}
		}
		func() {
			defer func() { _ = recover() }()
			call.Call(args)
		}()
		if len(s.calls.take()) != 1 {
			t.Errorf("%s is not noted", method.Name)
		}
	}
}

// argument returns something of a type.
func argument(t reflect.Type) reflect.Value {
	if t.Kind() == reflect.Pointer {
		return reflect.New(t.Elem())
	}
	return reflect.Zero(t)
}
