package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
)

// maxProofFile is more than the largest proof file there can be, in bytes. More isn't read.
const maxProofFile = int64(checkpoint.MaxHubProofSize) + 1

func newVerifyCmd() *cobra.Command {
	var vkeys, removals []string
	var policy string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Verify a proof file or an evidence bundle, offline",
		Long: `Verify a proof file (.tlog-proof) offline, with nothing but the file and the verifier key of the log, and print the event,
who signed, and when it was received. FILE may be - for standard input.

Get the key from whoever you would believe about it, not from the file: with no --vkey the file is checked to be consistent,
which anybody's forgery can be, and the exit code is 3.

A --policy (C2SP tlog-policy) names logs that are trusted besides, and the witnesses of whom a quorum must have cosigned the
checkpoint. The proof is then "witnessed", not only "signed": the operator can't have shown somebody else another history without
these witnesses. If the quorum isn't met, the exit code is 3 and the names of those missing are printed; see also treeline policy check.

FILE may be a hub proof (.hub-proof) as well, which is told from its first line. Then --vkey is the key of the log, and --policy that of
the hub: a log line with the hub's key, the witnesses and their quorum. Neither says anything of the other part. If the log's keys
were rotated give its first key, too, since the hub calls the log by that. The proof is then "hub-witnessed": if the operator showed
somebody else another history of the log, the hub's monitors would find that, though the witnesses themselves don't look at it.

FILE may be an evidence bundle (.zip), too, which is told from its first bytes. All events in it are checked, and that those which
follow upon each other are chained; the events themselves are in the file, and are not printed.

What a file doesn't show of an event is called purged or erased only if that is proven: by the proof of the log's own event that tells
of it, which a bundle may have in it, or which is given with --removal. Such an event is known by its id, which a server answers with
whoever asks for what is gone; get its proof with treeline proof. What is not shown without such a proof may be withheld by whoever
made the file, or lost: then the exit code is 3 if nothing of an event is shown.

Exit codes: 0 VALID; 1 could not run; 3 not verifiable; 4 INVALID.`,
		Args: arguments(1, 1, "the proof file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return verify(args[0], vkeys, policy, removals, asJSON, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringArrayVar(&vkeys, "vkey", nil, "`VKEY` of the log, NAME+HASH+KEY (repeatable)")
	cmd.Flags().StringVar(&policy, "policy", "", "`FILE` of the policy that says which logs and witnesses are trusted")
	cmd.Flags().StringArrayVar(&removals, "removal", nil, "`PROOF` file of an event of the log that tells what was purged or erased (repeatable)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// verification is what verify prints as JSON.
type verification struct {
	Result     string          `json:"result"` // VALID, NOT_VERIFIABLE or INVALID
	Reason     string          `json:"reason,omitempty"`
	Origin     string          `json:"origin,omitempty"`
	Index      *uint64         `json:"index,omitempty"`
	Size       uint64          `json:"size,omitempty"`
	Root       string          `json:"root,omitempty"`
	Hash       string          `json:"hash,omitempty"`
	ReceivedAt string          `json:"received_at,omitempty"`
	Event      json.RawMessage `json:"event,omitempty"`
	Claims     []claim         `json:"claims,omitempty"`    // instead of the event, where some are withheld or erased
	PurgedBy   *log.Ref        `json:"purged_by,omitempty"` // instead of both
	State      string          `json:"state,omitempty"`     // signed, or witnessed or hub-witnessed if a policy is met
	SignedBy   []string        `json:"signed_by,omitempty"`
	Witnesses  []testimony     `json:"witnesses,omitempty"` // of the policy
	NotChecked []string        `json:"signatures_not_checked,omitempty"`
	Hub        *hubPart        `json:"hub,omitempty"` // of a hub proof
}

// hubPart is what the second part of a hub proof says: that the log's checkpoint is in the hub.
type hubPart struct {
	Origin     string      `json:"origin"`
	Index      uint64      `json:"index"`
	Size       uint64      `json:"size"`
	Root       string      `json:"root"`
	State      string      `json:"state,omitempty"` // signed, or witnessed if the policy is met
	SignedBy   []string    `json:"signed_by,omitempty"`
	Witnesses  []testimony `json:"witnesses,omitempty"`
	NotChecked []string    `json:"signatures_not_checked,omitempty"`
}

// claim is one claim of an event that is not shown whole.
type claim struct {
	Pointer  string          `json:"pointer"`
	Value    json.RawMessage `json:"value,omitempty"`
	Withheld bool            `json:"withheld,omitempty"`
	ErasedBy *log.Ref        `json:"erased_by,omitempty"`
}

// testimony is what one of a policy's witnesses says.
type testimony struct {
	Name  string `json:"name"`  // in the policy
	Key   string `json:"key"`   // name and hash of its key
	State string `json:"state"` // cosigned, missing, or why its cosignature doesn't count
	At    string `json:"at,omitempty"`
}

func verify(path string, vkeys []string, policyPath string, removals []string, asJSON bool, stdin io.Reader, stdout io.Writer) error {
	var trust log.Trust
	var err error
	if trust.Keys, err = parseVKeys(vkeys); err != nil {
		return err
	}
	if policyPath != "" {
		if trust.Policy, err = readPolicy(policyPath); err != nil {
			return err
		}
	}
	file := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		file = f
	}
	start := bufio.NewReader(file)
	if head, _ := start.Peek(len(bundle.Signature)); string(head) == bundle.Signature {
		if trust.Removals, err = readRemovals(removals, trust); err != nil {
			return err
		}
		return verifyBundle(path, start, trust, asJSON, stdout)
	}
	data, err := io.ReadAll(io.LimitReader(start, maxProofFile))
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	ofLog := trust
	if checkpoint.IsHubProof(data) { // then the policy is the hub's
		ofLog.Policy = nil
	}
	if trust.Removals, err = readRemovals(removals, ofLog); err != nil {
		return err
	}
	// Of a file that is too long only the beginning, which is malformed.
	var v *log.Verification
	if checkpoint.IsHubProof(data) {
		v, err = log.VerifyHubProof(data, log.HubTrust{Keys: vkeys, Policy: trust.Policy, Removals: trust.Removals})
	} else {
		v, err = log.VerifyProof(data, trust)
	}
	result := describe(v)
	var code int
	if result.Result, result.Reason, code = judge(err); code == exitFailure {
		return err
	}
	if code == exitUnverified {
		if v.Hub != nil {
			result.Reason = strings.ReplaceAll(result.Reason, "\n", "; ") + fmt.Sprintf("; it is of log %s in the hub %s: "+
				"give the log's key with --vkey, and the hub's with its witnesses in --policy", v.Origin, v.Hub.Origin)
		} else if errors.Is(err, log.ErrNotPinned) && trust.Policy != nil {
			result.Reason += fmt.Sprintf("; it is of log %s, see that the policy has that log, or give its key with --vkey", v.Origin)
		} else if errors.Is(err, log.ErrNotPinned) && len(vkeys) == 0 {
			result.Reason = "consistent, but not pinned: give the log's verifier key with --vkey to know who signed it"
		} else if errors.Is(err, log.ErrNotPinned) {
			result.Reason += fmt.Sprintf("; it is of log %s, see that --vkey is that log's key", v.Origin)
		}
	}
	if code == exitInvalid && !isProof(data) && !checkpoint.IsHubProof(data) {
		result.Reason += "; only what treeline proof saves, and export as a bundle, can be verified, and this begins like neither"
	}
	return report(path, result.Result, result.Reason, code, &result, asJSON, stdout)
}

// readRemovals reads the proofs of what was removed from logs. One that isn't VALID decides how the command ends.
func readRemovals(paths []string, trust log.Trust) (*log.Removals, error) {
	all := new(log.Removals)
	for _, path := range paths {
		proof, err := readLimited(path, int64(checkpoint.MaxProofSize)+1, nil)
		if err != nil {
			return nil, err
		}
		_, err = all.Add(proof, trust)
		if result, why, code := judge(err); code == exitFailure {
			return nil, err
		} else if code != exitOK {
			return nil, &verdict{code, fmt.Sprintf("verify --removal %s: %s: %s", path, result, strings.ReplaceAll(why, "\n", "; "))}
		}
	}
	return all, nil
}

// judge returns what an error of a verification comes to; exitFailure is for one that says nothing about what was verified.
func judge(err error) (result, why string, code int) {
	switch {
	case err == nil:
		return "VALID", "", exitOK
	case errors.Is(err, log.ErrInvalidProof):
		return "INVALID", reason(err, log.ErrInvalidProof), exitInvalid
	case errors.Is(err, log.ErrNotVerifiable):
		return "NOT_VERIFIABLE", reason(err, log.ErrNotVerifiable), exitUnverified
	}
	return "", "", exitFailure
}

// report prints a result, and returns the error that the command ends with.
func report(path, result, why string, code int, full interface{ print(io.Writer) }, asJSON bool, stdout io.Writer) error {
	if asJSON {
		out, err := json.MarshalIndent(full, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s\n", out)
	} else {
		full.print(stdout)
	}
	if code != exitOK {
		return &verdict{code, fmt.Sprintf("verify %s: %s: %s", path, result, why)}
	}
	return nil
}

// reason returns what an error says besides its kind, which the result says.
func reason(err, kind error) string {
	return strings.TrimPrefix(err.Error(), kind.Error()+": ")
}

// describe returns what a verification says; of an invalid proof that is nothing.
func describe(v *log.Verification) verification {
	if v == nil {
		return verification{}
	}
	out := verification{
		Origin: v.Origin, Index: &v.Index, Size: v.Size, Root: v.Root.String(),
		State: string(v.State), NotChecked: keyNames(v.Unchecked),
	}
	out.SignedBy, out.Witnesses = signers(v)
	if h := v.Hub; h != nil {
		out.Hub = &hubPart{
			Origin: h.Origin, Index: h.Index, Size: h.Size, Root: h.Root.String(),
			State: string(h.State), NotChecked: keyNames(h.Unchecked),
		}
		out.Hub.SignedBy, out.Hub.Witnesses = signers(h)
	}
	if v.Disclosure == nil {
		return out
	}
	out.Hash = v.Leaf.String()
	out.ReceivedAt = string(log.AppendTime(nil, v.Disclosure.ReceivedAt))
	out.Event = v.Event()
	out.PurgedBy = v.PurgedBy
	for _, c := range v.Disclosure.Claims {
		shown := claim{Pointer: c.Pointer, Value: c.Value}
		if by, erased := v.ErasedBy[c.Pointer]; erased {
			shown.ErasedBy = &by
		} else {
			shown.Withheld = c.Withheld()
		}
		out.Claims = append(out.Claims, shown)
	}
	return out
}

// signers returns who has signed, the witnesses of the policy apart.
func signers(v *log.Verification) (signedBy []string, testimonies []testimony) {
	witnesses := make(map[string]bool)
	for _, t := range v.Witnesses {
		witnesses[t.Witness.Key()] = true
		testimonies = append(testimonies, testimony{t.Witness.Name, t.Witness.Key(), string(t.State), rfc3339(t.At)})
	}
	for _, key := range keyNames(v.Verified) {
		if !witnesses[key] {
			signedBy = append(signedBy, key)
		}
	}
	return signedBy, testimonies
}

func keyNames(sigs []log.Signature) (names []string) {
	for _, s := range sigs {
		names = append(names, checkpoint.KeyID(s.Name, s.ID))
	}
	return names
}

func (v verification) print(w io.Writer) {
	fmt.Fprintln(w, v.Result)
	if v.Index == nil {
		return
	}
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-12s %s\n", name, printable(fmt.Sprintf(format, args...), ""))
	}
	row("log", "%s", v.Origin)
	row("entry", "%d of %d", *v.Index, v.Size)
	if v.Hash != "" {
		row("hash", "%s", v.Hash)
		row("received", "%s, by the log's clock", v.ReceivedAt)
	}
	signed := func(by []string, witnesses []testimony) {
		for _, s := range by {
			row("signed by", "%s", s)
		}
		for _, t := range witnesses {
			if t.State == string(checkpoint.Cosigned) {
				row("cosigned by", "%s on %s (%s)", t.Name, t.At, t.Key)
			} else {
				row("witness", "%s: %s (%s)", t.Name, strings.TrimSpace(t.State+" "+t.At), t.Key)
			}
		}
	}
	signed(v.SignedBy, v.Witnesses)
	if v.Hub != nil {
		row("hub", "%s", v.Hub.Origin)
		row("hub entry", "%d of %d", v.Hub.Index, v.Hub.Size)
		signed(v.Hub.SignedBy, v.Hub.Witnesses)
	}
	if v.State != "" {
		row("state", "%s", v.State)
	}
	for _, s := range v.NotChecked {
		row("not checked", "signature of %s", s)
	}
	if v.Hub != nil {
		for _, s := range v.Hub.NotChecked {
			row("not checked", "signature of %s on the hub's checkpoint", s)
		}
	}
	if v.Event != nil {
		row("event", "%s", v.Event)
	}
	if v.PurgedBy != nil {
		row("event", "was purged, by %s (entry %d)", v.PurgedBy.ID, v.PurgedBy.Index)
	}
	for _, c := range v.Claims {
		switch {
		case c.ErasedBy != nil:
			row("claim", "%s was erased, by %s (entry %d)", c.Pointer, c.ErasedBy.ID, c.ErasedBy.Index)
		case c.Withheld:
			row("claim", "%s is withheld", c.Pointer)
		default:
			row("claim", "%s = %s", c.Pointer, c.Value)
		}
	}
}
