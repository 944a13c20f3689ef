package api

import (
	"net/http"

	"github.com/treeline-log/treeline/log"
)

// What is done with a key is told of by the system log. A read is counted by its route (Server.onLog, onServer, onTiles), which says
// what kind of read it is. An act is recorded by the method of package log that does it, which asks who it is that acts: there is no
// way to one that leaves nothing behind.

// itself is the kind of read of a route that is none: an append, which is an event of its own, or an act or export, which is recorded
// before it is done.
const itself log.Read = ""

// by returns who sends a request.
func (s *Server) by(w http.ResponseWriter, r *http.Request, key log.Key) log.By {
	by := log.ByKey(key)
	by.UserAgent, by.RequestID = r.UserAgent(), w.Header().Get("X-Request-Id")
	if addr := s.senderOf(r); addr.IsValid() {
		by.IP = addr.String()
	}
	return by
}

// count counts a read that was answered: of a log, or for nil of what is about no single one.
func (s *Server) count(w http.ResponseWriter, r *http.Request, key log.Key, l *log.Log, kind log.Read) {
	if kind != itself && key.ID != "" {
		s.service.CountRead(s.by(w, r, key), l, kind)
	}
}
