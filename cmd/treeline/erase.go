package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// erasePlan is what an erasure would do.
type erasePlan struct {
	Log            string            `json:"log"`
	Size           uint64            `json:"size"`
	Matching       uint64            `json:"matching"`
	Events         uint64            `json:"events"`
	Indices        []uint64          `json:"indices"`
	Claims         map[string]uint64 `json:"claims"`
	Bytes          uint64            `json:"bytes"`
	HeldBy         []string          `json:"held_by"`
	Early          uint64            `json:"early"`
	Archived       []string          `json:"archived"`
	ArchiveProblem string            `json:"archive_problem"`
	Plan           string            `json:"plan"`
}

// maxListed is how many indices people are shown.
const maxListed = 20

func (p erasePlan) print(w io.Writer) error {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	rows := [][]string{
		{"log", p.Log}, {"events of the subject", number(p.Matching)}, {"of which have such claims", number(p.Events)}, {"bytes of values", number(p.Bytes)},
	}
	var indices []string
	for _, i := range p.Indices[:min(len(p.Indices), maxListed)] {
		indices = append(indices, number(i))
	}
	if uint64(len(indices)) < p.Events {
		indices = append(indices, "…")
	}
	rows = append(rows, []string{"their indices", strings.Join(indices, " ")})
	for _, pointer := range slices.Sorted(maps.Keys(p.Claims)) {
		rows = append(rows, []string{pointer, "in " + number(p.Claims[pointer]) + " events"})
	}
	for _, name := range p.Archived {
		rows = append(rows, []string{"archived in", name})
	}
	if p.ArchiveProblem != "" {
		rows = append(rows, []string{"archive", p.ArchiveProblem})
	}
	for _, id := range p.HeldBy {
		rows = append(rows, []string{"FORBIDDEN by hold", id})
	}
	if p.Early > 0 {
		rows = append(rows, []string{"FORBIDDEN by policy", number(p.Early) + " events haven't come to the minimum age"})
	}
	return printTable(w, "", rows)
}

// erasureInfo is what a server tells of an erasure.
type erasureInfo struct {
	ID         string    `json:"id"`
	Log        string    `json:"log"`
	ErasedAt   string    `json:"erased_at"`
	ErasedBy   actorInfo `json:"erased_by"`
	Subject    string    `json:"subject"`
	LegalBasis string    `json:"legal_basis"`
	Reference  string    `json:"reference"`
	Entries    uint64    `json:"entries"`
	Claims     []string  `json:"claims"`
	Events     []struct {
		ID string `json:"id"`
	} `json:"events"`
	Done    bool `json:"done"`
	Removed struct {
		Store   bool `json:"store"`
		Index   bool `json:"index"`
		Files   bool `json:"files"`
		Archive bool `json:"archive"`
	} `json:"removed"`
	Outcome *struct {
		FinishedAt  string   `json:"finished_at"`
		Archive     string   `json:"archive"`
		Bundles     []string `json:"bundles"`
		Unreachable []struct {
			Bundle string `json:"bundle"`
			Until  string `json:"until"`
		} `json:"unreachable"`
	} `json:"outcome"`
}

func (e erasureInfo) state() string {
	switch {
	case e.Done && len(e.Outcome.Unreachable) > 0:
		return "done, but for locked archives"
	case e.Done:
		return "done"
	}
	return "being done"
}

func (e erasureInfo) print(w io.Writer) error {
	rows := [][]string{
		{"erasure", e.ID}, {"log", e.Log}, {"state", e.state()}, {"erased", e.ErasedAt}, {"erased by", e.ErasedBy.text()},
		{"subject found by", e.Subject}, {"legal basis", e.LegalBasis}, {"reference", e.Reference}, {"events", strconv.FormatUint(e.Entries, 10)},
		{"claims", strings.Join(e.Claims, " ")}, {"gone from the store", yesNo(e.Removed.Store)}, {"gone from its index", yesNo(e.Removed.Index)},
		{"gone from its files", yesNo(e.Removed.Files)}, {"gone from the archive", yesNo(e.Removed.Archive && len(e.Outcome.Unreachable) == 0)},
	}
	for _, event := range e.Events {
		rows = append(rows, []string{"recorded by", event.ID})
	}
	if e.Outcome != nil {
		rows = append(rows, []string{"finished", e.Outcome.FinishedAt})
		for _, name := range e.Outcome.Bundles {
			rows = append(rows, []string{"erased in", name})
		}
		for _, u := range e.Outcome.Unreachable {
			rows = append(rows, []string{"LOCKED", strings.TrimSpace(u.Bundle + " until " + u.Until)})
		}
	}
	return printTable(w, "", rows)
}

func newEraseCmd() *cobra.Command {
	var log, actor, email, target, basis, reference string
	var metadata, claims []string
	var dryRun, yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "erase --actor ID --claim POINTER --legal-basis BASIS",
		Short: "Erase claims of a person from all events that are about them",
		Long: `Erase removes the values of claims from all events that match a data subject, for ever: from the log, its index, its files and the archive
copies that can be reached. Their commitments stay, so that everything still verifies and shows what was erased. The log's own event
says which claims of which events, by whom and on what legal basis, and never the values.

It first makes a dry run and prints what would be erased, then asks. What was already handed out, exports and proof files among them,
can't be reached.

A claim is a JSON Pointer, in which * stands for a whole segment: /actor/email, /actor/name, /targets/*/name, /context/ip, /metadata/*.`,
		Example: `  treeline erase --actor user_456 --claim /actor/email --claim /actor/name --legal-basis 'GDPR 17(1)(b)' --reference DSR-1 --log acme`,
		Args:    arguments(0, 0, "none"),
	}
	client := addClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	f.StringVar(&actor, "actor", "", "`ID` of the actor that the events have")
	f.StringVar(&email, "email", "", "`ADDRESS` of the actor that the events have")
	f.StringVar(&target, "target", "", "`ID` of a target that the events have")
	f.StringArrayVar(&metadata, "metadata", nil, "`PATH=VALUE` that the events have in their metadata (repeatable)")
	f.StringArrayVar(&claims, "claim", nil, "`POINTER` of claims to erase (repeatable)")
	f.StringVar(&basis, "legal-basis", "", "the legal basis, as the log is to record it")
	f.StringVar(&reference, "reference", "", "number of the request or ticket, as the log is to record it; nothing personal")
	f.BoolVar(&dryRun, "dry-run", false, "only print what would be erased")
	f.BoolVar(&yes, "yes", false, "don't ask: what is erased is gone for ever")
	f.BoolVar(&asJSON, "json", false, "print the server's answers as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		subject := map[string]string{}
		for name, value := range map[string]string{"actor_id": actor, "actor_email": email, "target_id": target} {
			if value != "" {
				subject[name] = value
			}
		}
		for _, m := range metadata {
			path, value, ok := strings.Cut(m, "=")
			if !ok {
				return fmt.Errorf("--metadata %q: want PATH=VALUE", m)
			}
			subject[metadataField+path] = value
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		in := map[string]any{"subject": subject, "claims": claims, "legal_basis": basis, "reference": reference, "dry_run": true}
		answer, err := postErasure(cmd.Context(), c, log, in)
		if err != nil {
			return fmt.Errorf("erase: %w", err)
		}
		var plan erasePlan
		if err := decodeAnswer(answer, &plan); err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if !dryRun {
			out = cmd.ErrOrStderr()
		}
		if asJSON && dryRun {
			return printJSON(out, json.RawMessage(answer))
		}
		if err := plan.print(out); err != nil || dryRun {
			return err
		}
		if plan.Events == 0 {
			return errors.New("erase: no event of the subject has such claims; nothing was erased")
		}
		if !yes {
			if err := confirm(cmd, fmt.Sprintf("This erases claims of %d events of log %s for ever", plan.Events, plan.Log), plan.Log); err != nil {
				return fmt.Errorf("erase: %w", err)
			}
		}
		delete(in, "dry_run")
		in["plan"] = plan.Plan
		if answer, err = postErasure(cmd.Context(), c, log, in); err != nil {
			return fmt.Errorf("erase: %w", err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), json.RawMessage(answer))
		}
		var e erasureInfo
		if err := decodeAnswer(answer, &e); err != nil {
			return err
		}
		return e.print(cmd.OutOrStdout())
	}
	return cmd
}

func postErasure(ctx context.Context, c *client, log string, in map[string]any) ([]byte, error) {
	r, err := jsonRequest(http.MethodPost, "/v1/erasures", in)
	if err != nil {
		return nil, err
	}
	r.query = logQuery(log)
	return c.do(ctx, r)
}

func newErasureCmd() *cobra.Command {
	return newGroupCmd("erasure", "List and show what was erased from a log, and how far that is done", newErasureListCmd(), newErasureShowCmd())
}

func newErasureListCmd() *cobra.Command {
	return newListOfLogCmd("List the erasures of a log", "erasures", "ID\tSTATE\tERASED\tERASED BY\tEVENTS\tCLAIMS\tLEGAL BASIS\tREFERENCE",
		func(item json.RawMessage) ([]string, error) {
			var e erasureInfo
			err := decodeAnswer(item, &e)
			return []string{
				e.ID, e.state(), e.ErasedAt, e.ErasedBy.text(), strconv.FormatUint(e.Entries, 10), strings.Join(e.Claims, " "), e.LegalBasis, e.Reference,
			}, err
		})
}

func newErasureShowCmd() *cobra.Command {
	var log string
	var asJSON bool
	cmd := &cobra.Command{Use: "show ID", Short: "Show an erasure, and how far it is done", Args: arguments(1, 1, "the ID of an erasure")}
	client := addClientFlags(cmd)
	cmd.Flags().StringVar(&log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := &request{method: http.MethodGet, path: "/v1/erasures/" + url.PathEscape(args[0]), query: logQuery(log), repeatable: true}
		if err := aboutOne(cmd, client, r, asJSON, new(erasureInfo)); err != nil {
			return fmt.Errorf("show erasure %s: %w", args[0], err)
		}
		return nil
	}
	return cmd
}
