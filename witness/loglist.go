package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/treeline-log/treeline/checkpoint"
)

const (
	// listHeader is the line that a list of logs begins with.
	listHeader = "logs/v0"

	// maxList bounds a list. One of 40,000 logs, the largest there is, has some 8 MB.
	maxList = 32 << 20

	// maxQPD is the greatest number of requests a day that a list can give: "a number in the range [1, 2^31)".
	maxQPD = 1<<31 - 1

	maxContact = 1 << 10 // bytes
	maxOrigin  = 255     // bytes; ML-DSA-44 cosignatures can't name a log with a longer one

	// maxListKeys is how many keys a list may have of one log.
	maxListKeys = 16
)

// A ListError is a fault of a list of logs.
type ListError struct {
	Line   int // from 1
	Detail string
}

func (e *ListError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Detail) }

// ParseLogList parses a list of logs in the format logs/v0 of the witness network
// (https://github.com/transparency-dev/witness-network/blob/main/log-list-format.md). The error is a *ListError.
//
// After the line "logs/v0" each log has the lines vkey, origin (which may be left out: then it is the key's name), qpd and contact,
// in this order. Empty lines and those that begin with # are ignored, as is white space around a line. A log may be there with
// several keys, in blocks of their own; with one key it may be there once, and there are 16 at most.
//
// The format's text permits keys of plain Ed25519 only; this parser takes every kind that [checkpoint.NewVerifier] knows, since
// logs begin to have others. One fault makes the whole list invalid.
func ParseLogList(data []byte) ([]LogKey, error) {
	p := listParser{seen: make(map[[2]string]int), count: make(map[string]int)}
	if err := p.parse(data); err != nil {
		return nil, err
	}
	return p.keys, nil
}

// stage is which line of a log's block comes next.
type stage int

const (
	wantVKey stage = iota
	wantOriginOrQPD
	wantQPD
	wantContact
)

func (s stage) String() string { return [...]string{"vkey", "origin or qpd", "qpd", "contact"}[s] }

// listParser is how far ParseLogList has come.
type listParser struct {
	keys   []LogKey
	seen   map[[2]string]int // origin and key → the line of the key
	count  map[string]int    // origin → how many keys it has
	header bool
	stage  stage
	now    LogKey // the block that is being read
	line   int    // from 1
	vkeyAt int    // the line of now.VKey
}

func (p *listParser) fault(format string, args ...any) error {
	return &ListError{p.line, fmt.Sprintf(format, args...)}
}

func (p *listParser) parse(data []byte) error {
	if len(data) > maxList {
		return p.fault("the list has %d bytes, want <= %d", len(data), maxList)
	}
	for raw := range bytes.Lines(data) {
		p.line++
		line := string(bytes.TrimSpace(raw))
		switch {
		case !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl):
			return p.fault("it isn't text")
		case line == "" || line[0] == '#':
		case !p.header:
			if line != listHeader {
				return p.fault("got %.60q, want %q", line, listHeader)
			}
			p.header = true
		default:
			if err := p.member(line); err != nil {
				return err
			}
		}
	}
	switch {
	case !p.header:
		return p.fault("the list ends before the line %q", listHeader)
	case p.stage != wantVKey:
		return p.fault("the list ends within a log, want %v", p.stage)
	}
	return nil
}

// member reads one line of a log's block.
func (p *listParser) member(line string) error {
	name, value, _ := strings.Cut(line, " ")
	value = strings.TrimSpace(value)
	switch {
	case name == "vkey" && p.stage == wantVKey:
		v, err := checkpoint.NewVerifier(value)
		if err != nil {
			return p.fault("%v", err)
		}
		p.now, p.stage, p.vkeyAt = LogKey{Origin: v.Name(), VKey: value}, wantOriginOrQPD, p.line
	case name == "origin" && p.stage == wantOriginOrQPD:
		if err := checkOrigin(value); err != nil {
			return p.fault("%v", err)
		}
		p.now.Origin, p.stage = value, wantQPD
	case name == "qpd" && (p.stage == wantOriginOrQPD || p.stage == wantQPD):
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || n < 1 || n > maxQPD || strconv.FormatUint(n, 10) != value {
			return p.fault("qpd %.30q, want a decimal from 1 to %d", value, maxQPD)
		}
		p.now.QPD, p.stage = n, wantContact
	case name == "contact" && p.stage == wantContact:
		p.now.Contact, p.stage = value, wantVKey
		return p.end()
	default:
		return p.fault("got %.30q, want %v", name, p.stage)
	}
	return nil
}

// end takes the block that was read.
func (p *listParser) end() error {
	if _, err := NewLogKey(p.now); err != nil {
		return p.fault("%v", err)
	}
	id := [2]string{p.now.Origin, p.now.VKey}
	if line := p.seen[id]; line != 0 {
		return p.fault("the same key of the same log as in line %d", line)
	}
	if p.count[p.now.Origin]++; p.count[p.now.Origin] > maxListKeys {
		return p.fault("more than %d keys of one log", maxListKeys)
	}
	p.seen[id] = p.vkeyAt
	p.keys = append(p.keys, p.now)
	return nil
}

// NewLogKey returns k if a log can have that key, its origin filled in from the key's name where it is empty.
func NewLogKey(k LogKey) (LogKey, error) {
	v, err := checkpoint.NewVerifier(k.VKey)
	if err != nil {
		return LogKey{}, err
	}
	if k.Origin == "" {
		k.Origin = v.Name()
	}
	if err := checkOrigin(k.Origin); err != nil {
		return LogKey{}, err
	}
	if k.QPD > maxQPD {
		return LogKey{}, fmt.Errorf("qpd %d, want <= %d", k.QPD, maxQPD)
	}
	if len(k.Contact) > maxContact {
		return LogKey{}, fmt.Errorf("a contact of %d bytes, want <= %d", len(k.Contact), maxContact)
	}
	return k, nil
}

// checkOrigin returns an error for an origin that no checkpoint can have which [checkpoint.ParseForeignNote] takes.
func checkOrigin(origin string) error {
	if origin == "" || len(origin) > maxOrigin || !utf8.ValidString(origin) || strings.ContainsFunc(origin, unicode.IsControl) {
		return fmt.Errorf("origin %.60q, want 1 to %d bytes of text without control characters", origin, maxOrigin)
	}
	return nil
}

// ParseLogs parses a file that an operator wrote: a list of logs, or a policy (C2SP tlog-policy), of which the lines "log" count.
func ParseLogs(data []byte) ([]LogKey, error) {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if string(line) == listHeader {
			return ParseLogList(data)
		}
		break
	}
	policy, err := checkpoint.ParsePolicy(data)
	if err != nil {
		return nil, err
	}
	var keys []LogKey
	for _, l := range policy.Logs {
		k, err := NewLogKey(LogKey{VKey: l.VKey})
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// listClient fetches lists. It is in no hurry, and goes where a list's operator sends it, but never from a place with TLS to one
// without, be that on this machine: nobody elsewhere may have it ask what only listens here.
var listClient = &http.Client{
	Timeout: time.Minute,
	CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return errors.New("more than 5 redirects")
		}
		if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return fmt.Errorf("a redirect to %.200q: want https", req.URL)
		}
		return CheckListURL(req.URL.String())
	},
}

// CheckListURL returns an error unless a list may be fetched from there: by https, or, for tests and for a server beside this one,
// by http from the machine itself. A list makes keys trusted, so nobody on the way may change it.
func CheckListURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("list %.200q: want an https URL", text)
	}
	if u.Scheme == "http" && u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback() {
		return fmt.Errorf("list %.200q: want https, since a list says which keys to trust", text)
	}
	return nil
}

// fetchList gets and parses a list.
func fetchList(ctx context.Context, url string) ([]LogKey, error) {
	if err := CheckListURL(url); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := listClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("list %s: got status %d, want 200", url, resp.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxList+1))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", url, err)
	}
	keys, err := ParseLogList(data)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", url, err)
	}
	return keys, nil
}
