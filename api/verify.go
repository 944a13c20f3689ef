package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

const (
	// verifyPause is how often a verification tells how far it has come, and verifyPatience how long the client may take to accept that.
	verifyPause    = time.Second
	verifyPatience = 30 * time.Second
)

// verifyProgress is a line of a verification that goes on. Entries and contents are counted apart, so of is twice the number of events.
type verifyProgress struct {
	Checked uint64 `json:"checked"`
	Of      uint64 `json:"of"`
}

// verifyEnd is the last line of a verification: what was found, or why that isn't known.
type verifyEnd struct {
	Result *verifyResult `json:"result,omitempty"`
	Error  *problem      `json:"error,omitempty"`
}

// verifyResult is what a verification has found out about the entries [From, To).
type verifyResult struct {
	Log        string            `json:"log"`
	Origin     string            `json:"origin"`
	From       uint64            `json:"from"`
	To         uint64            `json:"to"`
	Verdict    string            `json:"verdict"` // ok, or the worst of what was found: invalid or diverged
	Checked    verifyCounts      `json:"checked"`
	Problems   []log.FsckProblem `json:"problems"`            // by index
	Truncated  bool              `json:"truncated,omitempty"` // there are more
	Root       string            `json:"root,omitempty"`      // of the tree of the first To entries, as they were read
	Size       uint64            `json:"size"`                // of the checkpoint
	Checkpoint string            `json:"checkpoint"`          // the newest signed, to which the entries lead; "" if there is none that verifies
	VKeys      []string          `json:"vkeys"`
	Witnesses  []witness         `json:"witnesses"` // those of the policy that have cosigned the checkpoint
	Repeat     verifyRepeat      `json:"repeat"`
}

// verifyCounts says how many of what were checked.
type verifyCounts struct {
	Entries     uint64 `json:"entries"`
	Contents    uint64 `json:"contents"`
	Chain       uint64 `json:"chain"`      // entries that were compared with the hash of the one before
	TreeNodes   uint64 `json:"tree_nodes"` // stored ones
	Checkpoints int    `json:"checkpoints"`
	Purged      uint64 `json:"purged"` // events whose content is gone, as an event of the log says
	Erased      uint64 `json:"erased"` // contents of which claims are gone, likewise
}

// verifyRepeat is what it takes to check the same without trusting this server. Paths are below its base URL, $SERVER in commands.
type verifyRepeat struct {
	Checkpoint string   `json:"checkpoint"`
	Tiles      string   `json:"tiles"`   // hashes, in C2SP tlog-tiles
	Entries    string   `json:"entries"` // in the same: the leaves' data
	Records    string   `json:"records"` // contents, with seeds, from which each entry can be computed
	Commands   []string `json:"commands"`
}

// getVerify reads and hashes entries of the log again, and streams how far that has come and what was found. It ends when the client
// leaves: there is no job that anybody would have to find again, on whichever server.
func (s *Server) getVerify(w http.ResponseWriter, r *http.Request, l *log.Log, q query, _ log.Key) error {
	from, err := q.number("from", 0, 0, merkle.MaxSize)
	if err != nil {
		return err
	}
	to, err := q.number("to", merkle.MaxSize, 0, merkle.MaxSize-1)
	if err != nil {
		return err
	}
	check, err := l.NewRecheck(r.Context(), from, to)
	if err != nil {
		return err
	}
	defer check.End()
	out := lineWriter{w: w, control: http.NewResponseController(w)}
	if r.Method == http.MethodHead {
		out.head()
		return nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()

	var report *log.FsckReport
	var checked atomic.Uint64
	done := make(chan struct{})
	var running errgroup.Group
	running.Go(func() (err error) {
		defer close(done)
		report, err = check.Run(ctx, func(n int) { checked.Add(uint64(n)) })
		return err
	})
	of := 2 * (check.To - check.From)
	pause := time.NewTicker(verifyPause)
	defer pause.Stop()
	var gone error // why nothing can be written any more
	for ended := false; !ended; {
		if gone = out.write(verifyProgress{checked.Load(), of}); gone != nil {
			cancel()
			break
		}
		select {
		case <-pause.C:
		case <-done:
			ended = true
		}
	}
	err = running.Wait()
	if gone != nil || r.Context().Err() != nil {
		return nil // there is nobody to be told
	}
	var result *verifyResult
	if err == nil {
		result, err = newVerifyResult(r.Context(), check, l, report)
	}
	if s.closing.Err() != nil && errors.Is(err, context.Canceled) {
		err = log.ErrClosed
	}
	if err != nil {
		_ = out.write(verifyEnd{Error: s.explain(w, r, err)})
		return nil
	}
	_ = out.write(verifyProgress{checked.Load(), of})
	_ = out.write(verifyEnd{Result: result})
	return nil
}

// newVerifyResult returns what a verification is told to have found.
func newVerifyResult(ctx context.Context, check *log.Recheck, l *log.Log, report *log.FsckReport) (*verifyResult, error) {
	result := &verifyResult{
		Log: l.Name, Origin: l.Origin, From: check.From, To: check.To, Verdict: "ok",
		Checked:  verifyCounts{report.Entries, report.Contents, report.Links, report.Nodes, report.Checkpoints, report.Purged, report.Erased},
		Problems: report.Problems, Truncated: report.Truncated, Root: report.Root, Size: check.Against.Size, VKeys: l.VKeys,
		Witnesses: []witness{}, Repeat: newVerifyRepeat(l, check.From),
	}
	for _, p := range report.Problems {
		if result.Verdict != log.KindDiverged {
			result.Verdict = p.Kind
		}
	}
	if check.Against.Note == nil {
		return result, nil
	}
	note, by, err := l.Cosigned(ctx, check.Against)
	if err != nil {
		return nil, err
	}
	result.Checkpoint, result.Witnesses = string(note), viewCosigners(by)
	return result, nil
}

func newVerifyRepeat(l *log.Log, from uint64) verifyRepeat {
	prefix := "/logs/" + l.Name + "/"
	vkeys := ""
	for _, vkey := range l.VKeys {
		vkeys += " --vkey '" + vkey + "'"
	}
	records := url.Values{"log": {l.Name}, "from": {strconv.FormatUint(from, 10)}}
	return verifyRepeat{
		Checkpoint: prefix + "checkpoint", Tiles: prefix + "tile/", Entries: prefix + "tile/entries/",
		Records: "/v1/feed?" + records.Encode(),
		Commands: []string{
			`treeline audit "$SERVER/logs/` + l.Name + `" --key "$KEY"` + vkeys,
			`treeline export --server "$SERVER" --key "$KEY" --log ` + l.Name + " --format bundle -o " + l.Name + ".zip && treeline verify " + l.Name + ".zip" + vkeys,
		},
	}
}

// lineWriter streams JSON values, a line each, which are sent at once.
type lineWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (o *lineWriter) head() {
	o.w.Header().Set("Content-Type", "application/x-ndjson")
	o.w.Header()["Cache-Control"] = noStore
}

// write sends a value, for which the client has a while from now on, however long the answer takes altogether.
func (o *lineWriter) write(v any) error {
	if !o.begun {
		o.head()
		o.begun = true
	}
	if err := o.control.SetWriteDeadline(time.Now().Add(verifyPatience)); err != nil {
		return err
	}
	e := json.NewEncoder(o.w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	return o.control.Flush()
}
