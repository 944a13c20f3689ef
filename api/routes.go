package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/treeline-log/treeline/log"
)

// routes is the list of everything that can be asked.
func (s *Server) routes() {
	s.onLog("POST /v1/events", toAppend, itself, ofEvents(s.postEvent), "wait")
	s.onLog("POST /v1/events/batch", toAppend, itself, ofEvents(s.postBatch), "wait")
	s.onLog("GET /v1/events", toRead, log.ReadList, ofEvents(s.listEvents), append(filterParams(), "limit", "cursor", "order")...)
	s.onLog("GET /v1/events/{id}", toRead, log.ReadEvent, ofEvents(s.getEvent))
	s.onLog("GET /v1/events/{id}/proof", toRead, log.ReadProof, ofEvents(s.getProof), "wait", "hub", withholdParam)
	s.onLog("GET /v1/export", toExport, itself, ofEvents(s.getExport), append(filterParams(), "format", "compression", "cursor", "after", withholdParam)...)
	s.onLog("GET /v1/feed", toRead, log.ReadFeed, ofEvents(s.getFeed), "from", "limit", "timeout")
	s.onLog("GET /v1/proofs/inclusion", toProve, log.ReadProof, s.getInclusion, "index", "size")
	s.onLog("GET /v1/proofs/consistency", toProve, log.ReadProof, s.getConsistency, "from", "to")
	s.onLog("GET /v1/checkpoint", toRead, log.ReadCheckpoint, s.getCheckpoint, "size")
	s.onLog("GET /v1/access", toAudit, log.ReadAccess, s.getAccess, "from", "to", "actor_id", "action", "limit", "cursor")
	s.onLog("GET /v1/verify", toAudit, log.ReadVerify, ofEvents(s.getVerify), "from", "to")

	s.onServer("POST /v1/logs", toAdminister, itself, s.postLog)
	s.onServer("GET /v1/logs", toManage, log.ReadLogs, s.listLogs)
	s.onNamedLog("GET /v1/logs/{name}", toManage, log.ReadLogs, s.getLog)
	s.onNamedLog("PATCH /v1/logs/{name}", toManage, itself, s.patchLog)
	s.onNamedLog("POST /v1/logs/{name}/freeze", toManage, itself, s.freezeLog)
	s.onNamedLog("POST /v1/logs/{name}/close", toManage, itself, ofTenant(s.closeLog))
	s.onNamedLog("GET /v1/logs/{name}/retention", toAudit, log.ReadRetention, ofTenant(s.getRetention))
	s.onNamedLog("PUT /v1/logs/{name}/retention", toManage, itself, ofTenant(s.putRetention))
	s.onNamedLog("POST /v1/logs/{name}/retention/approve", toManage, itself, ofTenant(s.approveRetention))
	s.onNamedLog("POST /v1/logs/{name}/retention/cancel", toManage, itself, ofTenant(s.cancelRetention))
	s.onNamedLog("POST /v1/logs/{name}/retention/run", toManage, itself, ofTenant(s.runRetention))
	s.onLog("POST /v1/holds", toManage, itself, ofTenant(s.postHold))
	s.onLog("GET /v1/holds", toAudit, log.ReadHolds, ofTenant(s.listHolds))
	s.onLog("GET /v1/holds/{id}", toAudit, log.ReadHolds, ofTenant(s.getHold))
	s.onLog("POST /v1/holds/{id}/release", toManage, itself, ofTenant(s.releaseHold))
	s.onLog("POST /v1/erasures", toManage, itself, ofTenant(s.postErasure))
	s.onLog("GET /v1/erasures", toAudit, log.ReadErasures, ofTenant(s.listErasures))
	s.onLog("GET /v1/erasures/{id}", toAudit, log.ReadErasures, ofTenant(s.getErasure))
	s.onServer("POST /v1/keys", toManage, itself, s.postKey)
	s.onServer("GET /v1/keys", toManage, log.ReadKeys, s.listKeys)
	s.onServer("GET /v1/keys/{id}", toManage, log.ReadKeys, s.getKey)
	s.onServer("DELETE /v1/keys/{id}", toManage, itself, s.revokeKey)
	s.onServer("POST /v1/keys/{id}/rotate", toManage, itself, s.rotateKey)

	s.onTiles("GET /logs/{name}/checkpoint", s.getPublicCheckpoint)
	s.onTiles("GET /logs/{name}/tile/{path...}", s.getTile)
	s.onTiles("GET /logs/{name}/growth/{index}", s.getGrowth)
	s.handle("GET /witness/logs", s.getWitnessLogs)

	s.handle("GET /healthz", getHealth)
	s.handle("GET /readyz", s.getReady)
	s.handle("GET /openapi.yaml", getOpenAPI)
	s.handle("/", s.getNothing)

	s.ops.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	s.ops.HandleFunc("GET /readyz", s.getReadyDetails)
}

// handle serves a pattern with a function that returns its error.
func (s *Server) handle(pattern string, fn func(http.ResponseWriter, *http.Request) error) {
	s.patterns = append(s.patterns, pattern)
	_, route, found := strings.Cut(pattern, " ")
	if !found {
		route = "none"
	}
	s.mux.HandleFunc(pattern, s.observe(route, func(w http.ResponseWriter, r *http.Request) {
		if err := fn(w, r); err != nil {
			s.writeError(w, r, err)
		}
	}))
}

// query are a request's parameters: known to the route, and each with one value, but for the filters that may repeat.
type query map[string][]string

// one returns the value of a parameter that doesn't repeat; ok is false where it isn't given.
func (q query) one(name string) (value string, ok bool) {
	if len(q[name]) == 0 {
		return "", false
	}
	return q[name][0], true
}

// parseQuery refuses parameters that the route doesn't know, so that a misspelt filter isn't a filter ignored. A known name that
// ends in a dot stands for all that begin with it.
func parseQuery(r *http.Request, known ...string) (query, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("query: %v", err)
	}
	for name, v := range values {
		if !slices.ContainsFunc(known, func(k string) bool {
			return name == k || strings.HasSuffix(k, ".") && strings.HasPrefix(name, k)
		}) {
			names := strings.Join(known, ", ")
			names = strings.ReplaceAll(names, metadataFilter, metadataFilter+"<path>")
			return nil, badParameter(name, "is unknown here; known are: %s", names)
		}
		if len(v) != 1 && !mayRepeat(name) {
			return nil, badParameter(name, "is given %d times", len(v))
		}
	}
	return query(values), nil
}

// flag returns a parameter that is true or false, false where it isn't given.
func (q query) flag(name string) (bool, error) {
	switch v, ok := q.one(name); {
	case !ok || v == "false":
		return false, nil
	case v == "true":
		return true, nil
	default:
		return false, badParameter(name, "%q is neither true nor false", v)
	}
}

// onLogFunc serves a route that is about one log.
type onLogFunc = func(http.ResponseWriter, *http.Request, *log.Log, query, log.Key) error

// ofEvents serves a route that is about the events of a log, which a hub doesn't have.
func ofEvents(fn onLogFunc) onLogFunc {
	return func(w http.ResponseWriter, r *http.Request, l *log.Log, q query, key log.Key) error {
		if l.IsHub() {
			return log.ErrHub
		}
		return fn(w, r, l, q, key)
	}
}

// ofTenant serves a route that is about what becomes of a log's contents: of no log but a tenant's is anything ever removed.
func ofTenant(fn onLogFunc) onLogFunc {
	return func(w http.ResponseWriter, r *http.Request, l *log.Log, q query, key log.Key) error {
		switch {
		case l.IsHub():
			return log.ErrHub
		case l.IsSystem():
			return log.ErrSystem
		}
		return fn(w, r, l, q, key)
	}
}

// onLog serves a route that is about one log, for keys that may do what it takes. Which log that is ?log= says, or the key. The system
// log tells of it as a read of that kind.
func (s *Server) onLog(pattern string, a access, kind log.Read, fn onLogFunc, params ...string) {
	named := func(_ *http.Request, q query) string {
		name, _ := q.one("log")
		return name
	}
	s.onAnyLog(pattern, a, kind, named, fn, append(params, "log"))
}

// onNamedLog does the same with a route whose path names the log.
func (s *Server) onNamedLog(pattern string, a access, kind log.Read, fn onLogFunc) {
	named := func(r *http.Request, _ query) string { return r.PathValue("name") }
	s.onAnyLog(pattern, a, kind, named, fn, nil)
}

func (s *Server) onAnyLog(
	pattern string, a access, kind log.Read, named func(*http.Request, query) string, fn onLogFunc, params []string,
) {
	s.handle(pattern, func(w http.ResponseWriter, r *http.Request) error {
		key, err := s.admit(w, r)
		if err != nil {
			return err
		}
		q, err := parseQuery(r, params...)
		if err != nil {
			return err
		}
		l, err := s.logOf(r.Context(), key, named(r, q))
		if err != nil {
			return err
		}
		if !may(key.Role, a) {
			return forbidden(key)
		}
		if a == toAppend && l.IsSystem() {
			return log.ErrSystem
		}
		if a != toManage { // who has to limit the log must not be kept from it by the limit
			if err := s.chargeLog(w, l); err != nil {
				return err
			}
		}
		if a == toRead || a == toExport {
			if err := l.Refresh(r.Context()); err != nil {
				return err
			}
		}
		if err := fn(w, r, l, q, key); err != nil {
			return err
		}
		s.count(w, r, key, l, kind)
		return nil
	})
}

// onTiles serves a route below /logs/{name}/: to anybody if the log is public, else to the keys of the log.
func (s *Server) onTiles(pattern string, fn func(http.ResponseWriter, *http.Request, *log.Log) error) {
	s.handle(pattern, func(w http.ResponseWriter, r *http.Request) error {
		l, key, err := s.readable(w, r)
		if err != nil {
			return err
		}
		if err := fn(w, r, l); err != nil {
			return err
		}
		s.count(w, r, key, l, log.ReadTile)
		return nil
	})
}

// onServer serves a route that is about the whole server, or about what of it a key may see, for keys that may do what it takes.
func (s *Server) onServer(pattern string, a access, kind log.Read, fn func(http.ResponseWriter, *http.Request, log.Key) error) {
	s.handle(pattern, func(w http.ResponseWriter, r *http.Request) error {
		key, err := s.admit(w, r)
		if err != nil {
			return err
		}
		if !may(key.Role, a) {
			return forbidden(key)
		}
		if _, err := parseQuery(r); err != nil {
			return err
		}
		if err := fn(w, r, key); err != nil {
			return err
		}
		var own *log.Log // what a key of one log sees is about that
		if key.Log != 0 {
			own = s.service.LookupID(r.Context(), key.Log)
		}
		s.count(w, r, key, own, kind)
		return nil
	})
}

func forbidden(key log.Key) error {
	return newProblem(http.StatusForbidden, "forbidden", "this key's role, %s, doesn't allow it", key.Role)
}

// getNothing answers what no route is for: 405 if another method would do, else 404.
func (s *Server) getNothing(_ http.ResponseWriter, r *http.Request) error {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := &http.Request{Method: m, URL: r.URL, Host: r.Host}
		if _, pattern := s.mux.Handler(probe); pattern != "" && pattern != "/" {
			allow = append(allow, m)
		}
	}
	if allow == nil || slices.Contains(allow, r.Method) {
		return notFound("route")
	}
	p := newProblem(http.StatusMethodNotAllowed, "method_not_allowed", "%s is not for this route", r.Method)
	p.allow = strings.Join(allow, ", ")
	return p
}

func getHealth(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) getReady(w http.ResponseWriter, r *http.Request) error {
	if err := s.service.Ready(r.Context()); err != nil {
		return writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready"})
	}
	return writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

// getReadyDetails says why the service isn't fit to serve, and what is wrong that doesn't keep it from serving.
func (s *Server) getReadyDetails(w http.ResponseWriter, r *http.Request) {
	if err := s.service.Ready(r.Context()); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "not ready: %v\n", err)
	} else {
		fmt.Fprintln(w, "ready")
	}
	for _, warning := range s.warnings() {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	for _, l := range s.service.Logs() {
		if l.Stopped() != nil {
			writeEvidence(r.Context(), w, l)
		}
	}
}

// writeEvidence writes the checkpoints that contradict each other, for whoever has to show them.
func writeEvidence(ctx context.Context, w io.Writer, l *log.Log) {
	all, err := l.Evidence(ctx)
	if err != nil {
		fmt.Fprintf(w, "\nevidence against log %s can't be read: %v\n", l.Name, err)
	}
	for _, e := range all {
		if e.Kind == log.EvidenceContradiction {
			fmt.Fprintf(w, "\nevidence against log %s, shown by witness %s:\n\n%s\nthe log's own newest checkpoint then:\n\n%s", l.Name, e.Key, e.Theirs, e.Ours)
		}
	}
}
