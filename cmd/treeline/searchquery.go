package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// searchFields are the fields of a query, with the filters of GET /v1/events that they are. The filters' own names are fields, too,
// and so are all that begin with metadataField.
var searchFields = map[string]string{
	"action": "action", "actor": "actor_id", "email": "actor_email", "target": "target_id", "type": "target_type",
	"outcome": "outcome", "ip": "ip", "since": "from", "until": "to",
	"actor_id": "actor_id", "actor_email": "actor_email", "target_id": "target_id", "target_type": "target_type",
	"from": "from", "to": "to", "received_from": "received_from", "received_to": "received_to",
}

const metadataField = "metadata."

// searchGrammar is what treeline search --help says of queries.
const searchGrammar = `A QUERY is terms with spaces between them, in any order; write it in quotation marks of your shell. An event is found if all of them
say so:

  word              the word is in the event's action or id, in a name, an email, an id of its actor or targets, in its session_id or
                    request_id, or in a text in its metadata; whether letters are capitals doesn't matter
  begin*            a word that begins like this is
  "any text"        the same for all words of the text, in any order; what would be a field: isn't one in there
  actor:ID          who did it                     email:ADDRESS     the actor's email
  target:ID         what it was done to            type:TYPE         the type of a target
  action:NAME       what was done, or with a * at the end what begins like that: action:user.permission.*
  outcome:OUTCOME   success, failure, denied or unknown
  ip:ADDRESS        where it was done from
  metadata.a.b:VALUE
  since:TIME        when it was done: at TIME or later       until:TIME    before TIME
                    TIME is 90d, 12h, 15m or 30s ago, a day (2026-11-23, which begins at midnight UTC), or a time such as
                    2026-11-23T09:30:00+01:00
  received_from:TIME, received_to:TIME    the same of when the server received it

A VALUE with spaces is written in "quotation marks", with \" and \\ inside. A field that is given several times is met by any of its
values. There is no "not", and no "or" between different fields.`

// parseSearch returns the filters that a query stands for, as parameters of GET /v1/events. Their values are the server's to judge.
func parseSearch(text string) (url.Values, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("the query is not UTF-8")
	}
	filters, words := url.Values{}, []string(nil)
	for rest := strings.TrimLeftFunc(text, unicode.IsSpace); rest != ""; rest = strings.TrimLeftFunc(rest, unicode.IsSpace) {
		term, err := cutTerm(&rest)
		if err != nil {
			return nil, err
		}
		switch {
		case term.field == "" && term.quoted:
			words = append(words, strings.ReplaceAll(term.value, `"`, " "))
		case term.field == "" && strings.HasPrefix(term.value, "-"):
			return nil, withHint(fmt.Errorf("%s: what isn't there can't be asked for", term.value), `to find the word itself, write it in "quotation marks"`)
		case term.field == "" && slices.Contains([]string{"AND", "OR", "NOT"}, term.value):
			return nil, withHint(fmt.Errorf("%s is no operator: all terms must be met, and of a field that is given twice one value", term.value),
				`to find the word itself, write it in "quotation marks"`)
		case term.field == "":
			words = append(words, term.value)
		case strings.HasPrefix(term.field, metadataField):
			filters.Add(term.field, term.value)
		default:
			name, ok := searchFields[term.field]
			if !ok {
				return nil, withHint(fmt.Errorf("%s: there is no such field", term.field),
					fmt.Sprintf(`fields are %s and metadata.NAME; to find words with a colon between them, write them in "quotation marks"`,
						strings.Join(slices.Sorted(maps.Keys(searchFields)), ", ")))
			}
			if name == "from" || name == "to" || strings.HasPrefix(name, "received_") {
				term.value = searchTime(term.value)
			}
			filters.Add(name, term.value)
		}
	}
	if words != nil {
		filters.Set("q", strings.Join(words, " "))
	}
	return filters, nil
}

// searchTerm is one term of a query.
type searchTerm struct {
	field, value string
	quoted       bool // the value
}

// cutTerm takes the first term from the query.
func cutTerm(query *string) (t searchTerm, err error) {
	rest := *query
	if end := strings.IndexFunc(rest, func(r rune) bool { return r == ':' || r == '"' || unicode.IsSpace(r) }); end > 0 && rest[end] == ':' {
		t.field, rest = rest[:end], rest[end+1:]
	}
	if t.quoted = strings.HasPrefix(rest, `"`); t.quoted {
		t.value, rest, err = cutQuoted(rest)
	} else {
		end := strings.IndexFunc(rest, func(r rune) bool { return r == '"' || unicode.IsSpace(r) })
		if end < 0 {
			end = len(rest)
		}
		t.value, rest = rest[:end], rest[end:]
	}
	if next, _ := utf8.DecodeRuneInString(rest); err == nil && rest != "" && !unicode.IsSpace(next) {
		err = fmt.Errorf("%.40s: there is no space around a text in quotation marks", strings.TrimSpace(*query))
	}
	*query = rest
	return t, err
}

// cutQuoted takes a text in quotation marks from the beginning of a query.
func cutQuoted(query string) (value, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(query); i++ {
		switch c := query[i]; {
		case c == '"':
			return b.String(), query[i+1:], nil
		case c == '\\' && i+1 < len(query) && (query[i+1] == '"' || query[i+1] == '\\'):
			i++
			b.WriteByte(query[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", fmt.Errorf("%.40s: the quotation mark isn't closed", query)
}

var (
	agoRE = regexp.MustCompile(`^[0-9]+[dhms]$`)
	dayRE = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)
)

// searchTime returns the time of a query as the server takes it.
func searchTime(text string) string {
	switch {
	case agoRE.MatchString(text):
		return "-" + text
	case dayRE.MatchString(text):
		return text + "T00:00:00Z"
	}
	return text
}
