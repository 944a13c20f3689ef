package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// getProof answers with an event's proof file (C2SP tlog-proof).
func (s *Server) getProof(w http.ResponseWriter, r *http.Request, l *log.Log, q query, _ log.Key) error {
	wait, err := s.waitFor(q)
	if err != nil {
		return err
	}
	hub, err := q.flag("hub")
	if err != nil {
		return err
	}
	without, err := q.withheld()
	if err != nil {
		return err
	}
	record, err := findEvent(r, l)
	if err != nil {
		return err
	}
	if hub {
		return s.getHubProof(w, r, l, record.Index, without, wait != "")
	}
	s.await(r.Context(), l, wait, record.Index+1)
	proof, err := l.ProofWithout(r.Context(), record.Index, without)
	if err != nil {
		return err
	}
	writeProof(w, r, proof, "text/plain; charset=utf-8", ".tlog-proof")
	return nil
}

// writeProof answers with the file of an event's proof.
func writeProof(w http.ResponseWriter, r *http.Request, proof []byte, kind, ext string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", `attachment; filename="`+r.PathValue("id")+ext+`"`)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(proof)))
	w.Write(proof)
}

// inclusion is the answer of /v1/proofs/inclusion.
type inclusion struct {
	Log        string   `json:"log"`
	Index      uint64   `json:"index"`
	Size       uint64   `json:"size"`
	Hash       string   `json:"hash"`
	Hashes     []string `json:"hashes"`
	Root       string   `json:"root"`
	Checkpoint string   `json:"checkpoint"`
}

func (s *Server) getInclusion(w http.ResponseWriter, r *http.Request, l *log.Log, q query, _ log.Key) error {
	if _, ok := q["index"]; !ok {
		return badParameter("index", "which entry?")
	}
	index, err := q.number("index", 0, 0, merkle.MaxSize)
	if err != nil {
		return err
	}
	size, err := q.number("size", l.Sizes().Signed, 0, merkle.MaxSize)
	if err != nil {
		return err
	}
	leaf, hashes, err := l.Inclusion(r.Context(), index, size)
	if err != nil {
		return err
	}
	root, err := l.Root(r.Context(), size)
	if err != nil {
		return err
	}
	note, err := noteFor(r.Context(), l, size)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, inclusion{
		l.Name, index, size, leaf.String(), hexHashes(hashes), root.String(), string(note),
	})
}

// consistency is the answer of /v1/proofs/consistency.
type consistency struct {
	Log        string   `json:"log"`
	From       uint64   `json:"from"`
	To         uint64   `json:"to"`
	Hashes     []string `json:"hashes"`
	RootFrom   string   `json:"root_from"`
	RootTo     string   `json:"root_to"`
	Checkpoint string   `json:"checkpoint"`
}

func (s *Server) getConsistency(w http.ResponseWriter, r *http.Request, l *log.Log, q query, _ log.Key) error {
	if _, ok := q["from"]; !ok {
		return badParameter("from", "which size?")
	}
	from, err := q.number("from", 0, 0, merkle.MaxSize)
	if err != nil {
		return err
	}
	to, err := q.number("to", l.Sizes().Signed, 0, merkle.MaxSize)
	if err != nil {
		return err
	}
	hashes, err := l.Consistency(r.Context(), from, to)
	if err != nil {
		return err
	}
	rootFrom, err := l.Root(r.Context(), from)
	if err != nil {
		return err
	}
	rootTo, err := l.Root(r.Context(), to)
	if err != nil {
		return err
	}
	note, err := noteFor(r.Context(), l, to)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, consistency{
		l.Name, from, to, hexHashes(hashes), rootFrom.String(), rootTo.String(), string(note),
	})
}

// noteFor returns the checkpoint of exactly that size if one was signed, else the newest, to which a consistency proof
// leads, with the cosignatures that there are.
func noteFor(ctx context.Context, l *log.Log, size uint64) ([]byte, error) {
	c, err := l.CheckpointAt(ctx, size)
	if err == nil && c.Size == size {
		note, _, err := l.Cosigned(ctx, c)
		return note, err
	}
	if err != nil && !errors.Is(err, log.ErrNotFound) {
		return nil, err
	}
	_, note := l.Signed()
	return note, nil
}

func hexHashes(hashes []merkle.Hash) []string {
	out := make([]string, len(hashes))
	for i, h := range hashes {
		out[i] = h.String()
	}
	return out
}

// sizes is how far a log has come, as the API shows it.
type sizes struct {
	Size      uint64 `json:"size"`
	Signed    uint64 `json:"signed"`
	Released  uint64 `json:"released"`
	Witnessed uint64 `json:"witnessed"` // 0, too, where no witness policy is set
}

func sizesOf(l *log.Log) sizes {
	s := l.Sizes()
	return sizes{Size: s.Size, Signed: s.Signed, Released: s.Released, Witnessed: s.Witnessed}
}

// signedHead is the answer of /v1/checkpoint.
type signedHead struct {
	Log        string     `json:"log"`
	Origin     string     `json:"origin"`
	VKeys      []string   `json:"vkeys"`
	Checkpoint string     `json:"checkpoint"` // with the cosignatures that there are
	Sizes      sizes      `json:"sizes"`
	Witnesses  []witness  `json:"witnesses"` // those of the policy that have cosigned it
	Release    string     `json:"release"`   // what is released: all that is "signed", only what is "witnessed", or "fail-open"
	Evidence   []evidence `json:"evidence,omitempty"`
}

// witness is a witness that has cosigned a checkpoint.
type witness struct {
	Name string `json:"name"`
	Key  string `json:"key"`
	At   string `json:"at"`
}

func viewCosigners(all []log.Cosigner) []witness {
	out := []witness{}
	for _, by := range all {
		out = append(out, witness{by.Name, by.Key, string(log.AppendTime(nil, time.Unix(by.At, 0).UnixMicro()))})
	}
	return out
}

// evidence is what is kept of a contradiction between a log and its witnesses.
type evidence struct {
	Kind    string `json:"kind"`
	Witness string `json:"witness,omitempty"` // its key
	Size    uint64 `json:"size"`
	At      string `json:"at"`
	Ours    string `json:"ours"`
	Theirs  string `json:"theirs,omitempty"`
}

func viewEvidence(all []log.Evidence) (out []evidence) {
	for _, e := range all {
		out = append(out, evidence{
			Kind: e.Kind, Witness: e.Key, Size: e.Size, At: string(log.AppendTime(nil, e.At)), Ours: string(e.Ours), Theirs: string(e.Theirs),
		})
	}
	return out
}

func (s *Server) getCheckpoint(w http.ResponseWriter, r *http.Request, l *log.Log, q query, _ log.Key) error {
	newest, note := l.Signed()
	if note == nil {
		if l.Stopped() != nil {
			return log.ErrStopped
		}
		return log.ErrNotReady
	}
	c := log.Signed{Size: newest.Size, Note: note}
	if _, ok := q["size"]; ok {
		size, err := q.number("size", 0, 0, merkle.MaxSize)
		if err != nil {
			return err
		}
		c, err = l.CheckpointAt(r.Context(), size)
		if errors.Is(err, log.ErrNotFound) || err == nil && c.Size != size {
			return notFound("checkpoint of that size")
		}
		if err != nil {
			return err
		}
	}
	note, cosigners, err := l.Cosigned(r.Context(), c)
	if err != nil {
		return err
	}
	head := signedHead{
		Log: l.Name, Origin: l.Origin, VKeys: l.VKeys, Checkpoint: string(note), Sizes: sizesOf(l), Witnesses: viewCosigners(cosigners),
		Release: l.Release(),
	}
	if l.Stopped() != nil {
		all, err := l.Evidence(r.Context())
		if err != nil {
			return err
		}
		head.Evidence = viewEvidence(all)
	}
	return writeJSON(w, http.StatusOK, head)
}

// readable returns the log whose public paths the request may read: anybody a public log's, others with a key of the log.
// What may not be read doesn't exist. With it comes the key, if it is one for this log.
func (s *Server) readable(w http.ResponseWriter, r *http.Request) (*log.Log, log.Key, error) {
	// The key first, whether there is such a log or not: the time it takes must not tell.
	var key log.Key
	if r.Header.Get("Authorization") != "" {
		var p *problem
		var err error
		key, err = s.admit(w, r)
		if err != nil && (!errors.As(err, &p) || p.Status == http.StatusTooManyRequests) {
			return nil, key, err
		}
	}
	l := s.known(r.Context(), key, r.PathValue("name"))
	own := l != nil && (key.Role == log.RoleAdmin || key.Log == l.ID)
	switch {
	case own:
		return l, key, nil
	case l != nil && l.Public():
		return l, log.Key{}, nil // another tenant's key is nobody's here
	}
	return nil, key, notFound("log")
}

// known returns the log of that name, or nil. Of one that another server has just made learn those who may read it: for others the
// time that this takes would tell what exists.
func (s *Server) known(ctx context.Context, key log.Key, name string) *log.Log {
	if key.Log != 0 {
		s.service.LookupID(ctx, key.Log)
	}
	if key.Role == log.RoleAdmin {
		return s.service.Lookup(ctx, name)
	}
	return s.service.Log(name)
}

// getPublicCheckpoint answers with the released checkpoint (C2SP tlog-tiles).
func (s *Server) getPublicCheckpoint(w http.ResponseWriter, _ *http.Request, l *log.Log) error {
	_, note := l.Released()
	if note == nil {
		return notFound("checkpoint")
	}
	writeText(w, note, "no-cache")
	return nil
}

// getTile answers with a tile or an entry bundle (C2SP tlog-tiles). They never change, but only who may read them may keep
// them.
func (s *Server) getTile(w http.ResponseWriter, r *http.Request, l *log.Log) error {
	tile, err := merkle.ParseTilePath("tile/" + r.PathValue("path"))
	if err != nil {
		return notFound("tile")
	}
	data, err := l.Tile(r.Context(), tile)
	if errors.Is(err, log.ErrNotFound) {
		return notFound("tile")
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("Cache-Control", immutable(l))
	w.Write(data)
	return nil
}

// immutable is the Cache-Control of what never changes of a log: only who may read it may keep it.
func immutable(l *log.Log) string {
	scope := "private"
	if l.Public() {
		scope = "public"
	}
	return scope + ", max-age=" + strconv.Itoa(int((365 * 24 * time.Hour).Seconds())) + ", immutable"
}
