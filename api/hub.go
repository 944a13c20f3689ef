package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// WitnessList says what the list of logs for witnesses tells of each log, besides its key.
type WitnessList struct {
	// QPD is how many checkpoints of a log are submitted in a day at most, from 1 to 2^31-1; 0: DefaultQPD.
	QPD uint64
	// Contact is how people reach the operator, a line of text of at most 1 KiB; "": at the host in the logs' origins.
	Contact string
}

// maxContact bounds a contact, in bytes: witnesses don't read longer ones.
const maxContact = 1 << 10

// DefaultQPD is one checkpoint a second.
const DefaultQPD = 24 * 60 * 60

// Check returns an error if a list can't have the values.
func (l WitnessList) Check() error {
	if l.QPD > 1<<31-1 {
		return fmt.Errorf("%d checkpoints a day, want at most %d", l.QPD, 1<<31-1)
	}
	if len(l.Contact) > maxContact || !utf8.ValidString(l.Contact) || strings.ContainsFunc(l.Contact, unicode.IsControl) {
		return fmt.Errorf("contact %.60q, want one line of at most %d bytes of text", l.Contact, maxContact)
	}
	return nil
}

// getWitnessLogs answers with the list of logs that witnesses may make known to themselves: the hub, and those set public. It is in
// the format logs/v0 of the witness network.
func (s *Server) getWitnessLogs(w http.ResponseWriter, _ *http.Request) error {
	out := []byte("logs/v0\n")
	for _, l := range s.service.Logs() {
		if !l.Public() && !(l.IsHub() && s.service.KeepsHub()) {
			continue
		}
		contact := s.list.Contact
		if contact == "" {
			host, _, _ := strings.Cut(l.Origin, "/logs/")
			contact = "the operator of " + host
		}
		qpd := s.list.QPD
		if qpd == 0 {
			qpd = DefaultQPD
		}
		for _, vkey := range l.VKeys {
			if _, err := note.NewVerifier(vkey); err != nil {
				continue // "only ed25519 alg1 type keys are permitted"
			}
			out = fmt.Appendf(out, "\nvkey %s\nqpd %d\ncontact %s\n", vkey, qpd, contact)
		}
	}
	writeText(w, out, "no-cache")
	return nil
}

// getGrowth answers with how the tree that an entry of the hub is about extends that of the entry before it of the same log.
func (s *Server) getGrowth(w http.ResponseWriter, r *http.Request, l *log.Log) error {
	index, err := strconv.ParseUint(r.PathValue("index"), 10, 64)
	if err != nil || index >= merkle.MaxSize || strconv.FormatUint(index, 10) != r.PathValue("index") {
		return notFound("entry of a hub")
	}
	x, err := l.Extension(r.Context(), index)
	if errors.Is(err, log.ErrNoProof) { // which isn't the server's failure, and yet for its operator to know
		s.logger.Error("a log in the hub can't be shown to have only grown", "entry", index, "error", err)
	}
	if errors.Is(err, log.ErrNotFound) {
		return notFound("entry of a hub")
	}
	if err != nil {
		return err
	}
	writeText(w, x.Text(), immutable(l))
	return nil
}

// writeText answers with text that a cache may keep as long as it is told.
func writeText(w http.ResponseWriter, text []byte, cache string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", cache)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.Write(text)
}

// getHubProof answers with an event's hub proof. It may wait until the hub covers the event, whichever state is waited for.
func (s *Server) getHubProof(w http.ResponseWriter, r *http.Request, l *log.Log, index uint64, without log.Withheld, wait bool) error {
	if wait {
		s.awaitHub(r.Context(), l, index)
	}
	proof, err := l.HubProof(r.Context(), index, without)
	if errors.Is(err, log.ErrNoHub) {
		return badParameter("hub", "this server keeps no hub")
	}
	if err != nil {
		return err
	}
	writeProof(w, r, proof, "application/octet-stream", ".hub-proof")
	return nil
}
