package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/treeline-log/treeline/log"
)

// list is the envelope of lists, but for those of records.
type list struct {
	Data       any     `json:"data"`
	NextCursor *string `json:"next_cursor"`
	HasMore    bool    `json:"has_more"`
}

// readAdmin reads a small JSON object into v, and refuses members that it shouldn't have.
func readAdmin(w http.ResponseWriter, r *http.Request, v any, members ...string) error {
	if kind, err := mediaType(r); err != nil {
		return err
	} else if kind != "application/json" {
		return unsupported(kind, "application/json")
	}
	var body bytes.Buffer
	if err := readBody(nil, &body, w, r, maxAdminBody); err != nil {
		return err
	}
	// encoding/json alone would take duplicate members, and names in any case.
	canonical, err := log.AppendCanonical(nil, body.Bytes())
	if err != nil {
		return badRequest("the body: %v", err)
	}
	var have map[string]json.RawMessage
	if err := json.Unmarshal(canonical, &have); err != nil {
		return badRequest("the body: %v", err)
	}
	for name := range have {
		if !slices.Contains(members, name) {
			return badRequest("the body: member %q is unknown here; known are: %s", name, strings.Join(members, ", "))
		}
	}
	if err := json.Unmarshal(canonical, v); err != nil {
		return badRequest("the body: %v", err)
	}
	return nil
}
