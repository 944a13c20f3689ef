package api

import (
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/treeline-log/treeline/log"
)

// erasureInput asks for claims of a data subject to be erased.
type erasureInput struct {
	Subject    filterInput `json:"subject"`
	Claims     []string    `json:"claims"`
	LegalBasis string      `json:"legal_basis"`
	Reference  string      `json:"reference"`
	DryRun     bool        `json:"dry_run"`
	Plan       string      `json:"plan"`
}

// planView is what an erasure would do, and what forbids it.
type planView struct {
	Log      string            `json:"log"`
	DryRun   bool              `json:"dry_run"`
	Size     uint64            `json:"size"`
	Matching uint64            `json:"matching"`
	Events   uint64            `json:"events"`
	Indices  []uint64          `json:"indices"`
	Claims   map[string]uint64 `json:"claims"`
	Bytes    uint64            `json:"bytes"`
	HeldBy   []string          `json:"held_by"`
	Early    uint64            `json:"early"`
	Archived []string          `json:"archived"` // bundles in the archive that have some of the events
	// ArchiveProblem is why it isn't known which they are.
	ArchiveProblem string `json:"archive_problem,omitempty"`
	Plan           string `json:"plan"`
	ExpiresAt      string `json:"expires_at"`
}

// erasureView is an erasure, and how far it is done.
type erasureView struct {
	ID         string          `json:"id"`
	Log        string          `json:"log"`
	ErasedAt   string          `json:"erased_at"`
	ErasedBy   actorView       `json:"erased_by"`
	Subject    string          `json:"subject"` // by which members it was found
	LegalBasis string          `json:"legal_basis"`
	Reference  string          `json:"reference,omitempty"`
	Entries    uint64          `json:"entries"`
	Claims     []string        `json:"claims"`
	Events     []log.Ref       `json:"events"` // that say so
	Done       bool            `json:"done"`
	Removed    removedView     `json:"removed"`
	Outcome    json.RawMessage `json:"outcome,omitempty"`
}

// removedView says from where the values are removed.
type removedView struct {
	Store   bool `json:"store"`
	Index   bool `json:"index"`
	Files   bool `json:"files"`
	Archive bool `json:"archive"`
}

func viewErasure(l *log.Log, e log.Erasure) erasureView {
	done := e.Outcome != nil
	v := erasureView{
		ID: e.ID, Log: l.Name, ErasedAt: timeText(e.ErasedAt), ErasedBy: viewActor(e.By), Subject: e.Subject, LegalBasis: e.LegalBasis,
		Reference: e.Reference, Events: e.Events, Done: done, Removed: removedView{e.Store, e.Index, done, done}, Outcome: e.Outcome,
	}
	for _, s := range e.Entries() {
		v.Entries += s.Len()
	}
	for _, g := range e.Erased {
		v.Claims = append(v.Claims, g.Pointers...)
	}
	slices.Sort(v.Claims)
	v.Claims = slices.Compact(v.Claims)
	return v
}

// planLifetime is how long after a dry run its plan is good.
const planLifetime = 24 * time.Hour

// plans makes and reads what names the plan of a dry run, so that nothing is erased that nobody has looked at. Its text is the base64url
// form of
//
//	nonce (12) ‖ AES-256-GCM of (u64 size ‖ u64 expires at ‖ plan's digest (32)) ‖ tag (16)
//
// with the log and all that was asked for as additional data.
type plans struct {
	aead cipher.AEAD
}

// sealedPlan is what is erased: of the log up to a size, the claims that the digest is of.
type sealedPlan struct {
	size      uint64
	expiresAt int64 // µs since 1970 UTC
	digest    [32]byte
}

func (p plans) encode(at sealedPlan, id log.ID, asked string) string {
	body := binary.BigEndian.AppendUint64(nil, at.size)
	body = binary.BigEndian.AppendUint64(body, uint64(at.expiresAt))
	return base64.RawURLEncoding.EncodeToString(p.aead.Seal(nil, nil, append(body, at.digest[:]...), sealedFor(id, asked)))
}

var errPlan = badRequest("plan: not one that this server made for this log and this request, or too old; make another dry run")

// decode returns the plan in a text, or errPlan.
func (p plans) decode(text string, id log.ID, asked string, now time.Time) (at sealedPlan, err error) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || base64.RawURLEncoding.EncodeToString(sealed) != text {
		return at, errPlan
	}
	body, err := p.aead.Open(nil, nil, sealed, sealedFor(id, asked))
	if err != nil || len(body) != 8+8+32 {
		return at, errPlan
	}
	at = sealedPlan{binary.BigEndian.Uint64(body), int64(binary.BigEndian.Uint64(body[8:])), [32]byte(body[16:])}
	if at.expiresAt < now.UnixMicro() {
		return at, errPlan
	}
	return at, nil
}

// request returns the erasure that is asked for, and its text.
func (in erasureInput) request() (log.ErasureRequest, string, error) {
	subject, err := in.Subject.values("subject")
	if err != nil {
		return log.ErasureRequest{}, "", err
	}
	claims := slices.Compact(slices.Sorted(slices.Values(in.Claims)))
	asked, err := json.Marshal([]any{"erasure", subject.Encode(), claims, in.LegalBasis, in.Reference})
	return log.ErasureRequest{Subject: subject, Claims: claims, LegalBasis: in.LegalBasis, Reference: in.Reference}, string(asked), err
}

// postErasure erases what a plan says, or makes one.
func (s *Server) postErasure(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	var in erasureInput
	if err := readAdmin(w, r, &in, "subject", "claims", "legal_basis", "reference", "dry_run", "plan"); err != nil {
		return err
	}
	request, asked, err := in.request()
	if err != nil {
		return err
	}
	if in.DryRun {
		if in.Plan != "" {
			return badRequest("the body: a dry run makes a plan, and takes none")
		}
		return s.planErasure(w, r, l, request, asked, key)
	}
	if in.Plan == "" {
		return badRequest(`the body: plan is missing; make a dry run first ("dry_run":true), look at what it lists, and send its plan`)
	}
	named, err := s.plans.decode(in.Plan, l.ID, asked, s.now())
	if err != nil {
		return err
	}
	request.Size = named.size
	plan, _, err := s.planOf(r, l, request)
	if err != nil {
		return err
	}
	if plan.Digest() != named.digest {
		return log.ErrChanged
	}
	e, err := l.Erase(r.Context(), s.by(w, r, key), plan)
	if err != nil {
		return err
	}
	if s.keeper != nil {
		s.keeper.Wake()
	}
	s.logger.Info("claims erased", "log", l.Name, "erasure", e.ID, "by", key.ID)
	return writeJSON(w, http.StatusCreated, viewErasure(l, e))
}

// planOf plans an erasure, by a server with an archive also of what only that has. unsearched are archived bundles that it couldn't look into.
func (s *Server) planOf(r *http.Request, l *log.Log, request log.ErasureRequest) (plan *log.ErasurePlan, unsearched []string, err error) {
	if s.keeper != nil {
		return s.keeper.PlanErasure(r.Context(), l, request)
	}
	plan, err = l.PlanErasure(r.Context(), request)
	return plan, nil, err
}

// planErasure answers a dry run.
func (s *Server) planErasure(w http.ResponseWriter, r *http.Request, l *log.Log, request log.ErasureRequest, asked string, key log.Key) error {
	plan, unsearched, err := s.planOf(r, l, request)
	if err != nil {
		return err
	}
	at := sealedPlan{plan.Size, s.now().Add(planLifetime).UnixMicro(), plan.Digest()}
	v := planView{
		Log: l.Name, DryRun: true, Size: plan.Size, Matching: plan.Matching, Events: plan.Events, Indices: plan.First, Claims: plan.Claims,
		Bytes: plan.Bytes, HeldBy: plan.HeldBy, Early: plan.Early, Archived: []string{}, Plan: s.plans.encode(at, l.ID, asked), ExpiresAt: timeText(at.expiresAt),
	}
	if v.Indices == nil {
		v.Indices = []uint64{}
	}
	if v.HeldBy == nil {
		v.HeldBy = []string{}
	}
	if s.keeper != nil {
		bundles, err := s.keeper.Bundles(r.Context(), l, plan.Entries())
		if err != nil {
			s.logger.Warn("the archive can't be looked into", "log", l.Name, "error", err)
			v.ArchiveProblem = "the archive can't be reached"
		}
		v.Archived = append(v.Archived, bundles...)
	}
	if unsearched != nil {
		v.ArchiveProblem = "it isn't known what these archived bundles have of the subject, since they can't be read: " + strings.Join(unsearched, ", ")
	}
	s.count(w, r, key, l, log.ReadErasures)
	return writeJSON(w, http.StatusOK, v)
}

// listErasures answers with all erasures of a log, in order.
func (s *Server) listErasures(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, _ log.Key) error {
	all, err := l.Erasures(r.Context())
	if err != nil {
		return err
	}
	views := []erasureView{}
	for _, e := range all {
		views = append(views, viewErasure(l, e))
	}
	return writeJSON(w, http.StatusOK, list{Data: views})
}

func (s *Server) getErasure(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, _ log.Key) error {
	e, err := l.Erasure(r.Context(), r.PathValue("id"))
	if err != nil {
		return asMissing(err, "erasure")
	}
	return writeJSON(w, http.StatusOK, viewErasure(l, e))
}
