package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
)

// maxNote is more than the largest checkpoint with all its cosignatures has, in bytes. More isn't read.
const maxNote = 1 << 20

func newPolicyCmd() *cobra.Command {
	return newGroupCmd("policy", "Explain which logs and witnesses are trusted", newPolicyCheckCmd())
}

func newPolicyCheckCmd() *cobra.Command {
	var vkeys []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check FILE [CHECKPOINT]",
		Short: "Explain a policy, and what it makes of a checkpoint",
		Long: `Check reads a policy (C2SP tlog-policy) strictly and prints how it is understood: the logs, and the quorum as a tree of groups
and witnesses. With a CHECKPOINT, a file with a signed note or - for standard input, it says which witnesses have cosigned it and
when, which are missing, and what would be enough to meet the quorum.

A policy may leave out the logs. Give the key of the checkpoint's log with --vkey then.

Exit codes: 0 the policy is well-formed, and met by the checkpoint; 1 could not run; 3 no known key of the log signed the checkpoint,
or the quorum isn't met; 4 INVALID: the policy or the checkpoint is malformed, or a signature is wrong.`,
		Args: arguments(1, 2, "the policy's file and, optionally, a checkpoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return policyCheck(args, vkeys, asJSON, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringArrayVar(&vkeys, "vkey", nil, "`VKEY` of a log that is trusted besides those of the policy (repeatable)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// policyReport is what policy check prints as JSON.
type policyReport struct {
	Result    string          `json:"result"` // OK, MET, UNMET, NOT_SIGNED or INVALID
	Reason    string          `json:"reason,omitempty"`
	Logs      []policyLog     `json:"logs"`
	Quorum    string          `json:"quorum"`
	Groups    []policyGroup   `json:"groups"`
	Witnesses []policyWitness `json:"witnesses"`
	Origin    string          `json:"origin,omitempty"` // of the checkpoint, as all that follows
	Size      *uint64         `json:"size,omitempty"`
	Root      string          `json:"root,omitempty"`
	SignedBy  []string        `json:"signed_by,omitempty"`
	Lacks     []string        `json:"lacks,omitempty"` // names of as few witnesses as would be enough
	Unchecked []string        `json:"signatures_not_checked,omitempty"`
}

type policyLog struct {
	Origin string `json:"origin"`
	VKey   string `json:"vkey"`
	URL    string `json:"url,omitempty"`
}

type policyGroup struct {
	Name      string   `json:"name"`
	Threshold int      `json:"threshold"`
	Members   []string `json:"members"`
	Met       *bool    `json:"met,omitempty"`
}

type policyWitness struct {
	Name  string `json:"name"`
	VKey  string `json:"vkey"`
	key   string // name and hash of it
	URL   string `json:"url,omitempty"`
	State string `json:"state,omitempty"`
	At    string `json:"at,omitempty"`
}

func policyCheck(args, vkeys []string, asJSON bool, stdin io.Reader, stdout io.Writer) error {
	logs, err := parseVKeys(vkeys)
	if err != nil {
		return err
	}
	policy, err := readPolicy(args[0])
	problem, malformed := errors.AsType[*checkpoint.PolicyError](err)
	if err != nil && !malformed {
		return err
	}
	report, code := policyReport{Result: "OK"}, exitOK
	var judgement *checkpoint.Judgement
	switch {
	case malformed:
		report, code = policyReport{Result: "INVALID", Reason: problem.Error()}, exitInvalid
	case len(args) == 1:
		report.addPolicy(policy)
	default:
		msg, err := readLimited(args[1], maxNote, stdin)
		if err != nil {
			return err
		}
		report.addPolicy(policy)
		judgement, code = report.judge(policy, msg, logs)
	}
	if asJSON {
		out, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s\n", out)
	} else {
		report.print(stdout, policy, judgement)
	}
	if code != exitOK {
		return &verdict{code, fmt.Sprintf("policy check %s: %s: %s", args[0], report.Result, report.Reason)}
	}
	return nil
}

// readPolicy reads a policy's file. If what is in it is wrong, the error wraps a checkpoint.PolicyError.
func readPolicy(path string) (*checkpoint.Policy, error) {
	data, err := readLimited(path, checkpoint.MaxPolicySize+1, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	policy, err := checkpoint.ParsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", path, err)
	}
	return policy, nil
}

// readLimited reads up to limit bytes of a file or, if there is a standard input and the path is -, of that.
func readLimited(path string, limit int64, stdin io.Reader) ([]byte, error) {
	in := stdin
	if path != "-" || stdin == nil {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, limit))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return data, nil
}

// addPolicy adds what the policy says.
func (r *policyReport) addPolicy(p *checkpoint.Policy) {
	r.Logs, r.Groups, r.Witnesses, r.Quorum = []policyLog{}, []policyGroup{}, []policyWitness{}, p.Quorum
	for _, l := range p.Logs {
		r.Logs = append(r.Logs, policyLog{l.Verifier.Name(), l.VKey, l.URL})
	}
	for _, g := range p.Groups {
		r.Groups = append(r.Groups, policyGroup{Name: g.Name, Threshold: g.Threshold, Members: g.Members})
	}
	for _, w := range p.Witnesses {
		r.Witnesses = append(r.Witnesses, policyWitness{Name: w.Name, VKey: w.VKey, key: w.Key(), URL: w.URL})
	}
}

// judge adds what the policy makes of a checkpoint, and returns that with the exit code.
func (r *policyReport) judge(p *checkpoint.Policy, msg []byte, logs []note.Verifier) (*checkpoint.Judgement, int) {
	j, err := p.Judge(msg, time.Now(), logs...)
	if errors.Is(err, checkpoint.ErrNotSigned) {
		r.Result, r.Reason = "NOT_SIGNED", err.Error()+"; see that the policy has the log, or give its key with --vkey"
		return nil, exitUnverified
	}
	if err != nil {
		r.Result, r.Reason = "INVALID", err.Error()
		return nil, exitInvalid
	}
	c := j.Checkpoint
	r.Origin, r.Size, r.Root, r.SignedBy, r.Unchecked = c.Origin, &c.Size, c.Root.String(), noteKeys(j.Signed), noteKeys(j.Unchecked)
	for i, t := range j.Witnesses {
		r.Witnesses[i].State, r.Witnesses[i].At = string(t.State), rfc3339(t.At)
	}
	for i := range r.Groups {
		met := len(p.LacksIn(r.Groups[i].Name, j.Cosigned)) == 0
		r.Groups[i].Met = &met
	}
	if j.Met {
		r.Result = "MET"
		return j, exitOK
	}
	r.Result, r.Lacks = "UNMET", witnessNames(j.Lacks)
	r.Reason = "the quorum isn't met; it would be with " + strings.Join(r.Lacks, ", ")
	return j, exitUnverified
}

// rfc3339 returns a time as people and machines are shown it, "" for none.
func rfc3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func noteKeys(sigs []note.Signature) (keys []string) {
	for _, s := range sigs {
		keys = append(keys, checkpoint.KeyID(s.Name, s.Hash))
	}
	return keys
}

func witnessNames(witnesses []checkpoint.Witness) (names []string) {
	for _, w := range witnesses {
		names = append(names, w.Name)
	}
	return names
}

// print prints the report for people. The policy is nil if it is malformed, the judgement if there is none.
func (r *policyReport) print(w io.Writer, p *checkpoint.Policy, j *checkpoint.Judgement) {
	defer func() {
		text := r.Result
		if r.Reason != "" {
			text += ": " + r.Reason
		}
		fmt.Fprintln(w, printable(text, ""))
	}()
	if p == nil {
		return
	}
	line := func(depth int, format string, args ...any) {
		fmt.Fprintf(w, "%s%s\n", strings.Repeat("  ", depth), printable(fmt.Sprintf(format, args...), ""))
	}
	if len(p.Logs) == 0 {
		line(0, "logs: none")
	}
	for _, l := range p.Logs {
		line(0, "log %s (key %08x)", l.Verifier.Name(), l.Verifier.KeyHash())
	}
	if j != nil {
		line(0, "checkpoint of %s, size %d, root %v", j.Checkpoint.Origin, j.Checkpoint.Size, j.Checkpoint.Root)
		for _, key := range r.SignedBy {
			line(1, "signed by %s", key)
		}
		for _, key := range r.Unchecked {
			line(1, "not checked: signature of %s", key)
		}
	}
	line(0, "quorum %s", p.Quorum)
	shown := make(map[string]bool)
	r.printNode(line, j, shown, p.Quorum, 1)
	header := "not in the quorum:\n"
	for _, named := range slices.Concat(groupNames(p.Groups), witnessNames(p.Witnesses)) {
		// What belongs to no group is shown with those that do, beneath their outermost group.
		if !shown[named] && !r.isMember(named) {
			fmt.Fprint(w, header)
			header = ""
			r.printNode(line, j, shown, named, 1)
		}
	}
}

func groupNames(groups []checkpoint.Group) (names []string) {
	for _, g := range groups {
		names = append(names, g.Name)
	}
	return names
}

// isMember reports whether a group has a member of the name.
func (r *policyReport) isMember(name string) bool {
	return slices.ContainsFunc(r.Groups, func(g policyGroup) bool { return slices.Contains(g.Members, name) })
}

// printNode prints a witness, or a group with what is in it.
func (r *policyReport) printNode(line func(int, string, ...any), j *checkpoint.Judgement, shown map[string]bool, name string, depth int) {
	shown[name] = true
	if i := slices.IndexFunc(r.Groups, func(g policyGroup) bool { return g.Name == name }); i >= 0 {
		g := r.Groups[i]
		state := ""
		if g.Met != nil {
			state = map[bool]string{true: ": met", false: ": NOT met"}[*g.Met]
		}
		line(depth, "group %s: %d of %d%s", g.Name, g.Threshold, len(g.Members), state)
		for _, member := range g.Members {
			r.printNode(line, j, shown, member, depth+1)
		}
		return
	}
	if i := slices.IndexFunc(r.Witnesses, func(w policyWitness) bool { return w.Name == name }); i >= 0 {
		w := r.Witnesses[i]
		text := fmt.Sprintf("witness %s", w.Name)
		if j != nil {
			text += ": " + w.State
			if w.At != "" {
				text += " " + w.At
			}
		}
		line(depth, "%s (%s)", text, strings.TrimSpace(w.key+" "+w.URL))
	}
}
