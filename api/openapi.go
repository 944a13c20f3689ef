package api

import (
	_ "embed"
	"net/http"
	"strconv"
)

// openAPI describes the whole interface (OpenAPI 3.1). The tests hold every request and answer of theirs against it.
//
//go:embed openapi.yaml
var openAPI []byte

// getOpenAPI answers with the description, to anyone.
func getOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "application/yaml") // RFC 9512
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Length", strconv.Itoa(len(openAPI)))
	w.Write(openAPI)
	return nil
}
