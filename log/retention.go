package log

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Retention is for how long a log keeps the contents of its events, counted from when they were received.
type Retention struct {
	// Min is the age before which nothing is removed: no event is purged, and none is erased unless EraseEarly.
	Min Age `json:"min"`
	// Max is the age at which the content of an event is purged.
	Max Age `json:"max"`
	// Archive means that a content is purged only once an archive was verified to have it.
	Archive bool `json:"archive"`
	// EraseEarly lets contents be erased that haven't come to Min.
	EraseEarly bool `json:"erase_early"`
	// Preset is the name of the preset that Min and Max are of; "": none.
	Preset string `json:"preset,omitempty"`
	// Closing means that the log has ended, and its contents are purged when they have come to Min.
	Closing bool `json:"closing,omitempty"`
}

// Presets are the policies that have a name: how long records are kept at least by common rules, and no longer.
var Presets = []struct {
	Name string
	Age  Age
}{
	{"soc2", Age{Years: 1}}, {"pci", Age{Years: 1}}, {"hipaa", Age{Years: 6}}, {"sec17a4", Age{Years: 6}}, {"finance", Age{Years: 7}},
}

// DefaultRetention is what applies to a log until it is changed: all is kept.
var DefaultRetention = Retention{Max: Forever, Archive: true}

// Errors of what is asked of a log's retention.
var (
	// ErrRetention means that a log can't have the policy.
	ErrRetention = errors.New("not a retention policy")
	// ErrPending means that another change of the policy waits to take effect: it is to be cancelled first.
	ErrPending = errors.New("another change of the retention policy is pending")
	// ErrApprover means that a key can't approve a change of the policy.
	ErrApprover = errors.New("this API key can't approve the change")
)

// Preset returns the policy of that name, with an archive.
func Preset(name string) (Retention, error) {
	for _, p := range Presets {
		if p.Name == name {
			return Retention{Min: p.Age, Max: p.Age, Archive: true, Preset: name}, nil
		}
	}
	return Retention{}, fmt.Errorf("%w: %q is none of soc2, pci, hipaa, sec17a4 and finance", ErrRetention, name)
}

// Check returns ErrRetention if a log can't have the policy.
func (r Retention) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrRetention}, args...)...)
	}
	for _, a := range []Age{r.Min, r.Max} {
		if a.Years < 0 || a.Days < 0 || a.Forever && a != Forever {
			return bad("an age of %d years and %d days", a.Years, a.Days)
		}
		if !a.Forever && a.most() > 366*MaxYears {
			return bad("%v is more than %d years: want forever", a, MaxYears)
		}
	}
	if r.Max.least() < MinKept && !r.Max.Forever {
		return bad("contents are kept for %d days at least, not %v", MinKept, r.Max)
	}
	if !r.Max.atLeast(r.Min) {
		return bad("contents that are kept for %v at least can't be purged after %v", r.Min, r.Max)
	}
	if r.Preset != "" {
		p, err := Preset(r.Preset)
		if err != nil {
			return err
		}
		if p.Min != r.Min || p.Max != r.Max {
			return bad("the preset %s keeps contents for %v, neither less nor more", r.Preset, p.Max)
		}
	}
	return nil
}

// keepsAll reports whether everything that o keeps is kept by r, for as long and as safely, so that no change from o to r
// can lose anything.
func (r Retention) keepsAll(o Retention) bool {
	return r.Min.atLeast(o.Min) && r.purgeAge().atLeast(o.purgeAge()) && (r.Archive || !o.Archive) && (!r.EraseEarly || o.EraseEarly)
}

// purgeAge is the age at which contents are purged.
func (r Retention) purgeAge() Age {
	if r.Closing {
		return r.Min
	}
	return r.Max
}

// RetentionRequest is a change of a log's policy that loses something, and so waits before it takes effect.
type RetentionRequest struct {
	ID          string
	Policy      Retention
	Reason      string
	By          By    // who asked for it
	RequestedAt int64 // µs since 1970 UTC
	// TakesEffectAt is when it does at the earliest, in µs since 1970 UTC.
	TakesEffectAt int64
	NeedsApproval bool
	ApprovedBy    *By // nil: not yet
	ApprovedAt    int64
}

// RetentionState is what applies to a log, and what waits to.
type RetentionState struct {
	Policy    Retention
	Since     int64             // when it was changed, µs since 1970 UTC; 0: it is the default
	Approvers []string          // who asked for it and who approved it, by the ids of their keys
	Pending   *RetentionRequest // nil: none
}

// What the metadata of events about a policy says.
type (
	retentionRequested struct {
		Request       string    `json:"request"`
		Policy        Retention `json:"policy"`
		Reason        string    `json:"reason"`
		TakesEffectAt string    `json:"takes_effect_at"`
		NeedsApproval bool      `json:"needs_approval"`
	}
	retentionApproved struct {
		Request string `json:"request"`
	}
	retentionCancelled struct {
		Request string `json:"request"`
		Reason  string `json:"reason"`
	}
	retentionChanged struct {
		Policy    Retention `json:"policy"`
		Request   string    `json:"request,omitempty"` // absent where it took effect at once
		Reason    string    `json:"reason"`
		Approvers []string  `json:"approvers"` // who asked for it and who approved it
	}
)

// applyRetention takes up an event about the log's policy.
func (c *custody) applyRetention(action string, r ownRecord) error {
	pending := c.retention.Pending
	isPending := func(request string) error {
		if pending == nil || pending.ID != request {
			return fmt.Errorf("the request %s, which it is about, isn't pending", request)
		}
		return nil
	}
	switch text := r.event.Metadata(); action {
	case ActionRetentionRequested:
		var m retentionRequested
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		at, err := parseReceivedAt(m.TakesEffectAt)
		if err != nil {
			return err
		}
		c.retention.Pending = &RetentionRequest{
			ID: m.Request, Policy: m.Policy, Reason: m.Reason, By: byOf(r.event), RequestedAt: r.receivedAt, TakesEffectAt: at,
			NeedsApproval: m.NeedsApproval,
		}
		return m.Policy.Check()
	case ActionRetentionApproved:
		var m retentionApproved
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		if err := isPending(m.Request); err != nil {
			return err
		}
		approved, by := *pending, byOf(r.event)
		approved.ApprovedBy, approved.ApprovedAt = &by, r.receivedAt
		c.retention.Pending = &approved
	case ActionRetentionCancelled:
		var m retentionCancelled
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		if err := isPending(m.Request); err != nil {
			return err
		}
		c.retention.Pending = nil
	case ActionRetentionChanged:
		var m retentionChanged
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		if m.Request != "" {
			if err := isPending(m.Request); err != nil {
				return err
			}
			c.retention.Pending = nil
		}
		c.retention.Policy, c.retention.Since, c.retention.Approvers = m.Policy, r.receivedAt, m.Approvers
		return m.Policy.Check()
	}
	return nil
}

// policy returns the policy that applies.
func (c *custody) policy() Retention {
	if c.retention.Since == 0 {
		return DefaultRetention
	}
	return c.retention.Policy
}

// Retention returns the policy that applies to the log, and the change that is pending.
func (l *Log) Retention() RetentionState {
	c := l.custody.Load()
	state := c.retention
	state.Policy = c.policy()
	return state
}

// SetRetention changes the log's policy. What loses nothing takes effect at once, and the request that it returns is nil; anything
// else is recorded as a request, which takes effect after the cooling-off time and, where the service asks for it, once another
// key has approved it. Errors are ErrRetention, ErrPending, ErrReason, ErrHub, ErrSystem and those of appending.
func (l *Log) SetRetention(ctx context.Context, by By, policy Retention, reason string) (*RetentionRequest, error) {
	return l.requestRetention(ctx, by, reason, func(Retention) Retention { return policy })
}

// requestRetention does that with a policy made from the one that applies.
func (l *Log) requestRetention(ctx context.Context, by By, reason string, policyOf func(Retention) Retention) (*RetentionRequest, error) {
	if err := checkReason("reason", reason); err != nil {
		return nil, err
	}
	requested := ""
	err := l.decide(ctx, by, func(_ context.Context, c *custody) ([]*Event, error) {
		policy := policyOf(c.policy())
		if err := policy.Check(); err != nil {
			return nil, err
		}
		if policy == c.policy() {
			return nil, nil
		}
		if p := c.retention.Pending; p != nil {
			return nil, fmt.Errorf("%w: %s", ErrPending, p.ID)
		}
		config := l.service.config
		if policy.keepsAll(c.policy()) || config.RetentionCoolingOff <= 0 && !config.RetentionApproval {
			e, err := l.ownEventOf(by, ActionRetentionChanged, "retention", retentionChanged{Policy: policy, Reason: reason, Approvers: []string{by.ID}})
			return []*Event{e}, err
		}
		requested = uuid.Must(uuid.NewV7()).String()
		at := config.Now().Add(config.RetentionCoolingOff).UnixMicro()
		e, err := l.ownEventOf(by, ActionRetentionRequested, "requested", retentionRequested{
			Request: requested, Policy: policy, Reason: reason, TakesEffectAt: string(AppendTime(nil, at)), NeedsApproval: config.RetentionApproval,
		})
		return []*Event{e}, err
	})
	if err != nil || requested == "" {
		return nil, err
	}
	return l.custody.Load().retention.Pending, nil
}

// ApproveRetention approves the pending request of that id. The approver must be an API key that is neither the requester's, nor was made
// by it, nor takes its place. It is ErrApprover if it isn't, ErrNotFound if no such request is pending.
func (l *Log) ApproveRetention(ctx context.Context, by By, request string) error {
	return l.decide(ctx, by, func(ctx context.Context, c *custody) ([]*Event, error) {
		p := c.retention.Pending
		if p == nil || p.ID != request {
			return nil, fmt.Errorf("request %q: %w", request, ErrNotFound)
		}
		if p.ApprovedBy != nil {
			return nil, nil
		}
		if err := l.service.mayApprove(ctx, p.By, by); err != nil {
			return nil, err
		}
		approved, err := l.ownEventOf(by, ActionRetentionApproved, "approved", retentionApproved{request})
		if err != nil {
			return nil, err
		}
		events, after := []*Event{approved}, *p
		if after.ApprovedBy = &by; after.ready(l.service.config.Now().UnixMicro()) {
			changed, err := l.changed(&after)
			return append(events, changed), err
		}
		return events, nil
	})
}

// ready reports whether the request's time has come.
func (r *RetentionRequest) ready(now int64) bool {
	return r.TakesEffectAt <= now && (!r.NeedsApproval || r.ApprovedBy != nil)
}

// changed returns the event by which a request takes effect.
func (l *Log) changed(r *RetentionRequest) (*Event, error) {
	m := retentionChanged{Policy: r.Policy, Request: r.ID, Reason: r.Reason, Approvers: []string{r.By.ID}}
	if r.ApprovedBy != nil {
		m.Approvers = append(m.Approvers, r.ApprovedBy.ID)
	}
	return l.ownEventOf(ByServer(), ActionRetentionChanged, "retention", m)
}

// CancelRetention withdraws the pending request of that id; ErrNotFound if no such request is pending.
func (l *Log) CancelRetention(ctx context.Context, by By, request, reason string) error {
	if err := checkReason("reason", reason); err != nil {
		return err
	}
	return l.decide(ctx, by, func(_ context.Context, c *custody) ([]*Event, error) {
		if p := c.retention.Pending; p == nil || p.ID != request {
			return nil, fmt.Errorf("request %q: %w", request, ErrNotFound)
		}
		e, err := l.ownEventOf(by, ActionRetentionCancelled, "cancelled", retentionCancelled{request, reason})
		return []*Event{e}, err
	})
}

// SettleRetention lets a request take effect whose time has come, and reports whether there was one.
func (l *Log) SettleRetention(ctx context.Context) (settled bool, err error) {
	ready := func(c *custody) bool {
		p := c.retention.Pending
		return p != nil && p.ready(l.service.config.Now().UnixMicro())
	}
	if l.IsHub() || l.IsSystem() || !ready(l.custody.Load()) {
		return false, nil
	}
	err = l.decide(ctx, ByServer(), func(_ context.Context, c *custody) ([]*Event, error) {
		if !ready(c) {
			return nil, nil
		}
		settled = true
		e, err := l.changed(c.retention.Pending)
		return []*Event{e}, err
	})
	return settled && err == nil, err
}

// Close ends the log, as Freeze does, and asks for the policy under which its contents are purged once they have come to the minimum age.
// It is approved as SetRetention's requests are.
func (l *Log) Close(ctx context.Context, by By, reason string) (*RetentionRequest, error) {
	if err := checkReason("reason", reason); err != nil {
		return nil, err
	}
	if p := l.custody.Load().retention.Pending; p != nil && !p.Policy.Closing {
		return nil, fmt.Errorf("%w: %s", ErrPending, p.ID)
	}
	if err := l.Freeze(ctx, by); err != nil {
		return nil, err
	}
	return l.requestRetention(ctx, by, reason, func(r Retention) Retention {
		r.Closing = true
		return r
	})
}

// TellRetentionRun records that somebody has what has expired of the log purged now. Unless the error is nil that must not be done; it is
// ErrUnrecorded, ErrHub or ErrSystem.
func (l *Log) TellRetentionRun(ctx context.Context, by By) error {
	if err := l.checkTenant(); err != nil {
		return err
	}
	_, err := l.service.record(ctx, by, Act{Action: "retention.run", Targets: []Target{l.Target()}})
	return err
}

// mayApprove returns ErrApprover if somebody can't approve what somebody else has asked for: only an API key can, and neither the one that
// it was asked for with, nor one that took its place or whose place that took, nor one that any of these has made.
func (s *Service) mayApprove(ctx context.Context, requester, approver By) error {
	if approver.Type != byKey {
		return fmt.Errorf("%w: an API key is needed, not %s", ErrApprover, approver.ID)
	}
	all, err := s.Keys(ctx)
	if err != nil {
		return err
	}
	keys := make(map[string]Key, len(all))
	first := make(map[string]string) // of a key that took another's place, that one
	for _, k := range all {
		keys[k.ID] = k
		if k.ReplacedBy != "" {
			first[k.ReplacedBy] = k.ID
		}
	}
	holder := func(id string) string { // the first of the keys that took each other's place
		for range keys {
			before, ok := first[id]
			if !ok {
				break
			}
			id = before
		}
		return id
	}
	k, ok := keys[approver.ID]
	if !ok {
		return fmt.Errorf("%w: there is no key %s", ErrApprover, approver.ID)
	}
	if requester.Type != byKey {
		return nil
	}
	if holder(k.ID) == holder(requester.ID) {
		return fmt.Errorf("%w: it was asked for with the same key, or one that was rotated", ErrApprover)
	}
	for range keys { // up to who made the key, who made that, and so on
		if k.CreatedBy == "" {
			break
		}
		if holder(k.CreatedBy) == holder(requester.ID) {
			return fmt.Errorf("%w: it was made with the key %s, with which the change was asked for", ErrApprover, k.CreatedBy)
		}
		k = keys[k.CreatedBy]
	}
	return nil
}
