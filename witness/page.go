package witness

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
)

// pageLogs is how many logs are on one page for people.
const pageLogs = 500

// page is the whole of what people are shown. It loads nothing from anywhere.
var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Witness {{.Name}}</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color-scheme: light dark }
code { overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; vertical-align: top; overflow-wrap: anywhere }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
</style>
</head>
<body>
<h1>Witness {{.Name}}</h1>
<p>This is a <a href="https://c2sp.org/tlog-witness">transparency log witness</a>. It cosigns a checkpoint of a log only with proof that
it extends the last one that it cosigned. Verifier keys:</p>
<ul>{{range .VKeys}}<li><code>{{.}}</code></li>{{end}}</ul>
<h2>{{.Known}} logs</h2>
<table>
<tr><th>origin</th><th class="n">size</th><th>cosigned</th></tr>
{{- range .Logs}}
<tr><td>{{if .Path}}<a href="{{.Path}}">{{.Origin}}</a>{{else}}{{.Origin}}{{end}}</td><td class="n">{{if .Path}}{{.Size}}{{end}}</td><td>{{.At}}</td></tr>
{{- end}}
</table>
{{- if .Next}}
<p><a href="{{.Next}}">more logs</a></p>
{{- end}}
</body>
</html>
`))

// pageData is what the page is filled with.
type pageData struct {
	Name  string
	VKeys []string
	Known int
	Logs  []pageLog
	Next  string // the next page, "" if this is the last
}

type pageLog struct {
	Origin string
	Size   uint64
	At     string
	Path   string // of the checkpoint, "" if none was cosigned yet
}

// getPage answers GET /, for people.
func (s *Server) getPage(w http.ResponseWriter, r *http.Request) {
	after := r.URL.Query().Get("after")
	if after != "" && checkOrigin(after) != nil { // a database may not even take it
		s.writeError(w, fmt.Errorf("%w: no log has the origin after which the page is to begin", errMalformed))
		return
	}
	heads, err := s.state.Heads(r.Context(), after, pageLogs)
	if err != nil {
		s.writeError(w, err)
		return
	}
	data := pageData{VKeys: s.VKeys(), Known: s.logs.len(), Name: s.cosigners[0].Name()}
	for _, h := range heads {
		l := pageLog{Origin: h.Origin, Size: h.Size, At: "never"}
		if h.At > 0 {
			l.Path, l.At = checkpoint.OriginHash(h.Origin)+"/checkpoint", h.Time().Format(time.DateTime+" UTC")
		}
		data.Logs = append(data.Logs, l)
	}
	if len(heads) == pageLogs {
		data.Next = "?after=" + url.QueryEscape(heads[len(heads)-1].Origin)
	}
	var html bytes.Buffer
	if err := page.Execute(&html, data); err != nil {
		s.writeError(w, err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	w.Write(html.Bytes())
}
