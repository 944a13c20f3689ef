package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
)

type fsckOptions struct {
	storeOptions
	logs         []string
	vkeys        []string
	policy       string
	skipContents bool
	index        bool
	json         bool
}

func newFsckCmd() *cobra.Command {
	var o fsckOptions
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Re-read and re-hash everything in a store",
		Long: `Re-read and re-hash everything in a store: entries, hash chain, tree, every checkpoint with its signature and cosignatures, the
fence, what witnesses have shown against a log, and each event against its entry. It may run beside a server, and writes nothing.

Signatures are checked under --vkey, or under the keys that the seed file derives. With neither, the keys that the store
itself names are used, which proves less: exit 3.

Exit codes: 0 all checked; 1 could not run; 3 no pinned keys, or no fence; 4 something is damaged; 5 the store is behind its fence, or
another history than what was signed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fsck(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	o.storeOptions.register(f)
	f.StringArrayVar(&o.logs, "log", nil, "check only the log of this name (repeatable)")
	f.StringArrayVar(&o.vkeys, "vkey", nil, "`VKEY` to check signatures under (repeatable)")
	f.StringVar(&o.policy, "policy", "", "`FILE` that names the witnesses whose cosignatures are to be checked (C2SP tlog-policy)")
	f.BoolVar(&o.skipContents, "skip-contents", false, "check entries, chain, tree and checkpoints, not the events themselves")
	f.BoolVar(&o.index, "index", false, "build the search index in memory and compare it with the stored one, too")
	f.BoolVar(&o.json, "json", false, "print the report as JSON")
	return cmd
}

// fsckResult is what fsck prints.
type fsckResult struct {
	Result  string            `json:"result"`
	Logs    []*log.FsckReport `json:"logs"`
	Missing []string          `json:"missing,omitempty"` // origins that the fence knows and the store doesn't
	Indexes []fsckIndex       `json:"indexes,omitempty"` // of logs, if they were to be checked
}

// fsckIndex is what fsck found out about the search index of a log.
type fsckIndex struct {
	Log     string `json:"log"`
	Indexed uint64 `json:"indexed"`           // events that are indexed as they should be
	Problem string `json:"problem,omitempty"` // what is wrong with the next
}

// checkIndex compares the stored search index of a log with its record. A wrong index is no fault of the record, but searches err.
func (r *fsckResult) checkIndex(ctx context.Context, store log.Reader, info log.Info, stderr io.Writer) error {
	bar := newProgress(stderr, -1, "index of log "+info.Name)
	n, err := log.CheckIndex(ctx, store, info, func(n int) { bar.add(int64(n)) })
	bar.finish()
	x := fsckIndex{Log: info.Name, Indexed: n}
	if errors.Is(err, log.ErrDamaged) {
		x.Problem, err = err.Error(), nil
	}
	r.Indexes = append(r.Indexes, x)
	return err
}

func fsck(ctx context.Context, o fsckOptions, stdout, stderr io.Writer) error {
	fence, err := o.readFence(ctx)
	if err != nil {
		return err
	}
	if fence != nil {
		defer fence.Close()
	}
	// The fence's list before the store's: a log that is made meanwhile is in neither or in the second alone.
	var fenced []string
	if fence != nil {
		if fenced, err = fence.Origins(ctx); err != nil {
			return err
		}
	}
	store, err := o.openReader(ctx)
	if errors.Is(err, log.ErrDamaged) {
		return &verdict{exitInvalid, fmt.Sprintf("the store can't be read: %v", err)}
	}
	if err != nil {
		return err
	}
	defer store.Close()
	infos, err := store.Logs(ctx)
	if errors.Is(err, log.ErrDamaged) {
		return &verdict{exitInvalid, fmt.Sprintf("the list of logs can't be read: %v", err)}
	}
	if err != nil {
		return err
	}
	var result fsckResult
	if len(o.logs) == 0 {
		for _, origin := range fenced {
			if !slices.ContainsFunc(infos, func(i log.Info) bool { return i.Origin == origin }) {
				result.Missing = append(result.Missing, origin)
			}
		}
	}
	for _, name := range o.logs {
		if !slices.ContainsFunc(infos, func(i log.Info) bool { return i.Name == name }) {
			return fmt.Errorf("the store has no log %q", name)
		}
	}
	keys, err := o.pinnedKeys()
	if err != nil {
		return err
	}
	policy, err := optionalPolicy(o.policy)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if len(o.logs) > 0 && !slices.Contains(o.logs, info.Name) {
			continue
		}
		verifiers, err := keys(info)
		if err != nil {
			return err
		}
		opt := log.FsckOptions{Verifiers: verifiers, Policy: policy, SkipContents: o.skipContents}
		if fence != nil {
			opt.Fence = fence
		}
		bar := progress{}
		if head, err := store.Head(ctx, info.ID); err == nil {
			passes := int64(2)
			if o.skipContents {
				passes = 1
			}
			bar = newProgress(stderr, passes*int64(head.Size), "log "+info.Name)
		}
		opt.Progress = func(n int) { bar.add(int64(n)) }
		report, err := log.Fsck(ctx, store, info, opt)
		bar.finish()
		if err != nil {
			return err
		}
		result.Logs = append(result.Logs, report)
		if o.index {
			if err := result.checkIndex(ctx, store, info, stderr); err != nil {
				return err
			}
		}
	}
	code := result.judge(fence != nil, o)
	if o.json {
		out, err := json.MarshalIndent(result, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s\n", out)
	} else {
		result.print(stdout, o)
	}
	if code != exitOK {
		return &verdict{code, "fsck: " + result.Result}
	}
	return nil
}

// judge sets the result, and returns its exit code: the worst of what was found.
func (r *fsckResult) judge(fenced bool, o fsckOptions) int {
	code := exitOK
	r.Result = "all checked"
	if o.skipContents {
		r.Result = "entries, chain, tree and checkpoints checked; events not read"
	}
	if !fenced {
		code = exitUnverified
		r.Result = fmt.Sprintf("consistent, but there is no fence at %s: this could be an older copy of the store", o.fencePath())
	}
	for _, l := range r.Logs {
		if !l.Pinned && code == exitOK {
			code = exitUnverified
			r.Result = "consistent, but no pinned key was given and no seed file found: the store vouches for itself"
		}
	}
	for _, x := range r.Indexes {
		if x.Problem != "" {
			code = exitInvalid
			r.Result = "INVALID: a search index is not what the record gives; run `treeline reindex`"
		}
	}
	for _, l := range r.Logs {
		if len(l.Problems) > 0 {
			code = exitInvalid
			r.Result = "INVALID: something is missing or was changed"
		}
	}
	if r.diverged() {
		code = exitDiverged
		r.Result = "DIVERGED: the store is not the history that was signed and fenced"
	}
	return code
}

func (r *fsckResult) diverged() bool {
	for _, l := range r.Logs {
		for _, p := range l.Problems {
			if p.Kind == log.KindDiverged {
				return true
			}
		}
	}
	return len(r.Missing) > 0
}

func (r *fsckResult) print(w io.Writer, o fsckOptions) {
	for _, origin := range r.Missing {
		fmt.Fprintf(w, "log %s: MISSING: the fence records its checkpoints, the store doesn't have it\n", origin)
	}
	for _, l := range r.Logs {
		fmt.Fprintf(w, "log %s: %d entries, %d checkpoints up to size %d", l.Log, l.Size, l.Checkpoints, l.Signed)
		if l.Frozen {
			fmt.Fprint(w, ", frozen")
		}
		if l.Cosigned+l.Uncheckable > 0 {
			fmt.Fprintf(w, ", %d cosignatures checked, %d by witnesses that no --policy names", l.Cosigned, l.Uncheckable)
		}
		if o.skipContents {
			fmt.Fprint(w, "; events not read\n")
		} else {
			fmt.Fprintf(w, ", %d events re-hashed%s\n", l.Contents, removedText(l.Purged, l.Erased))
		}
		fmt.Fprintf(w, "  root of the entries: %s\n", l.Root)
		for _, p := range l.Problems {
			fmt.Fprintf(w, "  %s at entry %d: %s\n", strings.ToUpper(p.Kind), p.Index, printable(p.What, ""))
		}
		if l.Truncated {
			fmt.Fprintln(w, "  and more")
		}
	}
	for _, x := range r.Indexes {
		fmt.Fprintf(w, "log %s: the search index of %d events is what their record gives\n", x.Log, x.Indexed)
		if x.Problem != "" {
			fmt.Fprintf(w, "  INDEX after event %d: %s\n", x.Indexed, printable(x.Problem, ""))
		}
	}
	fmt.Fprintln(w, r.Result)
}

// pinnedKeys returns a function that gives the verifiers which the caller trusts for a log: those of --vkey, or those that
// the seed derives; none if there is no seed.
func (o fsckOptions) pinnedKeys() (func(log.Info) ([]note.Verifier, error), error) {
	if len(o.vkeys) > 0 {
		pinned, err := parseVKeys(o.vkeys)
		return func(info log.Info) (mine []note.Verifier, _ error) {
			for _, v := range pinned {
				if v.Name() == info.Origin {
					mine = append(mine, v)
				}
			}
			return mine, nil
		}, err
	}
	seed, err := checkpoint.LoadSeed(o.seedPath())
	if errors.Is(err, os.ErrNotExist) {
		return func(log.Info) ([]note.Verifier, error) { return nil, nil }, nil
	}
	return func(info log.Info) ([]note.Verifier, error) {
		_, vkey, err := seed.Ed25519(info.Origin, 0)
		if err != nil {
			return nil, err
		}
		vkeys := []string{vkey}
		// A log has this one only once the server was told to sign with it.
		if _, vkey, err := seed.MLDSA44(info.Origin, 0); err != nil {
			return nil, err
		} else if slices.Contains(info.VKeys, vkey) {
			vkeys = append(vkeys, vkey)
		}
		return parseVKeys(vkeys)
	}, err
}

// parseVKeys returns the verifiers of verifier-key strings.
func parseVKeys(vkeys []string) ([]note.Verifier, error) {
	var out []note.Verifier
	for _, vkey := range vkeys {
		v, err := checkpoint.NewVerifier(vkey)
		if err != nil {
			return nil, withHint(fmt.Errorf("--vkey: %w", err),
				"want NAME+HASH+KEY, whole and unchanged, as treeline log create and log show print it")
		}
		out = append(out, v)
	}
	return out, nil
}

// verdict is the error of a command that could do its work and found that not all is well.
type verdict struct {
	code int
	text string
}

func (v *verdict) Error() string { return v.text }

// ExitCode is the exit code that stands for the verdict.
func (v *verdict) ExitCode() int { return v.code }

// removedText says how many events were purged, and of how many claims were erased, as the log's own events say; "" if of none.
func removedText(purged, erased uint64) (text string) {
	if erased > 0 {
		text = fmt.Sprintf(", %d of them without erased claims", erased)
	}
	if purged > 0 {
		text += fmt.Sprintf(", %d purged", purged)
	}
	return text
}
