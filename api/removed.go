package api

import (
	"errors"
	"net/http"

	"github.com/treeline-log/treeline/log"
)

// withholdParam is the parameter by which claims are withheld from a proof or a bundle.
const withholdParam = "withhold"

// withheld returns the claims that are to be withheld.
func (q query) withheld() (log.Withheld, error) {
	without, err := log.ParseWithheld(q[withholdParam])
	if err != nil {
		return nil, badParameter(withholdParam, "%v", err)
	}
	return without, nil
}

// purged returns the problem that an event which was purged is answered with: what is left of it, its proof, and who purged it. All of
// that can be checked by who asks.
func (s *Server) purged(r *http.Request, l *log.Log, record log.Record) error {
	p := newProblem(http.StatusGone, "purged", "the event's content was purged as the log's retention policy says; its entry stays, and can be proven")
	p.Record = record.AppendJSON(nil, false)
	by, err := l.Record(r.Context(), record.PurgedBy.Index)
	if err != nil {
		return err
	}
	p.Purge = by.AppendJSON(nil, false)
	proof, err := l.Proof(r.Context(), record.Index)
	if err != nil && !errors.Is(err, log.ErrNotSigned) {
		return err
	}
	p.Proof = string(proof)
	return p
}
