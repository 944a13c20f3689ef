package main

import (
	"strings"
	"testing"
)

func TestSearchQueries(t *testing.T) {
	for _, row := range []struct{ query, want string }{
		{"", ""},
		{"  \t ", ""},
		{"actor:user_456 action:user.permission.* since:90d", "action=user.permission.*&actor_id=user_456&from=-90d"},
		{"actor:a actor:b outcome:denied", "actor_id=a&actor_id=b&outcome=denied"},
		{"email:a@example.com target:t type:doc ip:::1", "actor_email=a@example.com&ip=::1&target_id=t&target_type=doc"},
		{"actor_id:a actor_email:e target_id:t target_type:y", "actor_email=e&actor_id=a&target_id=t&target_type=y"},
		{"jane", "q=jane"},
		{"jane  invoice*\ndoe", "q=jane invoice* doe"},
		{`"arn:aws:iam::1:user/x" y`, "q=arn:aws:iam::1:user/x y"},
		{`"a \"b\" \\c\d"`, `q=a  b  \c\d`},
		{`actor:"Jane \"J\" Doe" x`, `actor_id=Jane "J" Doe&q=x`},
		{`metadata.note:"a b" metadata.a.b:c`, "metadata.a.b=c&metadata.note=a b"},
		{"metadata.url:http://x/y?z=1", "metadata.url=http://x/y?z=1"},
		{"since:2026-11-23 until:2026-11-24T01:00:00+01:00", "from=2026-11-23T00:00:00Z&to=2026-11-24T01:00:00+01:00"},
		{"from:-12h to:15m received_from:2026-11-23 received_to:30s", "from=-12h&received_from=2026-11-23T00:00:00Z&received_to=-30s&to=-15m"},
		{"since:yesterday", "from=yesterday"}, // the server says what is wrong with it
		{"actor:", "actor_id="},
		{":x", "q=:x"},
		{`"OR" "-x"`, "q=OR -x"},
	} {
		filters, err := parseSearch(row.query)
		var got []string
		for _, name := range []string{
			"action", "actor_email", "actor_id", "from", "ip", "metadata.a.b", "metadata.note", "metadata.url", "outcome", "q", "received_from", "received_to",
			"target_id", "target_type", "to",
		} {
			for _, value := range filters[name] {
				got = append(got, name+"="+value)
			}
			delete(filters, name)
		}
		if text := strings.Join(got, "&"); err != nil || text != row.want || len(filters) > 0 {
			t.Errorf("%q:\ngot  %q, %v, %v\nwant %q", row.query, text, filters, err, row.want)
		}
	}
	for query, want := range map[string]string{
		"user:x":        "user: there is no such field",
		"Actor:x":       "Actor: there is no such field",
		"arn:aws:iam":   "arn: there is no such field",
		"metadata:x":    "metadata: there is no such field",
		"-actor:x":      "-actor: there is no such field",
		"-x":            "-x: what isn't there can't be asked for",
		"a OR b":        "OR is no operator",
		`"a`:            "the quotation mark isn't closed",
		`actor:"a`:      "the quotation mark isn't closed",
		`actor:"a\"`:    "the quotation mark isn't closed",
		`"a"b`:          "no space around",
		`a"b"`:          "no space around",
		`actor:a"b"`:    "no space around",
		"\xff":          "not UTF-8",
		"x actor:a\xff": "not UTF-8",
	} {
		if got, err := parseSearch(query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want %q", query, got, err, want)
		}
	}
}

// Every query is filters or an error, and each of its terms counts.
func FuzzSearchQueries(f *testing.F) {
	for _, query := range []string{"actor:a since:90d x", `"a b":c`, `metadata.a:"\"`, "a:\u00a0b", ":", `"`, `a:"b"c`} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		filters, err := parseSearch(query)
		if err == nil && len(filters) == 0 && strings.TrimSpace(query) != "" {
			t.Errorf("%q: got no filters", query)
		}
	})
}
