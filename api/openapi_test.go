package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/treeline-log/treeline/log"
)

// description is the OpenAPI document that the server serves, for holding requests and answers against it.
type description struct {
	*openapi3.T
	mux        *http.ServeMux // finds the path of a request
	problem    *openapi3.Response
	notAllowed *openapi3.Response
}

var described = sync.OnceValues(func() (*description, error) {
	data, err := os.ReadFile("openapi.yaml")
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	d := &description{T: doc, mux: http.NewServeMux()}
	for path := range doc.Paths.Map() {
		d.mux.HandleFunc(muxPath(path), func(http.ResponseWriter, *http.Request) {})
	}
	// Answers may get more members, and say so by what they don't exclude. Here they have none but those described.
	seen := make(map[*openapi3.Schema]bool)
	for _, ref := range doc.Components.Schemas {
		closeSchema(ref, seen)
	}
	d.problem, d.notAllowed = doc.Components.Responses["NotFound"].Value, doc.Components.Responses["MethodNotAllowed"].Value
	return d, nil
})

// muxPath returns the pattern of http.ServeMux for a path: that of tiles has slashes in its last parameter.
func muxPath(path string) string { return strings.Replace(path, "{path}", "{path...}", 1) }

// closeSchema excludes all members that objects aren't described with.
func closeSchema(ref *openapi3.SchemaRef, seen map[*openapi3.Schema]bool) {
	if ref == nil || ref.Value == nil || seen[ref.Value] {
		return
	}
	s := ref.Value
	seen[s] = true
	if len(s.Properties) > 0 && s.AdditionalProperties.Schema == nil {
		no := false
		s.AdditionalProperties.Has = &no
	}
	closeSchema(s.Items, seen)
	for _, p := range s.Properties {
		closeSchema(p, seen)
	}
}

// check holds a request and its answer against the description. A request that was served must be one that is described; and its
// key one with a role that is described for it, unless the answer is that the role isn't enough.
func (d *description) check(req *http.Request, got answer, roleOf func(*http.Request) log.Role) error {
	_, pattern := d.mux.Handler(req)
	path := strings.Replace(pattern, "{path...}", "{path}", 1)
	method := req.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	item := d.Paths.Value(path)
	var operation *openapi3.Operation
	if item != nil {
		operation = item.GetOperation(method)
	}
	switch {
	case item == nil && got.status/100 == 3:
		return nil // to the path without what http.ServeMux cleans away
	case operation == nil:
		want, response := http.StatusNotFound, d.problem
		if item != nil {
			want, response = http.StatusMethodNotAllowed, d.notAllowed
		}
		if got.status != want {
			return fmt.Errorf("%s %s is not described, and the answer is %d, want %d", req.Method, req.URL.Path, got.status, want)
		}
		operation = &openapi3.Operation{Responses: openapi3.NewResponses(openapi3.WithStatus(want, &openapi3.ResponseRef{Value: response}))}
		item = &openapi3.PathItem{}
	}
	params := make(map[string]string)
	for _, name := range pathParams(path) {
		params[name] = pathValue(pattern, req, name)
	}
	kind, sent := req.Header.Get("Content-Type"), sentBody(req)
	again := req.Clone(context.Background())
	again.Body = io.NopCloser(bytes.NewReader(sent))
	again.ContentLength, again.GetBody = int64(len(sent)), nil
	input := &openapi3filter.RequestValidationInput{
		Request: again, PathParams: params, QueryParams: req.URL.Query(),
		Route: &routers.Route{Spec: d.T, Path: path, PathItem: item, Method: method, Operation: operation},
		Options: &openapi3filter.Options{
			IncludeResponseStatus: true, SkipSettingDefaults: true, RejectWhenRequestBodyNotSpecified: true,
			AuthenticationFunc: func(_ context.Context, in *openapi3filter.AuthenticationInput) error {
				if role := roleOf(req); !slices.Contains(in.Scopes, string(role)) {
					return fmt.Errorf("role %q is none of %v", role, in.Scopes)
				}
				return nil
			},
		},
	}
	allowed := operation.Security != nil && openapi3filter.ValidateSecurityRequirements(context.Background(), input, *operation.Security) == nil
	switch {
	case got.status/100 == 2:
		err := openapi3filter.ValidateRequest(context.Background(), input)
		if err == nil && strings.HasSuffix(kind, "ndjson") {
			err = d.checkLines(sent)
		}
		if err == nil {
			err = knownParameters(operation, req.URL.Query())
		}
		if err != nil {
			return fmt.Errorf("the request was served, and is not what is described: %w", err)
		}
	case got.status == http.StatusForbidden && allowed:
		return fmt.Errorf("a key of role %s is refused, which is described as enough", roleOf(req))
	case !allowed && (got.status == http.StatusBadRequest || got.status == http.StatusConflict) && req.URL.RawQuery == "":
		return fmt.Errorf("a key of role %q is not refused, which is not described as enough", roleOf(req))
	}
	err := openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: got.status, Header: got.header, Body: io.NopCloser(bytes.NewReader(got.body)),
		Options: input.Options,
	})
	if err != nil {
		return fmt.Errorf("the answer %d is not what is described: %w", got.status, err)
	}
	return nil
}

// checkLines holds a batch of lines against the description of a batch.
func (d *description) checkLines(body []byte) error {
	events := []any{}
	for line := range bytes.Lines(body) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		event, err := openapi3filter.JSONBodyDecoder(bytes.NewReader(line), nil, nil, nil)
		if err != nil {
			return err
		}
		events = append(events, event)
	}
	return d.Components.Schemas["Batch"].Value.VisitJSON(map[string]any{"events": events}, openapi3.EnableJSONSchema2020())
}

// knownParameters refuses parameters of the query that the operation isn't described with.
func knownParameters(operation *openapi3.Operation, query url.Values) error {
	for name := range query {
		if operation.Parameters.GetByInAndName("query", name) != nil {
			continue
		}
		if !strings.HasPrefix(name, "metadata.") || operation.Parameters.GetByInAndName("query", "metadata") == nil {
			return fmt.Errorf("parameter %s is not described", name)
		}
	}
	return nil
}

var pathParamRE = regexp.MustCompile(`\{([a-z]+)(?:\.\.\.)?\}`)

func pathParams(path string) (names []string) {
	for _, m := range pathParamRE.FindAllStringSubmatch(path, -1) {
		names = append(names, m[1])
	}
	return names
}

// pathValue returns the value of a parameter of the request's path.
func pathValue(pattern string, req *http.Request, name string) (value string) {
	mux := http.NewServeMux()
	mux.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) { value = r.PathValue(name) })
	mux.ServeHTTP(nil, req.Clone(context.Background()))
	return value
}

// sentBody returns the body of a request before it was compressed, or nil if it can't be.
func sentBody(req *http.Request) []byte {
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	var r io.Reader = body
	if req.Header.Get("Content-Encoding") == "gzip" {
		if r, err = gzip.NewReader(body); err != nil {
			return nil
		}
	}
	out, err := io.ReadAll(r)
	if err != nil {
		return nil
	}
	return out
}

func init() {
	text := func(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		data, err := io.ReadAll(body)
		return string(data), err
	}
	for _, kind := range []string{"application/x-ndjson", "application/ndjson", "application/octet-stream"} {
		openapi3filter.RegisterBodyDecoder(kind, text)
	}
}

// describe holds a request and its answer against the description of the interface.
func (s *testServer) describe(req *http.Request, got answer) {
	s.t.Helper()
	d, err := described()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := d.check(req, got, s.roleOf); err != nil {
		s.t.Errorf("%s %s: %v", req.Method, req.URL, err)
	}
}

// roleOf returns the role of the key that a request presents, "" if it is none of the server.
func (s *testServer) roleOf(req *http.Request) log.Role {
	text, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	id, err := log.ParseKey(text)
	if err != nil {
		return ""
	}
	key, err := s.store.Store.Key(context.Background(), id)
	if err != nil || !key.Matches(text) {
		return ""
	}
	return key.Role
}

func TestEveryRouteIsDescribedAndEveryDescriptionIsARoute(t *testing.T) {
	t.Parallel()
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for path, item := range d.Paths.Map() {
		for method := range item.Operations() {
			have = append(have, method+" "+muxPath(path))
		}
	}
	var want []string
	for _, pattern := range newTestServer(t, time.Minute).api.Patterns() {
		if pattern != "/" { // what no route is for
			want = append(want, pattern)
		}
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("described are\n%s\nand served\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

func TestTheDescriptionIsServedToAnyone(t *testing.T) {
	t.Parallel()
	got := newTestServer(t, time.Minute).get("/openapi.yaml", "")
	want, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/yaml" || !bytes.Equal(got.body, want) {
		t.Errorf("got %d %v and %d bytes, want the %d bytes of openapi.yaml", got.status, got.header, len(got.body), len(want))
	}
}

// The codes are what programs go by: the table for people has the same ones.
func TestErrorCodesAreThoseOfTheTable(t *testing.T) {
	t.Parallel()
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, have []string
	for _, m := range regexp.MustCompile("(?m)^\\| [45][0-9]{2} \\| `([a-z_]+)` \\|").FindAllSubmatch(page, -1) {
		want = append(want, string(m[1]))
	}
	for _, code := range d.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		have = append(have, fmt.Sprint(code))
	}
	slices.Sort(want)
	slices.Sort(have)
	if want = slices.Compact(want); len(want) < 20 || !slices.Equal(have, want) {
		t.Errorf("described are %v, in the table %v", have, want)
	}
}
