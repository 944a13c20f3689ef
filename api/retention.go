package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/retention"
)

// retentionView is what applies to a log's contents.
type retentionView struct {
	Log       string        `json:"log"`
	Policy    log.Retention `json:"policy"`
	Since     string        `json:"since,omitempty"` // absent: it is the default
	Approvers []string      `json:"approvers"`
	Pending   *pendingView  `json:"pending"` // null: no change waits
}

// pendingView is a change of a policy that waits.
type pendingView struct {
	ID            string        `json:"id"`
	Policy        log.Retention `json:"policy"`
	Reason        string        `json:"reason"`
	RequestedBy   actorView     `json:"requested_by"`
	RequestedAt   string        `json:"requested_at"`
	TakesEffectAt string        `json:"takes_effect_at"` // at the earliest
	NeedsApproval bool          `json:"needs_approval"`
	ApprovedBy    *actorView    `json:"approved_by,omitempty"`
	ApprovedAt    string        `json:"approved_at,omitempty"`
}

// actorView is who did something.
type actorView struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Name string `json:"name,omitempty"`
}

func viewActor(by log.By) actorView { return actorView{by.ID, by.Type, by.Name} }

// timeText returns the text of a time in µs since 1970 UTC, "" for 0.
func timeText(t int64) string {
	if t == 0 {
		return ""
	}
	return string(log.AppendTime(nil, t))
}

func viewRetention(l *log.Log) retentionView {
	state := l.Retention()
	v := retentionView{Log: l.Name, Policy: state.Policy, Since: timeText(state.Since), Approvers: state.Approvers}
	if v.Approvers == nil {
		v.Approvers = []string{}
	}
	if p := state.Pending; p != nil {
		v.Pending = &pendingView{
			ID: p.ID, Policy: p.Policy, Reason: p.Reason, RequestedBy: viewActor(p.By), RequestedAt: timeText(p.RequestedAt),
			TakesEffectAt: timeText(p.TakesEffectAt), NeedsApproval: p.NeedsApproval, ApprovedAt: timeText(p.ApprovedAt),
		}
		if p.ApprovedBy != nil {
			by := viewActor(*p.ApprovedBy)
			v.Pending.ApprovedBy = &by
		}
	}
	return v
}

func (s *Server) getRetention(w http.ResponseWriter, _ *http.Request, l *log.Log, _ query, _ log.Key) error {
	return writeJSON(w, http.StatusOK, viewRetention(l))
}

// policyInput is a policy as it is set: that of a preset, or ages.
type policyInput struct {
	Preset     string   `json:"preset"`
	Min        *log.Age `json:"min"`
	Max        *log.Age `json:"max"`
	Archive    *bool    `json:"archive"`
	EraseEarly bool     `json:"erase_early"`
	Reason     string   `json:"reason"`
}

// policy returns the policy that is meant.
func (in policyInput) policy() (log.Retention, error) {
	p := log.Retention{Archive: true, EraseEarly: in.EraseEarly}
	switch {
	case in.Preset != "" && (in.Min != nil || in.Max != nil):
		return p, badRequest("the body: a preset says min and max; give it or these")
	case in.Preset != "":
		var err error
		if p, err = log.Preset(in.Preset); err != nil {
			return p, err
		}
		p.EraseEarly = in.EraseEarly
	case in.Max == nil:
		return p, badRequest("the body: for how long is the log to be kept? Give max, such as 1y or forever, or preset")
	default:
		p.Max = *in.Max
		if in.Min != nil {
			p.Min = *in.Min
		}
	}
	if in.Archive != nil {
		p.Archive = *in.Archive
	}
	return p, nil
}

// putRetention changes the policy of a log: at once, or when it was approved and its time has come.
func (s *Server) putRetention(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	var in policyInput
	if err := readAdmin(w, r, &in, "preset", "min", "max", "archive", "erase_early", "reason"); err != nil {
		return err
	}
	policy, err := in.policy()
	if err != nil {
		return err
	}
	pending, err := l.SetRetention(r.Context(), s.by(w, r, key), policy, in.Reason)
	if err != nil {
		return err
	}
	s.logger.Info("retention policy set", "log", l.Name, "pending", pending != nil, "by", key.ID)
	return writeRetention(w, l, pending)
}

// writeRetention answers with what applies: 202 if what was asked for doesn't yet.
func writeRetention(w http.ResponseWriter, l *log.Log, pending *log.RetentionRequest) error {
	status := http.StatusOK
	if pending != nil {
		status = http.StatusAccepted
	}
	return writeJSON(w, status, viewRetention(l))
}

// closeLog ends a log, and asks for its contents to be purged when they have come to the minimum age.
func (s *Server) closeLog(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	var in struct {
		Reason string `json:"reason"`
	}
	if err := readAdmin(w, r, &in, "reason"); err != nil {
		return err
	}
	pending, err := l.Close(r.Context(), s.by(w, r, key), in.Reason)
	if err != nil {
		return err
	}
	s.logger.Info("log closed", "log", l.Name, "by", key.ID)
	return writeRetention(w, l, pending)
}

// approveRetention approves a change that waits, with another key than the one by which it was asked for.
func (s *Server) approveRetention(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	var in struct {
		Request string `json:"request"`
	}
	if err := readAdmin(w, r, &in, "request"); err != nil {
		return err
	}
	if in.Request == "" {
		return badRequest("the body: which request? GET …/retention has its id")
	}
	if err := l.ApproveRetention(r.Context(), s.by(w, r, key), in.Request); err != nil {
		return asRequest(err)
	}
	s.logger.Info("retention policy approved", "log", l.Name, "request", in.Request, "by", key.ID)
	return writeRetention(w, l, l.Retention().Pending)
}

// cancelRetention withdraws a change that waits.
func (s *Server) cancelRetention(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	var in struct {
		Request string `json:"request"`
		Reason  string `json:"reason"`
	}
	if err := readAdmin(w, r, &in, "request", "reason"); err != nil {
		return err
	}
	if in.Request == "" {
		return badRequest("the body: which request? GET …/retention has its id")
	}
	if err := l.CancelRetention(r.Context(), s.by(w, r, key), in.Request, in.Reason); err != nil {
		return asRequest(err)
	}
	s.logger.Info("retention policy cancelled", "log", l.Name, "request", in.Request, "by", key.ID)
	return writeJSON(w, http.StatusOK, viewRetention(l))
}

// asRequest says of what isn't there what it is.
func asRequest(err error) error { return asMissing(err, "pending request") }

// runPatience is how long a run is waited for. It goes on after that.
const runPatience = 60 * time.Second

// running are the logs that a run was asked for and that it goes on with.
type running struct {
	all  sync.WaitGroup
	mu   sync.Mutex
	logs map[log.ID]bool
}

// begin reports whether no run goes on with the log. Then end is to be called.
func (r *running) begin(id log.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.logs[id] {
		return false
	}
	if r.logs == nil {
		r.logs = make(map[log.ID]bool)
	}
	r.logs[id] = true
	r.all.Add(1)
	return true
}

func (r *running) end(id log.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.logs, id)
	r.all.Done()
}

// runRetention has done now what the keeper does once a day, or says what that would be.
func (s *Server) runRetention(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	var in struct {
		DryRun bool `json:"dry_run"`
	}
	if r.ContentLength != 0 {
		if err := readAdmin(w, r, &in, "dry_run"); err != nil {
			return err
		}
	}
	if s.keeper == nil {
		return newProblem(http.StatusServiceUnavailable, "no_keeper", "this server doesn't keep logs by their retention policies; ask one that does")
	}
	if in.DryRun {
		report, err := s.keeper.RunOnce(r.Context(), l, true)
		if err != nil {
			return err
		}
		s.count(w, r, key, l, log.ReadRetention)
		return writeJSON(w, http.StatusOK, report)
	}
	if !s.running.begin(l.ID) {
		return newProblem(http.StatusConflict, "running", "a run over this log is going on; ask for a dry run to see what is left")
	}
	if err := l.TellRetentionRun(r.Context(), s.by(w, r, key)); err != nil {
		s.running.end(l.ID)
		return err
	}
	type outcome struct {
		report *retention.Report
		err    error
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	stop := context.AfterFunc(s.closing, cancel)
	done := make(chan outcome, 1)
	go func() {
		defer s.running.end(l.ID)
		defer cancel()
		defer stop()
		report, err := s.keeper.RunOnce(ctx, l, false)
		done <- outcome{report, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return o.err
		}
		return writeJSON(w, http.StatusOK, o.report)
	case <-time.After(runPatience):
	case <-r.Context().Done():
	}
	return writeJSON(w, http.StatusAccepted, map[string]any{"log": l.Name, "running": true})
}
