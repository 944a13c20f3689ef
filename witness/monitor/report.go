package monitor

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
)

// A Verdict says how a check ended. The larger one is the worse, and that of several is the worst. The numbers are the exit codes
// of all commands that verify.
type Verdict int

// What a check can come to.
const (
	Verified   Verdict = 0 // all checked
	Failed     Verdict = 1 // could not be checked: a server is away, the disk is full
	Unverified Verdict = 3 // not verifiable: no pinned key signed it, the quorum is unmet, the log holds back what it signed
	Invalid    Verdict = 4 // malformed, bad signature, hash or chain, something missing
	Diverged   Verdict = 5 // two histories under one key
)

// String returns the verdict as people read it.
func (v Verdict) String() string {
	switch v {
	case Verified:
		return "OK"
	case Failed:
		return "FAILED"
	case Unverified:
		return "NOT_VERIFIABLE"
	case Invalid:
		return "INVALID"
	case Diverged:
		return "DIVERGED"
	}
	return fmt.Sprintf("Verdict(%d)", int(v))
}

// MarshalText is for reports in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// The kinds of problems, which are labels of a metric.
const (
	KindUnreachable = "unreachable" // a server didn't answer, or not with what it has
	KindState       = "state"       // the state couldn't be written
	KindUnsigned    = "unsigned"    // no pinned key has signed the checkpoint
	KindSignature   = "signature"   // malformed checkpoint, wrong origin, or a signature that fails
	KindQuorum      = "quorum"      // the policy isn't met
	KindBehind      = "behind"      // smaller than what was served before, and what lies between isn't there
	KindWithheld    = "withheld"    // a witness has long had a larger checkpoint
	KindMissing     = "missing"     // something that a signed checkpoint implies isn't served
	KindEntries     = "entries"     // malformed entries, or others than were signed
	KindChain       = "chain"       // signed entries that don't form a chain
	KindGrowth      = "growth"      // the hub doesn't show that a log only grew
	KindWitness     = "witness"     // a witness is away or serves what doesn't verify
	KindDiverged    = "diverged"    // two histories
)

var kinds = []string{
	KindUnreachable, KindState, KindUnsigned, KindSignature, KindQuorum, KindBehind, KindWithheld, KindMissing, KindEntries,
	KindChain, KindGrowth, KindWitness, KindDiverged,
}

// A Problem is one thing that is not as it should be.
type Problem struct {
	Verdict  Verdict `json:"verdict"`
	Kind     string  `json:"kind"`
	Detail   string  `json:"detail"`
	Evidence string  `json:"evidence,omitempty"` // the file that tells it all; others that belong to it lie beside it
	Notice   string  `json:"-"`                  // that file's content, for whoever should see it at once
}

// Error makes a Problem the error of a step that ends with it.
func (p *Problem) Error() string { return p.Detail }

func problem(v Verdict, kind, format string, args ...any) *Problem {
	return &Problem{Verdict: v, Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// asProblem returns the Problem that an error is, or what an error of reading means for something that a signed checkpoint
// implies.
func asProblem(err error) *Problem {
	p, ok := errors.AsType[*Problem](err)
	switch {
	case ok:
		return p
	case errors.Is(err, errMissing):
		return problem(Invalid, KindMissing, "the checkpoint implies what isn't there: %v", err)
	case errors.Is(err, errMalformed):
		return problem(Invalid, KindEntries, "%v", err)
	}
	return problem(Failed, KindUnreachable, "%v", err)
}

// A WitnessReport is what came of comparing the log with what one witness serves.
type WitnessReport struct {
	Witness string `json:"witness"` // its key, <name>+<hash>
	Result  string `json:"result"`  // one of the Witness… constants
	Size    uint64 `json:"size"`    // of the checkpoint that it serves
	Detail  string `json:"detail,omitempty"`
}

// What comparing with a witness can come to.
const (
	WitnessSame        = "same"        // the log's newest checkpoint, or a tree that this one extends
	WitnessAhead       = "ahead"       // a larger one, which will be compared when the log shows that many entries
	WitnessUnknown     = "unknown"     // it doesn't know the log
	WitnessUnreachable = "unreachable" // no answer
	WitnessGarbage     = "garbage"     // no checkpoint that log and witness have signed
	WitnessUnchecked   = "unchecked"   // what the comparison needs couldn't be read from the log
	WitnessDiverged    = "diverged"    // another history
)

var witnessResults = []string{
	WitnessSame, WitnessAhead, WitnessUnknown, WitnessUnreachable, WitnessGarbage, WitnessUnchecked, WitnessDiverged,
}

// A LogReport is what a round found out about a log.
type LogReport struct {
	URL          string          `json:"url"`
	Origin       string          `json:"origin"`
	Kind         Kind            `json:"kind"`
	Verdict      Verdict         `json:"verdict"`
	FirstContact bool            `json:"first_contact,omitempty"` // nothing was known of it: trusted on first use, though every entry was read
	Served       uint64          `json:"served"`                  // size of the checkpoint that is served
	Size         uint64          `json:"size"`                    // of the largest checkpoint that was ever verified
	Root         string          `json:"root,omitempty"`          // of that
	Read         uint64          `json:"read"`                    // entries read and hashed in this round
	Quorum       *bool           `json:"quorum,omitempty"`        // whether the served checkpoint meets the policy; null without one, or if a hub that may tell is away
	ByHub        bool            `json:"by_hub,omitempty"`        // it does so as a hub has it, for which the policy is met
	Missing      []string        `json:"missing,omitempty"`       // witnesses of the policy that haven't cosigned it
	Witnesses    []WitnessReport `json:"witnesses,omitempty"`
	Problems     []*Problem      `json:"problems,omitempty"`

	fetched bool                  // a checkpoint was served and verified
	taken   bool                  // and all that it implies was read
	served  checkpoint.Checkpoint // that one
	lacks   []checkpoint.Witness  // who would meet the policy, if cosignatures of it don't
	hubSays []hubSays
}

func (r *LogReport) add(p *Problem) {
	r.Problems = append(r.Problems, p)
	r.Verdict = max(r.Verdict, p.Verdict)
}

// follows takes up from the report of a check that came before, in the same round, what this one doesn't take back: only a server that
// couldn't be read then may have been now.
func (r *LogReport) follows(before *LogReport) {
	r.FirstContact, r.Read = before.FirstContact, r.Read+before.Read
	for _, p := range before.Problems {
		again := func(q *Problem) bool {
			return p.Kind == q.Kind && (p.Detail == q.Detail || p.Evidence != "" && p.Evidence == q.Evidence)
		}
		if p.Verdict != Failed && !slices.ContainsFunc(r.Problems, again) {
			r.add(p)
		}
	}
}

// A Report is what one round found out.
type Report struct {
	At      time.Time    `json:"at"`
	Verdict Verdict      `json:"verdict"` // the worst of all
	Logs    []*LogReport `json:"logs"`
}
