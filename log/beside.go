package log

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Some commands act beside a store on which no service is open, as on its fence. The store keeps what they do in labels, of which the next
// service that keeps the system log tells there. A label stays, so an act is known by its event's id: it is told once.

// labelAct is what the labels of acts begin with; the id of the event that tells of it follows.
const labelAct = "act "

// actBeside is what the label of an act holds, as JSON.
type actBeside struct {
	At      int64  `json:"at"` // µs since 1970 UTC
	By      By     `json:"by"`
	Act     Act    `json:"act"`
	Outcome string `json:"outcome,omitempty"`
}

// DoBeside does an act beside a store, after the store keeps that it is done. If it fails the store keeps that, too.
func DoBeside(ctx context.Context, store Store, by By, a Act, fn func(context.Context) error) error {
	id, err := keepAct(ctx, store, actBeside{By: by, Act: a})
	if err != nil {
		return fmt.Errorf("keeping what is to be told in the system log: %w", err)
	}
	failure := fn(ctx)
	if failure == nil {
		return nil
	}
	a.Changes, a.Metadata = nil, map[string]any{"act": id}
	_, err = keepAct(context.WithoutCancel(ctx), store, actBeside{By: by, Act: a, Outcome: "unknown"})
	return errors.Join(failure, err)
}

func keepAct(ctx context.Context, store Store, a actBeside) (id string, err error) {
	a.At = time.Now().UnixMicro()
	text, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	id = uuid.Must(uuid.NewV7()).String()
	_, err = store.Label(ctx, labelAct+id, string(text))
	return id, err
}

// tellActs tells in the system log of what was done beside the store, and of a copy that it came by, unless that was told before.
func (s *Service) tellActs(ctx context.Context) error {
	if !s.config.System {
		return nil
	}
	labels, err := s.store.Labels(ctx, "")
	if err != nil {
		return fmt.Errorf("reading labels: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		var a actBeside
		id, isAct := strings.CutPrefix(name, labelAct)
		switch {
		case isAct:
			if err := json.Unmarshal([]byte(labels[name]), &a); err != nil {
				return fmt.Errorf("the label %q: %w: %w", name, err, ErrDamaged)
			}
		case name == labelCopied:
			number, _, _ := strings.Cut(labels[name], " ")
			id, a = "copy-"+number, actBeside{By: ByCommand("treeline migrate copy", ""), Act: Act{Action: "store.copied"}}
		default:
			continue
		}
		if err := s.tellAct(ctx, id, a); err != nil {
			return fmt.Errorf("telling of what was done by %s: %w", a.By.ID, err)
		}
	}
	return nil
}

// tellAct appends the event with an id, unless one of the system logs has it.
func (s *Service) tellAct(ctx context.Context, id string, a actBeside) error {
	for _, l := range s.Systems() {
		if _, err := l.Find(ctx, id); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	told := a.Act.told(a.By)
	told.ID, told.Outcome = id, a.Outcome
	if a.At != 0 {
		told.OccurredAt = string(AppendTime(nil, a.At))
	}
	event, err := told.event(s.config.Now())
	if err != nil {
		return err
	}
	return s.appendSystem(ctx, event)
}
