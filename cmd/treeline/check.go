package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
)

// maxCheckLine is more than the longest line of a verification, in bytes: 20 problems, and a checkpoint with its cosignatures.
const maxCheckLine = 4 << 20

func newCheckCmd() *cobra.Command {
	var name string
	var from, to uint64
	var vkeys []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Have a server verify a log of its own, and print what it found",
		Long: `Have the server read and hash a log again, as fsck does for the operator: entries, hash chain, tree, checkpoints and the events
themselves, and compare all that with the newest signed checkpoint. It goes on as long as this command does, and takes a while: the
server's other work comes first.

  treeline check --log acme --vkey VKEY
  treeline check --log acme --from 100000 --to 200000 --vkey VKEY

The checkpoint that the log was compared with is verified here, under --vkey. All else is the server's own word: the commands that are
printed check the same without it. See treeline audit --help and treeline verify --help.

Exit codes: 0 all checked; 1 could not run, or it broke off; 3 no pinned key, or not by one; 4 INVALID: something is missing or was
changed; 5 DIVERGED: not the history that was signed.`,
		Args: arguments(0, 0, "none"),
	}
	client := addClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&name, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	f.Uint64Var(&from, "from", 0, "`INDEX` of the first entry to check")
	f.Uint64Var(&to, "to", 0, "`INDEX` of the first entry not to check any more (default all that is signed)")
	f.StringArrayVar(&vkeys, "vkey", nil, "`VKEY` of the log, NAME+HASH+KEY (repeatable)")
	f.BoolVar(&asJSON, "json", false, "print the server's result as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		pinned, err := parseVKeys(vkeys)
		if err != nil {
			return err
		}
		query := url.Values{"from": {strconv.FormatUint(from, 10)}}
		if cmd.Flags().Changed("to") {
			query.Set("to", strconv.FormatUint(to, 10))
		}
		if name != "" {
			query.Set("log", name)
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		c.http.Timeout = 0 // it takes as long as it takes; each wait for more of it is bounded
		bar := newProgress(cmd.ErrOrStderr(), -1, "checking")
		answer, err := c.check(cmd.Context(), query, func(checked, of uint64) {
			bar.describe(fmt.Sprintf("checking: %d of %d", checked, of))
		})
		bar.finish()
		if err != nil {
			return fmt.Errorf("check: %w", err)
		}
		var result checkResult
		if err := decodeAnswer(answer, &result); err != nil {
			return err
		}
		code, text := exitOK, "all checked"
		_, _, unsigned := checkpoint.Open([]byte(result.Checkpoint), result.Origin, pinned...)
		switch {
		case result.Verdict == log.KindDiverged:
			code, text = exitDiverged, "DIVERGED: the log is not the history that was signed"
		case result.Verdict != "ok":
			code, text = exitInvalid, "INVALID: something is missing or was changed"
		case len(pinned) == 0:
			code, text = exitUnverified, "the server found nothing wrong, but no pinned key was given: give the log's verifier key with --vkey"
		case unsigned != nil:
			code, text = exitUnverified, fmt.Sprintf("the server found nothing wrong, but its checkpoint doesn't verify under --vkey: %v", unsigned)
		}
		if asJSON {
			if err := printJSON(cmd.OutOrStdout(), json.RawMessage(answer)); err != nil {
				return err
			}
		} else {
			result.print(cmd.OutOrStdout(), text)
		}
		if code != exitOK {
			return &verdict{code, "check: " + text}
		}
		return nil
	}
	return cmd
}

// checkResult is what a server tells of a verification.
type checkResult struct {
	Log     string `json:"log"`
	Origin  string `json:"origin"`
	From    uint64 `json:"from"`
	To      uint64 `json:"to"`
	Verdict string `json:"verdict"`
	Checked struct {
		Entries     uint64 `json:"entries"`
		Contents    uint64 `json:"contents"`
		Chain       uint64 `json:"chain"`
		TreeNodes   uint64 `json:"tree_nodes"`
		Checkpoints uint64 `json:"checkpoints"`
		Purged      uint64 `json:"purged"`
		Erased      uint64 `json:"erased"`
	} `json:"checked"`
	Problems   []log.FsckProblem `json:"problems"`
	Truncated  bool              `json:"truncated"`
	Root       string            `json:"root"`
	Size       uint64            `json:"size"`
	Checkpoint string            `json:"checkpoint"`
	Repeat     struct {
		Commands []string `json:"commands"`
	} `json:"repeat"`
}

func (r *checkResult) print(w io.Writer, text string) {
	fmt.Fprintf(w, "log %s: entries [%d, %d) of the checkpoint of size %d\n", printable(r.Log, ""), r.From, r.To, r.Size)
	fmt.Fprintf(w, "  checked: %d entries, %d links of the chain, %d tree nodes, %d checkpoints, %d events re-hashed%s\n", r.Checked.Entries, r.Checked.Chain,
		r.Checked.TreeNodes, r.Checked.Checkpoints, r.Checked.Contents, removedText(r.Checked.Purged, r.Checked.Erased))
	if r.Root != "" {
		fmt.Fprintf(w, "  root of the first %d entries: %s\n", r.To, printable(r.Root, ""))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "  %s at entry %d: %s\n", printable(strings.ToUpper(p.Kind), ""), p.Index, printable(p.What, ""))
	}
	if r.Truncated {
		fmt.Fprintln(w, "  and more")
	}
	fmt.Fprintln(w, text)
	fmt.Fprintln(w, "To check the same without this server's word, with its URL in SERVER and a key in KEY:")
	for _, command := range r.Repeat.Commands {
		fmt.Fprintf(w, "  %s\n", printable(command, ""))
	}
}

// check has the server verify what the query says, and returns the result as the server sent it. It is asked again only while the
// server hasn't begun.
func (c *client) check(ctx context.Context, query url.Values, progress func(checked, of uint64)) ([]byte, error) {
	began := time.Now()
	for attempt := 1; ; attempt++ {
		answer, after, err := c.checkOnce(ctx, query, progress)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p, answered := errors.AsType[*problem](err)
		pause := max(backoff(attempt), after)
		if !answered || !p.transient() || time.Since(began)+pause > c.retryFor {
			return nil, c.explain(err)
		}
		if c.onRetry != nil {
			c.onRetry(err, pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// checkOnce reads one answer, whose lines come about once a second.
func (c *client) checkOnce(ctx context.Context, query url.Values, progress func(checked, of uint64)) (answer []byte, after time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(attemptTimeout, func() { cancel(errSilent) })
	defer silence.Stop()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	res, err := c.open(ctx, &request{method: http.MethodGet, path: "/v1/verify", query: query})
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		if err != nil {
			return nil, 0, fmt.Errorf("read the server's answer: %w", err)
		}
		return nil, retryAfter(res.Header, time.Now()), parseProblem(res.StatusCode, res.Header, body)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxCheckLine)
	for lines.Scan() {
		silence.Reset(attemptTimeout)
		var line struct {
			Checked uint64          `json:"checked"`
			Of      uint64          `json:"of"`
			Result  json.RawMessage `json:"result"`
			Error   *problem        `json:"error"`
		}
		if err := decodeAnswer(lines.Bytes(), &line); err != nil {
			return nil, 0, err
		}
		switch {
		case line.Result != nil:
			return line.Result, 0, nil
		case line.Error != nil:
			return nil, 0, fmt.Errorf("it broke off: %v", line.Error) // not a problem: what has begun isn't begun again
		}
		progress(line.Checked, line.Of)
	}
	if err := lines.Err(); err != nil {
		return nil, 0, fmt.Errorf("read the server's answer: %w", err)
	}
	return nil, 0, errors.New("the server's answer broke off before the result")
}
