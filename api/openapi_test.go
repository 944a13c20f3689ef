package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/treeline-log/treeline/api/client"
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
	for _, one := range s.OneOf {
		closeSchema(one, seen)
	}
	for _, p := range s.Properties {
		closeSchema(p, seen)
	}
}

// check holds a request and its answer against the description. A request that was served must be one that is described, its key one
// of a role that is.
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
	if operation.RequestBody == nil && string(sent) == "{}" {
		sent = nil // says as much as nothing, where nothing is asked for
	}
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
	if got.status/100 == 2 {
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
	}
	err := openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: got.status, Header: got.header, Body: io.NopCloser(bytes.NewReader(got.body)),
		Options: input.Options,
	})
	if err == nil && got.status == http.StatusOK && got.header.Get("Content-Type") == "application/x-ndjson" && got.header.Get("Content-Encoding") == "" {
		if path == "/v1/verify" {
			err = d.checkVerified(got.body)
		} else {
			err = d.checkExport(got.body)
		}
	}
	if err != nil {
		return fmt.Errorf("the answer %d is not what is described: %w", got.status, err)
	}
	return nil
}

// checkExport holds the lines of an export against the description of one that is not in lines.
func (d *description) checkExport(body []byte) error {
	lines, err := decodeLines(body)
	if err != nil || len(lines) == 0 {
		return err
	}
	last, ok := lines[len(lines)-1].(map[string]any)
	if !ok {
		return fmt.Errorf("the last line is %v", lines[len(lines)-1])
	}
	last["data"] = lines[:len(lines)-1]
	return d.Components.Schemas["Export"].Value.VisitJSON(last, openapi3.EnableJSONSchema2020())
}

// checkVerified holds the lines of a verification against the description of each.
func (d *description) checkVerified(body []byte) error {
	lines, err := decodeLines(body)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if err := d.Components.Schemas["Verified"].Value.VisitJSON(line, openapi3.EnableJSONSchema2020()); err != nil {
			return err
		}
	}
	return nil
}

// decodeLines decodes NDJSON.
func decodeLines(body []byte) ([]any, error) {
	lines := []any{}
	for line := range bytes.Lines(body) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		v, err := openapi3filter.JSONBodyDecoder(bytes.NewReader(line), nil, nil, nil)
		if err != nil {
			return nil, err
		}
		lines = append(lines, v)
	}
	return lines, nil
}

// checkLines holds a batch of lines against the description of a batch.
func (d *description) checkLines(body []byte) error {
	events, err := decodeLines(body)
	if err != nil {
		return err
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
	for _, kind := range []string{"application/x-ndjson", "application/ndjson", "application/octet-stream", "text/csv"} {
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

// The description says of each route which roles may ask for it, as the table for people does.
func TestTheDescriptionSaysWhoMayAsk(t *testing.T) {
	t.Parallel()
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	columns, cells := roleTable(t)
	for path, item := range d.Paths.Map() {
		for method, operation := range item.Operations() {
			row := cells[method+" "+muxPath(path)]
			var have, want []string
			for _, alternative := range *operation.Security {
				if len(alternative) == 0 {
					have = append(have, "no key")
				}
				have = append(have, alternative["key"]...)
			}
			for _, column := range columns {
				if row[column] != "" {
					want = append(want, column)
				}
			}
			if len(want) == len(columns) && row["no key"] == "yes" {
				want = nil // nobody is asked for a key
			}
			slices.Sort(have)
			slices.Sort(want)
			if !slices.Equal(have, want) {
				t.Errorf("%s %s: described are the roles %v, in the table are %v", method, path, have, want)
			}
		}
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
	for _, m := range regexp.MustCompile("(?m)^\\| [45][0-9, ]+ \\| (`[a-z_`, ]+`) \\|").FindAllSubmatch(page, -1) {
		want = append(want, strings.Split(strings.ReplaceAll(string(m[1]), "`", ""), ", ")...)
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

// The client has types of its own. What it may say is described, and of what it is answered it knows every member.
func TestTheClientKnowsWhatIsDescribed(t *testing.T) {
	t.Parallel()
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	schema := func(path ...string) *openapi3.Schema {
		t.Helper()
		s := d.Components.Schemas[path[0]].Value
		for _, name := range path[1:] {
			if s = s.Properties[name].Value; s.Items != nil {
				s = s.Items.Value
			}
		}
		return s
	}
	flat := []string{ // other spellings, which the client has no use for
		"actor_id", "actor_type", "actor_name", "actor_email", "target_id", "target_type", "target_name", "ip", "user_agent",
	}
	for _, x := range []struct {
		of      any
		schema  *openapi3.Schema
		except  []string // of the description
		besides []string // of the client's type
	}{
		{client.Event{}, schema("NewEvent"), flat, []string{"credential"}},
		{client.Event{}, schema("Event"), nil, nil},
		{client.Actor{}, schema("NewEvent", "actor"), nil, nil},
		{client.Target{}, schema("NewEvent", "targets"), nil, nil},
		{client.Context{}, schema("NewEvent", "context"), nil, nil},
		{client.Change{}, schema("NewEvent", "changes"), nil, nil},
		{client.Record{}, schema("Appended"), []string{"unchecked"}, nil},
		{client.Place{}, schema("Places", "data"), []string{"unchecked"}, nil},
		{client.Page{}, schema("EventList"), nil, nil},
		{client.Checkpoint{}, schema("Checkpoint"), []string{"witnesses", "release", "evidence"}, nil},
		{client.ExportEnd{}, schema("ExportEnd"), nil, nil},
		{client.Error{}, schema("Problem"), []string{"type"}, nil},
		{client.Item{}, schema("Problem", "errors"), nil, nil},
	} {
		var have, want []string
		for f := range reflect.TypeOf(x.of).Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && !slices.Contains(x.besides, name) {
				have = append(have, name)
			}
		}
		for name := range x.schema.Properties {
			if !slices.Contains(x.except, name) {
				want = append(want, name)
			}
		}
		slices.Sort(have)
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("%T has the members %v, described are %v", x.of, have, want)
		}
	}
}

// describing is a way to the server on which every exchange is held against the description.
type describing struct {
	s     *testServer
	query url.Values // of the last request
}

func (d *describing) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	d.query = r.URL.Query()
	d.s.describe(r, answer{resp.StatusCode, resp.Header, body})
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// Whatever the client can ask is described, and of a list it can ask everything.
func TestTheClientAsksWhatIsDescribed(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	way := &describing{s: s}
	c, err := client.New(client.Config{Server: s.url, Key: s.admin, Log: "default", HTTP: &http.Client{Transport: way}})
	if err != nil {
		t.Fatal(err)
	}
	event := client.Event{
		ID: "a", Action: "a.b", OccurredAt: time.Now(), Actor: client.Actor{ID: "u", Type: "t", Name: "n", Email: "e@example.com"},
		Targets: []client.Target{{ID: "t", Type: "t", Name: "n"}}, Outcome: client.Success,
		Context:  client.Context{IP: "192.0.2.1", UserAgent: "u", Location: "l", SessionID: "s", RequestID: "r", Traceparent: "t"},
		Changes:  []client.Change{{Field: "f", Before: nil, After: 1}},
		Metadata: map[string]any{"a": map[string]any{"b": "c"}},
	}
	if _, err := c.AppendAndWait(t.Context(), event, client.Signed); err != nil {
		t.Error(err)
	}
	if _, err := c.AppendBatch(t.Context(), []client.Event{event, {Action: "a.c"}}); err != nil {
		t.Error(err)
	}
	query := client.Query{
		Words: []string{"example n"}, Actions: []string{"a.*", "b"}, ActorIDs: []string{"u", "v"}, ActorEmails: []string{"e@example.com"}, TargetIDs: []string{"t"},
		TargetTypes: []string{"t"}, Outcomes: []client.Outcome{client.Success, client.Denied}, IPs: []string{"192.0.2.1"},
		From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour), ReceivedFrom: time.Now().Add(-time.Hour), ReceivedTo: time.Now().Add(time.Hour),
		Metadata: map[string][]string{"a.b": {"c", "d"}}, Oldest: true, Limit: 1,
	}
	page, err := c.Events(t.Context(), query)
	if err != nil || len(page.Records) != 1 || page.Records[0].ID != "a" {
		t.Errorf("got %+v, %v", page, err)
	}
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Paths.Value("/v1/events").Get.Parameters {
		name := p.Value.Name
		if name == "metadata" {
			name = "metadata.a.b"
		}
		if name != "cursor" && way.query[name] == nil {
			t.Errorf("the client doesn't ask for %s", name)
		}
	}
	if _, err := c.Events(t.Context(), client.Query{Cursor: "x"}); !client.IsCode(err, "invalid_request") {
		t.Errorf("got %v", err)
	}
	for record, err := range c.Follow(t.Context(), 0) {
		if err != nil || record.Index == 1 {
			break
		}
	}
	_, eventErr := c.Event(t.Context(), "a")
	_, exportErr := c.Export(t.Context(), query, client.NDJSON, io.Discard)
	_, proofErr := c.Proof(t.Context(), "a", client.Signed)
	_, headErr := c.Checkpoint(t.Context())
	if err := errors.Join(eventErr, exportErr, proofErr, headErr); err != nil {
		t.Error(err)
	}
}
