package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
)

// bundleVerification is what verify prints of a bundle as JSON.
type bundleVerification struct {
	Result     string      `json:"result"` // VALID, NOT_VERIFIABLE or INVALID
	Reason     string      `json:"reason,omitempty"`
	Origin     string      `json:"origin,omitempty"`
	Size       uint64      `json:"size,omitempty"`
	Root       string      `json:"root,omitempty"`
	From       *uint64     `json:"from,omitempty"`
	To         *uint64     `json:"to,omitempty"`
	Filter     string      `json:"filter,omitempty"` // the word of whoever made the bundle
	Count      *uint64     `json:"count,omitempty"`
	Complete   bool        `json:"complete"` // all events from From up to To are there
	First      string      `json:"first_received_at,omitempty"`
	Last       string      `json:"last_received_at,omitempty"`
	Partial    uint64      `json:"events_with_withheld_claims,omitempty"`
	Withheld   []string    `json:"withheld_claims,omitempty"`
	Erased     uint64      `json:"events_with_erased_claims,omitempty"`
	Claims     []string    `json:"erased_claims,omitempty"`
	Purged     uint64      `json:"events_purged,omitempty"`
	NotShown   uint64      `json:"events_not_shown,omitempty"`
	RemovedBy  []log.Ref   `json:"removed_by,omitempty"` // the events that prove what was erased and purged
	Manifest   string      `json:"manifest_sha256,omitempty"`
	State      string      `json:"state,omitempty"` // signed, or witnessed if a policy is met
	SignedBy   []string    `json:"signed_by,omitempty"`
	Witnesses  []testimony `json:"witnesses,omitempty"`
	NotChecked []string    `json:"signatures_not_checked,omitempty"`
}

func verifyBundle(path string, file io.Reader, trust log.Trust, asJSON bool, stdout io.Writer) error {
	v, err := bundle.Verify(file, trust)
	result := describeBundle(v)
	var code int
	if result.Result, result.Reason, code = judge(err); code == exitFailure {
		return err
	}
	if errors.Is(err, log.ErrNotPinned) {
		result.Reason = strings.ReplaceAll(result.Reason, "\n", "; ") +
			fmt.Sprintf("; it is of log %s: give that log's key with --vkey, or a --policy that has it", v.Checkpoint.Origin)
	}
	return report(path, result.Result, result.Reason, code, &result, asJSON, stdout)
}

// describeBundle returns what a verification says; of an invalid bundle that is nothing.
func describeBundle(v *bundle.Verification) bundleVerification {
	if v == nil {
		return bundleVerification{}
	}
	c := v.Checkpoint
	out := bundleVerification{
		Origin: c.Origin, Size: c.Size, Root: c.Root.String(), From: &v.From, To: &v.To, Filter: v.Filter, Count: &v.Count, Complete: v.Complete,
		Partial: v.Partial, Withheld: v.Withheld, NotShown: v.NotShown, Manifest: hex.EncodeToString(v.Manifest[:]),
		Erased: v.Erased, Claims: v.ErasedClaims, Purged: v.Purged, RemovedBy: v.RemovedBy,
		State: string(c.State), NotChecked: keyNames(c.Unchecked),
	}
	if v.Count > 0 {
		out.First, out.Last = string(log.AppendTime(nil, v.FirstReceived)), string(log.AppendTime(nil, v.LastReceived))
	}
	out.SignedBy, out.Witnesses = signers(c)
	return out
}

func (v *bundleVerification) print(w io.Writer) {
	fmt.Fprintln(w, v.Result)
	if v.Count == nil {
		return
	}
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-12s %s\n", name, printable(fmt.Sprintf(format, args...), ""))
	}
	row("log", "%s", v.Origin)
	row("checkpoint", "size %d, root %s", v.Size, v.Root)
	row("events", "%d, from index %d up to %d", *v.Count, *v.From, *v.To)
	switch {
	case v.Complete:
		row("complete", "none of these is missing")
	case v.Filter != "":
		row("selection", "%s; that no event of it is missing is the word of whoever made the bundle", v.Filter)
	}
	if v.First != "" {
		row("received", "%s to %s, by the log's clock", v.First, v.Last)
	}
	for _, s := range v.SignedBy {
		row("signed by", "%s", s)
	}
	for _, t := range v.Witnesses {
		if t.State == string(checkpoint.Cosigned) {
			row("cosigned by", "%s on %s (%s)", t.Name, t.At, t.Key)
		} else {
			row("witness", "%s: %s (%s)", t.Name, strings.TrimSpace(t.State+" "+t.At), t.Key)
		}
	}
	if v.State != "" {
		row("state", "%s", v.State)
	}
	for _, s := range v.NotChecked {
		row("not checked", "signature of %s", s)
	}
	if v.Partial > 0 {
		row("withheld", "in %d events: %s", v.Partial, strings.Join(v.Withheld, ", "))
	}
	if v.Erased > 0 {
		row("erased", "in %d events: %s", v.Erased, strings.Join(v.Claims, ", "))
	}
	if v.Purged > 0 {
		row("purged", "%d events", v.Purged)
	}
	for _, by := range v.RemovedBy {
		row("removed by", "%s (entry %d)", by.ID, by.Index)
	}
	if v.NotShown > 0 {
		row("not shown", "%d events, of which nothing proves that they were purged", v.NotShown)
	}
	row("manifest", "%s", v.Manifest)
}
