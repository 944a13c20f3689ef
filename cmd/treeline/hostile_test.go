package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// An operator is one that has gone bad. It holds the seed, and so signs whatever it likes: here by running two servers, which have the
// first ten entries of each log in common, since the second began as a copy of the first one's directory. Everything that either signs
// is valid in itself: tree, chain, signatures and proofs.
//
// There are three forks of what was shown, which is 20 entries. As everywhere in this test, what an observer says is an exit code.
type operator struct {
	t             *testing.T
	shown, forked *process
	setBack       *process // a copy that has not grown since
	logs          map[string]*hostileLog
	witnesses     []*bystander
}

// hostileLog is one log of the operator's, as it was at certain sizes.
type hostileLog struct {
	name, vkey, origin string
	shown, forked      map[uint64]signedState // by size
}

// signedState is a signed checkpoint, without cosignatures, with a proof of event 12 if that is in it.
type signedState struct {
	note, proof string
}

// common is how many entries the two histories of a log have in common.
const common = 10

// The forks, by size: shown were 20 entries.
const (
	shorter = 15 // a shorter tree
	same    = 20 // another root of the same size
	longer  = 30 // a history that was rewritten and has grown since
)

func newOperator(t *testing.T, logs ...string) *operator {
	t.Helper()
	o := &operator{t: t, logs: map[string]*hostileLog{}}
	flags := []string{"--checkpoint-interval", "20ms", "--url", "https://hostile.example"}
	dir := t.TempDir()
	o.shown = serving(t, dir, flags...)
	for _, name := range logs {
		var made struct{ VKeys []string }
		o.shown.mustPost(t, "/v1/logs", `{"name":"`+name+`","public":true}`, http.StatusCreated, &made)
		origin, _, _ := strings.Cut(made.VKeys[0], "+")
		o.logs[name] = &hostileLog{name, made.VKeys[0], origin, map[uint64]signedState{}, map[uint64]signedState{}}
	}
	for _, l := range o.logs {
		o.grow(o.shown, l, l.shown, 8, common)
	}
	if err := o.shown.stop(); err != nil {
		t.Fatal(err)
	}
	o.forked, o.setBack = serving(t, copied(t, dir), flags...), serving(t, copied(t, dir), flags...)
	o.shown = serving(t, dir, flags...)
	for _, l := range o.logs {
		o.grow(o.shown, l, l.shown, 12, same)
		o.grow(o.forked, l, l.forked, shorter, same, longer)
	}
	return o
}

// copied returns a copy of a data directory.
func copied(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, 0o700) // which CopyFS doesn't keep
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// grow lets a log grow to each of the sizes, and keeps what is signed there.
func (o *operator) grow(p *process, l *hostileLog, states map[uint64]signedState, sizes ...uint64) {
	o.t.Helper()
	for _, size := range sizes {
		var page logPage
		p.mustGetJSON(o.t, "/v1/checkpoint?log="+l.name, &page)
		grow(o.t, p, l.name, int(page.Sizes.Size), int(size))
		p.mustGetJSON(o.t, "/v1/checkpoint?log="+l.name, &page)
		if c, err := openNote(l.vkey, page.Checkpoint); err != nil || c.Size != size {
			o.t.Fatalf("the checkpoint of size %d: %+v, %v", size, c, err)
		}
		state := signedState{note: page.Checkpoint}
		if size > 12 {
			proof, err := p.get("/v1/events/e12/proof?log=" + l.name)
			if err != nil {
				o.t.Fatal(err)
			}
			state.proof = string(proof)
		}
		states[size] = state
	}
}

// A bystander is a witness that knows the operator's logs: `treeline witness`, honest as it comes. The operator has the keys of those
// that collude with it: it has cosigned what it wants, and serves in their name what it wants.
type bystander struct {
	*process
	vkey string
	key  *checkpoint.Cosigner
}

// bystanders replaces the witnesses by n new ones, which know the operator's logs and others by their keys.
func (o *operator) bystanders(n int, others ...string) {
	o.t.Helper()
	o.witnesses = nil
	known := filepath.Join(o.t.TempDir(), "logs")
	var list strings.Builder
	for _, l := range o.logs {
		fmt.Fprintf(&list, "log %s\n", l.vkey)
	}
	for _, vkey := range others {
		fmt.Fprintf(&list, "log %s\n", vkey)
	}
	list.WriteString("quorum none\n")
	if err := os.WriteFile(known, []byte(list.String()), 0o600); err != nil {
		o.t.Fatal(err)
	}
	for i := range n {
		dir, name := o.t.TempDir(), fmt.Sprintf("witness.example/%d", i+1)
		p := witnessing(o.t, dir, "--name", name, "--logs", known)
		seed, err := checkpoint.LoadSeed(filepath.Join(dir, "seed"))
		if err != nil {
			o.t.Fatal(err)
		}
		key, err := seed.Ed25519Cosigner(name)
		if err != nil {
			o.t.Fatal(err)
		}
		o.witnesses = append(o.witnesses, &bystander{p, key.VKey(), key})
	}
}

// submit asks a witness to cosign a checkpoint, and returns its answer: the status, and the cosignature if it gave one. The proof is
// the best that the operator has: that of the history which the checkpoint is from.
func (o *operator) submit(w *bystander, from *process, l *hostileLog, old, size uint64, note string) (int, string) {
	o.t.Helper()
	body := fmt.Sprintf("old %d\n", old)
	if 0 < old && old < size {
		var proof proofAnswer
		from.mustGetJSON(o.t, fmt.Sprintf("/v1/proofs/consistency?log=%s&from=%d&to=%d", l.name, old, size), &proof)
		for _, h := range proof.Hashes {
			raw, err := hex.DecodeString(h)
			if err != nil {
				o.t.Fatal(err)
			}
			body += base64.StdEncoding.EncodeToString(raw) + "\n"
		}
	}
	a, err := w.call(http.MethodPost, "/add-checkpoint", []byte(body+"\n"+note))
	if err != nil {
		o.t.Fatal(err)
	}
	return a.status, string(a.body)
}

// cosigned has a witness cosign a checkpoint that extends the last one it cosigned.
func (o *operator) cosigned(w *bystander, from *process, l *hostileLog, old, size uint64, note string) string {
	o.t.Helper()
	status, line := o.submit(w, from, l, old, size, note)
	if status != http.StatusOK {
		o.t.Fatalf("from %d to %d: %d %s", old, size, status, line)
	}
	return line
}

// refused checks that an honest witness cosigns no fork, whatever old size the operator tries.
func (o *operator) refused(w *bystander, l *hostileLog, size uint64) {
	o.t.Helper()
	for _, old := range []uint64{0, 8, common, 12, shorter, same, longer} {
		if status, answer := o.submit(w, o.forked, l, old, size, l.forked[size].note); status == http.StatusOK {
			o.t.Errorf("%s cosigns the fork of size %d from size %d: %s", w.key.Name(), size, old, answer)
		}
	}
}

// collude returns the cosignature of a colluding witness.
func (o *operator) collude(w *bystander, l *hostileLog, note string) string {
	o.t.Helper()
	c, err := openNote(l.vkey, note)
	if err != nil {
		o.t.Fatal(err)
	}
	sig, err := w.key.Cosign(c, time.Now())
	if err != nil {
		o.t.Fatal(err)
	}
	return checkpoint.SignatureLine(sig)
}

// A stage is what the operator shows to one victim: a log with a checkpoint, and what the witnesses serve that collude.
type stage struct {
	url    string
	policy string
	proof  string   // a proof file of event 12
	flags  []string // for treeline audit
}

// with returns the stage as it is looked at with flags of treeline audit.
func (s stage) with(flags ...string) stage {
	s.flags = flags
	return s
}

// show sets a stage: the fork, or what was shown, at a size, under the policy of a quorum of the first n witnesses, of whom the last
// ones collude. The operator takes what cosignatures it can get.
func (o *operator) show(l *hostileLog, from *process, state signedState, quorum int, honest, colluding []*bystander, lines string) stage {
	o.t.Helper()
	signed := state.note + lines
	for _, w := range colluding {
		signed += o.collude(w, l, state.note)
	}
	base, err := url.Parse(from.url)
	if err != nil {
		o.t.Fatal(err)
	}
	mux := http.NewServeMux()
	show := func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(signed)) }
	mux.HandleFunc("GET /logs/"+l.name+"/checkpoint", show)
	mux.HandleFunc("GET /witnesses/{name}/{origin}/checkpoint", show)
	mux.Handle("/", httputil.NewSingleHostReverseProxy(base))
	server := httptest.NewServer(mux)
	o.t.Cleanup(server.Close)

	policy, names := "log "+l.vkey+"\n", ""
	for i, w := range honest {
		policy += fmt.Sprintf("witness h%d %s %s\n", i, w.vkey, w.url)
		names += fmt.Sprintf(" h%d", i)
	}
	for i, w := range colluding {
		policy += fmt.Sprintf("witness c%d %s %s/witnesses/c%[1]d\n", i, w.vkey, server.URL)
		names += fmt.Sprintf(" c%d", i)
	}
	policy += fmt.Sprintf("group g %d%s\nquorum g\n", quorum, names)
	return stage{server.URL, policy, strings.Replace(state.proof, state.note, signed, 1), nil}
}

// verifies is a client that holds a proof file and a policy, and nothing else.
func (o *operator) verifies(s stage) int {
	o.t.Helper()
	dir := o.t.TempDir()
	for name, data := range map[string]string{"policy": s.policy, "proof": s.proof} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			o.t.Fatal(err)
		}
	}
	code, _, err := treeline("verify", "--policy", filepath.Join(dir, "policy"), filepath.Join(dir, "proof"))
	if err != nil {
		o.t.Fatal(err)
	}
	return code
}

// audits is `treeline audit`, by somebody who has followed the log on the first stages and is then shown the last.
func (o *operator) audits(l *hostileLog, stages ...stage) (code int) {
	o.t.Helper()
	state := filepath.Join(o.t.TempDir(), "state")
	for i, s := range stages {
		policy := filepath.Join(o.t.TempDir(), "policy")
		if err := os.WriteFile(policy, []byte(s.policy), 0o600); err != nil {
			o.t.Fatal(err)
		}
		var out string
		var err error
		code, out, err = treeline(append([]string{"audit", "--policy", policy, "--state", state, s.url + "/logs/" + l.name}, s.flags...)...)
		if err != nil || i < len(stages)-1 && code != exitOK {
			o.t.Fatalf("treeline audit: exit code %d, %v\n%s", code, err, out)
		}
	}
	return code
}

// extends is a client that has kept a checkpoint, and asks for proof that the newest one extends it. It reports whether it gets one.
func (o *operator) extends(l *hostileLog, from *process, kept, newest string) bool {
	o.t.Helper()
	old, err := openNote(l.vkey, kept)
	if err != nil {
		o.t.Fatal(err)
	}
	now, err := openNote(l.vkey, newest)
	if err != nil {
		o.t.Fatal(err)
	}
	if now.Size < old.Size { // then it is the newest that has to be a part of the kept one
		old, now = now, old
	}
	var proof proofAnswer
	from.mustGetJSON(o.t, fmt.Sprintf("/v1/proofs/consistency?log=%s&from=%d&to=%d", l.name, old.Size, now.Size), &proof)
	var hashes []merkle.Hash
	for _, h := range proof.Hashes {
		raw, err := hex.DecodeString(h)
		if err != nil {
			o.t.Fatal(err)
		}
		hashes = append(hashes, merkle.Hash(raw))
	}
	return merkle.VerifyConsistency(old.Size, now.Size, hashes, old.Root, now.Root) == nil
}

// TestHostileOperator is who notices what when an operator forks a log that others have seen before. docs/threat-model.md says the same
// in words.
func TestHostileOperator(t *testing.T) {
	o := newOperator(t, "acme")
	o.bystanders(3)
	l := o.logs["acme"]
	first, lines := "", ""
	for _, w := range o.witnesses {
		first += o.cosigned(w, o.shown, l, 0, common, l.shown[common].note)
		lines += o.cosigned(w, o.shown, l, common, same, l.shown[same].note)
	}
	followed := o.show(l, o.shown, l.shown[same], 3, o.witnesses, nil, lines)
	if code := o.verifies(followed); code != exitOK {
		t.Fatalf("the history that was shown: exit code %d", code)
	}

	for _, fork := range []struct {
		what string
		size uint64
	}{{"a shorter tree", shorter}, {"another root of the same size", same}, {"a rewritten history", longer}} {
		t.Run(fork.what, func(t *testing.T) {
			o.t = t
			state := l.forked[fork.size]
			for _, w := range o.witnesses {
				o.refused(w, l, fork.size)
			}
			for _, row := range []struct {
				needs, of, colluding int
				verify               int // what a proof file is worth
				first, firstShorter  int // what who sees the log for the first time says, and if it is shown the shorter tree
				follows              int // what who has seen it before says
			}{
				{1, 1, 0, exitUnverified, exitDiverged, exitUnverified, exitDiverged},
				{1, 1, 1, exitOK, exitOK, exitOK, exitDiverged},
				{2, 3, 0, exitUnverified, exitDiverged, exitUnverified, exitDiverged},
				{2, 3, 1, exitUnverified, exitDiverged, exitUnverified, exitDiverged},
				{2, 3, 2, exitOK, exitDiverged, exitOK, exitDiverged},
				{3, 3, 2, exitUnverified, exitDiverged, exitUnverified, exitDiverged},
				{3, 3, 3, exitOK, exitOK, exitOK, exitDiverged},
			} {
				honest := row.of - row.colluding
				s := o.show(l, o.forked, state, row.needs, o.witnesses[:honest], o.witnesses[honest:row.of], "")
				first := row.first
				if fork.size == shorter {
					first = row.firstShorter
				}
				for _, observer := range []struct {
					who         string
					says, ought int
				}{
					{"who holds a proof file", o.verifies(s), row.verify},
					{"who sees the log for the first time", o.audits(l, s), first},
					{"who has seen it before", o.audits(l, followed, s), row.follows},
				} {
					if observer.says != observer.ought {
						t.Errorf("%d of %d witnesses have to cosign, %d collude: %s says %d, want %d", row.needs, row.of, row.colluding, observer.who,
							observer.says, observer.ought)
					}
				}
			}
			// Without any witness: who kept a checkpoint of an entry that is another now can't be given the proof.
			for kept, want := range map[uint64]bool{8: true, common: true, 12: false, same: false} {
				if got := o.extends(l, o.forked, l.shown[kept].note, state.note); got != want {
					t.Errorf("who kept the checkpoint of size %d gets the proof: %v, want %v", kept, got, want)
				}
			}
		})
	}
	o.t = t

	// A shorter tree may be that of a server which lags, and so may one that was set back to a checkpoint that witnesses did cosign once.
	// Who knows from a witness that the log has signed more waits for that, no longer than --max-lag; who has read more says so at once.
	short := o.show(l, o.forked, l.forked[shorter], 2, o.witnesses[:1], o.witnesses[1:], "")
	back := o.show(l, o.setBack, l.shown[common], 3, o.witnesses, nil, first)
	late := []string{"--max-lag", "1ns"}
	for _, row := range []struct {
		who    string
		says   int
		stages []stage
	}{
		{"who sees the shorter tree", exitOK, []stage{short}},
		{"who goes on seeing the shorter tree", exitUnverified, []stage{short, short.with(late...)}},
		{"who sees a log for the first time after it was set back", exitOK, []stage{back}},
		{"who goes on seeing a log that was set back", exitUnverified, []stage{back, back.with(late...)}},
		{"who has seen a log before it was set back", exitUnverified, []stage{followed, back}},
	} {
		if code := o.audits(l, row.stages...); code != row.says {
			t.Errorf("%s says %d, want %d", row.who, code, row.says)
		}
	}

	// What the witnesses refused they have kept, and the fork of the same size is proof.
	for _, w := range o.witnesses {
		code, out, err := treeline("witness", "evidence", "--data-dir", w.dir)
		if err != nil || code != exitDiverged {
			t.Errorf("treeline witness evidence: exit code %d, %v\n%s", code, err, out)
		}
	}
}

// TestHostileOperatorFromTheBeginning is an operator that plans ahead: it has shown each honest witness only one of two histories, from
// the entry on at which they part. Two quorums of two out of three have one witness in common, so if that one colludes, both histories
// have a quorum.
func TestHostileOperatorFromTheBeginning(t *testing.T) {
	o := newOperator(t, "acme")
	o.bystanders(3)
	l, one, two, third := o.logs["acme"], o.witnesses[0], o.witnesses[1], o.witnesses[2:]
	for _, w := range []*bystander{one, two} {
		o.cosigned(w, o.shown, l, 0, common, l.shown[common].note)
	}
	first := o.cosigned(one, o.shown, l, common, same, l.shown[same].note)
	second := o.cosigned(two, o.forked, l, common, same, l.forked[same].note)
	for _, row := range []struct {
		needs     int
		colluding []*bystander
		verify    int
	}{
		{2, nil, exitUnverified},
		{2, third, exitOK},
		{3, third, exitUnverified},
	} {
		honest := []*bystander{one, two}
		for what, s := range map[string]stage{
			"one history": o.show(l, o.shown, l.shown[same], row.needs, honest, row.colluding, first),
			"the other":   o.show(l, o.forked, l.forked[same], row.needs, honest, row.colluding, second),
		} {
			if code := o.verifies(s); code != row.verify {
				t.Errorf("%d have to cosign, %d collude: a proof file of %s is %d, want %d", row.needs, len(row.colluding), what, code, row.verify)
			}
			if code := o.audits(l, s); code != exitDiverged {
				t.Errorf("%d have to cosign, %d collude: who is shown %s and asks the witnesses says %d, want %d", row.needs, len(row.colluding),
					what, code, exitDiverged)
			}
		}
	}
}
