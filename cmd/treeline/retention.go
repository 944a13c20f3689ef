package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func newRetentionCmd() *cobra.Command {
	return newGroupCmd("retention", "Show and change for how long a log's contents are kept, and purge what has expired",
		newRetentionShowCmd(), newRetentionSetCmd(), newRetentionApproveCmd(), newRetentionCancelCmd(), newRetentionRunCmd())
}

// retentionPath is the route of a log's retention.
func retentionPath(log string) string { return "/v1/logs/" + url.PathEscape(log) + "/retention" }

// policyInfo is a retention policy.
type policyInfo struct {
	Min        string `json:"min"`
	Max        string `json:"max"`
	Archive    bool   `json:"archive"`
	EraseEarly bool   `json:"erase_early"`
	Preset     string `json:"preset"`
	Closing    bool   `json:"closing"`
}

// text says what a policy does.
func (p policyInfo) text() string {
	var parts []string
	switch {
	case p.Closing:
		parts = append(parts, "purge after "+p.Min+", since the log has ended")
	case p.Max == "forever":
		parts = append(parts, "keep forever")
	default:
		parts = append(parts, "purge after "+p.Max)
	}
	if p.Min != "0d" && !p.Closing {
		parts = append(parts, "keep at least "+p.Min)
	}
	if p.Preset != "" {
		parts = append(parts, "preset "+p.Preset)
	}
	if !p.Archive {
		parts = append(parts, "without an archive")
	}
	if p.EraseEarly {
		parts = append(parts, "erase before that, too")
	}
	return strings.Join(parts, ", ")
}

// actorInfo is who did something.
type actorInfo struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Name string `json:"name"`
}

func (a *actorInfo) text() string {
	if a == nil {
		return ""
	}
	if a.Name == "" {
		return a.ID
	}
	return a.ID + " (" + a.Name + ")"
}

// retentionInfo is what a server tells of a log's retention.
type retentionInfo struct {
	Log       string     `json:"log"`
	Policy    policyInfo `json:"policy"`
	Since     string     `json:"since"`
	Approvers []string   `json:"approvers"`
	Pending   *struct {
		ID            string     `json:"id"`
		Policy        policyInfo `json:"policy"`
		Reason        string     `json:"reason"`
		RequestedBy   actorInfo  `json:"requested_by"`
		RequestedAt   string     `json:"requested_at"`
		TakesEffectAt string     `json:"takes_effect_at"`
		NeedsApproval bool       `json:"needs_approval"`
		ApprovedBy    *actorInfo `json:"approved_by"`
	} `json:"pending"`
}

func (r retentionInfo) print(w io.Writer) error {
	rows := [][]string{
		{"log", r.Log}, {"policy", r.Policy.text()}, {"since", r.Since}, {"approved by", strings.Join(r.Approvers, " ")},
	}
	if p := r.Pending; p != nil {
		approved := p.ApprovedBy.text()
		if approved == "" && p.NeedsApproval {
			approved = "nobody yet: treeline retention approve " + r.Log + " " + p.ID
		}
		rows = append(rows, [][]string{
			{"pending", p.Policy.text()}, {"request", p.ID}, {"reason", p.Reason}, {"asked for by", p.RequestedBy.text()},
			{"asked for at", p.RequestedAt}, {"takes effect", "at " + p.TakesEffectAt + " at the earliest"}, {"approval", approved},
		}...)
	}
	return printTable(w, "", rows)
}

// printRetention prints the server's answer about a log's retention.
func printRetention(cmd *cobra.Command, answer []byte, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), json.RawMessage(answer))
	}
	var r retentionInfo
	if err := decodeAnswer(answer, &r); err != nil {
		return err
	}
	return r.print(cmd.OutOrStdout())
}

// retentionCmd returns a command about the retention of a log, whose request is asked for.
func retentionCmd(use, short, long, args string, n int, flags func(*cobra.Command), ask func(args []string) (*request, error)) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: arguments(n, n, args)}
	client := addClientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	if flags != nil {
		flags(cmd)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		r, err := ask(args)
		if err != nil {
			return err
		}
		answer, err := c.do(cmd.Context(), r)
		if err != nil {
			return fmt.Errorf("%s %s: %w", strings.Fields(use)[0], strings.Join(args, " "), err)
		}
		return printRetention(cmd, answer, asJSON)
	}
	return cmd
}

// jsonRequest returns a request with a JSON body.
func jsonRequest(method, path string, body any) (*request, error) {
	text, err := json.Marshal(body)
	return &request{method: method, path: path, contentType: "application/json", body: text}, err
}

func newRetentionShowCmd() *cobra.Command {
	return retentionCmd("show LOG", "Show for how long a log's contents are kept, and what change of that waits", "", "one LOG", 1, nil,
		func(args []string) (*request, error) {
			return &request{method: http.MethodGet, path: retentionPath(args[0]), repeatable: true}, nil
		})
}

func newRetentionSetCmd() *cobra.Command {
	var in struct {
		Preset     string `json:"preset,omitempty"`
		Min        string `json:"min,omitempty"`
		Max        string `json:"max,omitempty"`
		Archive    bool   `json:"archive"`
		EraseEarly bool   `json:"erase_early"`
		Reason     string `json:"reason"`
	}
	noArchive := false // not --archive, whose variable is that of serve and of commands on an archive
	cmd := retentionCmd("set LOG --max AGE --reason REASON", "Change for how long a log's contents are kept",
		`Set changes the policy of a log. An age is like 30d, 6y, 1y30d or forever, from 30d to 10y, and counted from when an event was received. The
presets are soc2 and pci (1y), hipaa and sec17a4 (6y), and finance (7y): kept for that long, and no longer.

What loses nothing takes effect at once. Anything else, such as a shorter age, or switching archiving off, waits for the server's
cooling-off time, and until it was approved with another key: treeline retention approve.`, "one LOG", 1,
		func(cmd *cobra.Command) {
			f := cmd.Flags()
			f.StringVar(&in.Preset, "preset", "", "soc2, pci, hipaa, sec17a4 or finance, instead of ages")
			f.StringVar(&in.Min, "min", "", "`AGE` before which nothing is purged or erased (default none)")
			f.StringVar(&in.Max, "max", "", "`AGE` at which contents are purged")
			f.BoolVar(&noArchive, "no-archive", false, "purge what isn't archived, too; otherwise only what was archived and verified")
			f.BoolVar(&in.EraseEarly, "erase-early", false, "let claims be erased before --min")
			f.StringVar(&in.Reason, "reason", "", "why, for who reads the log")
		}, func(args []string) (*request, error) {
			in.Archive = !noArchive
			return jsonRequest(http.MethodPut, retentionPath(args[0]), in)
		})
	return cmd
}

func newRetentionApproveCmd() *cobra.Command {
	return retentionCmd("approve LOG REQUEST", "Approve a change that waits",
		`Approve approves a change that was asked for with another key: not with this one, nor with one that this was made or rotated from.`,
		"LOG and REQUEST", 2, nil, func(args []string) (*request, error) {
			return jsonRequest(http.MethodPost, retentionPath(args[0])+"/approve", map[string]string{"request": args[1]})
		})
}

func newRetentionCancelCmd() *cobra.Command {
	var reason string
	return retentionCmd("cancel LOG REQUEST --reason REASON", "Withdraw a change that waits", "", "LOG and REQUEST", 2,
		func(cmd *cobra.Command) { cmd.Flags().StringVar(&reason, "reason", "", "why") },
		func(args []string) (*request, error) {
			return jsonRequest(http.MethodPost, retentionPath(args[0])+"/cancel", map[string]string{"request": args[1], "reason": reason})
		})
}

// runInfo is what a run did, or would do.
type runInfo struct {
	Log     string     `json:"log"`
	DryRun  bool       `json:"dry_run"`
	Running bool       `json:"running"`
	Policy  policyInfo `json:"policy"`
	Expired uint64     `json:"expired"`
	Purged  uint64     `json:"purged"`
	Held    uint64     `json:"held"`
	Bundles []struct {
		Name    string `json:"name"`
		Written bool   `json:"written"`
	} `json:"bundles"`
	Blocked *struct {
		Reason string `json:"reason"`
		Why    string `json:"why"`
	} `json:"blocked"`
	Erasures []string `json:"erasures"`
}

func newRetentionRunCmd() *cobra.Command {
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "run LOG",
		Short: "Purge now what of a log has expired, or see what that would be",
		Long: `Run has the server do now what it does once a day: archive what has expired, read that back and verify it, and purge it. What keeps it
from doing so is printed, and makes the exit code 1.`,
		Args: arguments(1, 1, "one LOG"),
	}
	client := addClientFlags(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		c.http.Timeout = 2 * attemptTimeout // it is waited for so long, and goes on after that
		answer, err := c.postJSON(cmd.Context(), retentionPath(args[0])+"/run", map[string]bool{"dry_run": dryRun})
		if err != nil {
			return fmt.Errorf("run %s: %w", args[0], err)
		}
		var r runInfo
		if err := decodeAnswer(answer, &r); err != nil {
			return err
		}
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), json.RawMessage(answer))
		} else {
			err = r.print(cmd.OutOrStdout())
		}
		if err == nil && r.Blocked != nil {
			err = fmt.Errorf("run %s: %s: %s", args[0], r.Blocked.Reason, r.Blocked.Why)
		}
		return err
	}
	return cmd
}

func (r runInfo) print(w io.Writer) error {
	if r.Running {
		_, err := fmt.Fprintln(w, "the run goes on; see later with: treeline retention run --dry-run "+printable(r.Log, ""))
		return err
	}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	purged := "purged"
	if r.DryRun {
		purged = "would be purged"
	}
	rows := [][]string{
		{"log", r.Log}, {"policy", r.Policy.text()}, {"expired", "before index " + number(r.Expired)},
		{purged, number(r.Purged) + " events"}, {"held", number(r.Held) + " events"},
	}
	for _, b := range r.Bundles {
		rows = append(rows, []string{"archived in", b.Name})
	}
	for _, id := range r.Erasures {
		rows = append(rows, []string{"erasure done", id})
	}
	if r.Blocked != nil {
		rows = append(rows, []string{"BLOCKED", r.Blocked.Reason + ": " + r.Blocked.Why})
	}
	return printTable(w, "", rows)
}

func newLogCloseCmd() *cobra.Command {
	var reason string
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "close LOG --reason REASON",
		Short: "Offboard a log's customer: end the log, and let its contents go when they may",
		Long: `Close is what to do when the customer whose log it is leaves. It freezes the log, as treeline log freeze does, and asks for a policy by which
all its contents are archived and purged as soon as they have come to the minimum age. That waits for the cooling-off time and for
approval, as a shorter age does: treeline retention approve. Entries and proofs stay. Revoke the keys that are no longer needed.`,
		Args: arguments(1, 1, "one LOG"),
	}
	client := addClientFlags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for who reads the log")
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask: this ends the log for ever")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		if reason == "" {
			return withHint(errors.New("close log "+args[0]+": no reason is given"), "give it by --reason, for who reads the log")
		}
		if !yes {
			if err := confirm(cmd, "This ends log "+args[0]+" for ever", args[0]); err != nil {
				return fmt.Errorf("close log %s: %w", args[0], err)
			}
		}
		answer, err := c.postJSON(cmd.Context(), "/v1/logs/"+url.PathEscape(args[0])+"/close", map[string]string{"reason": reason})
		if err != nil {
			return fmt.Errorf("close log %s: %w", args[0], err)
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "It is frozen. Its keys are still good: see treeline key list.")
		return printRetention(cmd, answer, asJSON)
	}
	return cmd
}
