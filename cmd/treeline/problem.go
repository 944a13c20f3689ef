package main

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// problem is an answer of the server that isn't a success: an application/problem+json body (RFC 9457), or what
// could be learned from another body, which a proxy or a server that isn't Treeline sends.
type problem struct {
	Title     string  `json:"title"`
	Status    int     `json:"status"`
	Detail    string  `json:"detail"`
	Code      string  `json:"code"`
	RequestID string  `json:"request_id"`
	Errors    []fault `json:"errors"`
}

// fault is one thing that is wrong with what was sent.
type fault struct {
	Index     *int   `json:"index"`     // position of the event in the batch, from 0; nil when there is only one
	Pointer   string `json:"pointer"`   // JSON Pointer to the place in the event as it was sent
	Parameter string `json:"parameter"` // of the query, where that is what is wrong
	Detail    string `json:"detail"`
}

func (f fault) String() string {
	if where := f.Pointer + f.Parameter; where != "" { // one of them at most
		return where + ": " + f.Detail
	}
	return f.Detail
}

// parseProblem returns the problem that a response with the given status, header and body tells. The status line
// is believed rather than the body's copy of it.
func parseProblem(status int, header http.Header, body []byte) *problem {
	p := &problem{}
	mediaType, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	if mediaType != "application/problem+json" || json.Unmarshal(body, p) != nil {
		*p = problem{Detail: excerpt(body)}
	}
	p.Status = status
	if p.Title == "" {
		p.Title = strings.ToLower(http.StatusText(status))
	}
	return p
}

// excerpt returns the beginning of a body that is not for us to understand, on one line.
func excerpt(body []byte) string {
	const most = 200
	text := strings.Join(strings.Fields(string(body[:min(len(body), most)])), " ")
	if len(body) > most {
		text += "…"
	}
	return text
}

func (p *problem) Error() string {
	return p.text(func(index int) string { return "event " + strconv.Itoa(index) })
}

// text returns what p says, with each fault's place in the batch as place spells it: on one line, or, when there
// are several faults, with one more line for each.
func (p *problem) text(place func(index int) string) string {
	where := func(f fault) string {
		if f.Index == nil {
			return f.String()
		}
		return place(*f.Index) + ": " + f.String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "server answered %d", p.Status)
	switch {
	case p.Code != "":
		fmt.Fprintf(&b, " %s", p.Code)
	case p.Title != "":
		fmt.Fprintf(&b, " %s", p.Title)
	}
	switch {
	case len(p.Errors) == 1:
		fmt.Fprintf(&b, ": %s", where(p.Errors[0]))
	case p.Detail != "":
		fmt.Fprintf(&b, ": %s", p.Detail)
	}
	if p.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", p.RequestID)
	}
	line := printable(b.String(), "")
	if len(p.Errors) > 1 {
		for _, f := range p.Errors {
			line += "\n  " + printable(where(f), "")
		}
	}
	return line
}

// hint returns what the caller can do about p, or "" when only the problem's own words say it.
func (p *problem) hint() string {
	switch {
	case p.Code == "not_signed":
		return "the event is stored but no checkpoint covers it yet: try again, or look at the server's /readyz"
	case p.Code == "not_witnessed":
		return "the event is stored but the hub's witnesses haven't cosigned what covers it yet: try again, or look at the server's /readyz"
	case p.Code == "own_approval":
		return "have another person approve it, with a key of their own"
	case p.Code == "held":
		return "see which by: treeline hold list"
	case p.Code == "plan_changed":
		return "do it again: what would be erased is looked for anew"
	case p.Code == "approval_needed":
		return "see it by: treeline retention show"
	case slices.Contains([]string{"frozen", "log_stopped", "key_replaced", "key_ended", "min_age", "released", "nothing_to_erase", "running"}, p.Code):
		return "" // no other id helps, nor does waiting
	case p.Status == http.StatusUnauthorized:
		return "give a valid key by --key-file FILE or TREELINE_KEY (a new server writes its admin key to admin.key in its data directory)"
	case p.Status == http.StatusForbidden:
		return "use a key whose role allows this (an admin makes one with: treeline key create)"
	case p.Status == http.StatusConflict:
		return "choose another id or name"
	case p.Status == http.StatusRequestEntityTooLarge:
		return "send less at once"
	case p.Status >= 300 && p.Status < 400:
		return "give the address it redirects to as --server"
	case p.Status == http.StatusTooManyRequests, p.Status >= 500:
		return "try again later"
	default:
		return ""
	}
}

// transient reports whether the same request may succeed when it is sent again later.
func (p *problem) transient() bool {
	switch p.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return p.Code == "not_signed" || p.Code == "not_witnessed"
}
