package log

import (
	"context"
	"errors"
	"fmt"
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
	// ErrReason means that a reason is missing, or too long.
	ErrReason = errors.New("a reason is needed, of at most 1,024 bytes")
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
	return r.Min.atLeast(o.Min) && r.Max.atLeast(o.Max) && (r.Archive || !o.Archive) && (!r.EraseEarly || o.EraseEarly) &&
		(!r.Closing || o.Closing)
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

// Retention returns the policy that applies to the log, and the change that is pending.
func (l *Log) Retention() RetentionState { return l.custody.Load().retention.state() }

// SetRetention changes the log's policy. What loses nothing takes effect at once, and the request that it returns is nil; anything
// else is recorded as a request, which takes effect after the cooling-off time and, where the service asks for it, once another
// key has approved it. Errors are ErrRetention, ErrPending, ErrReason, ErrHub, ErrSystem and those of appending.
func (l *Log) SetRetention(ctx context.Context, by By, policy Retention, reason string) (*RetentionRequest, error) {
	return nil, errors.ErrUnsupported
}

// ApproveRetention approves the pending request of that id. The approver must be an API key that is neither the requester's, nor was made
// by it, nor takes its place. It is ErrApprover if it isn't, ErrNotFound if no such request is pending.
func (l *Log) ApproveRetention(ctx context.Context, by By, request string) error {
	return errors.ErrUnsupported
}

// CancelRetention withdraws the pending request of that id; ErrNotFound if no such request is pending.
func (l *Log) CancelRetention(ctx context.Context, by By, request, reason string) error {
	return errors.ErrUnsupported
}

// SettleRetention lets a request take effect whose time has come, and reports whether there was one.
func (l *Log) SettleRetention(ctx context.Context) (bool, error) {
	return false, errors.ErrUnsupported
}

// Close ends the log, as Freeze does, and asks for the policy under which its contents are purged once they have come to the minimum age.
// It is approved as SetRetention's requests are.
func (l *Log) Close(ctx context.Context, by By, reason string) (*RetentionRequest, error) {
	return nil, errors.ErrUnsupported
}
