package monitor

import (
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
)

// A Target is a log that is to be followed, at one of its URLs.
type Target struct {
	URL    string // the public prefix, below which are checkpoint and tile/
	Origin string // see [Origin]
	Kind   Kind   // "" for what the origin says: see [KindOf]
	Key    string // bearer key for that URL, "" for none
}

// ParseURL returns a URL as it is used below, without a slash at its end, and the host that a key for it may be sent to. A URL with
// a password or a query is an error, since URLs are shown.
func ParseURL(text string) (base, host string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", "", fmt.Errorf("%.200q is not a log's URL, such as https://audit.example.com/logs/acme", text)
	}
	return strings.TrimSuffix(u.String(), "/"), u.Host, nil
}

// Origin returns the origin of the log that is at the URL, one of those that keys are pinned for. What is served there must be of
// that log, so it isn't what is served there that decides:
//
//   - the origin of the policy's log that has this URL, else
//   - the URL without its scheme, if there is a key for that, else
//   - the only origin whose last part, /logs/<name>, is that of the URL, else
//   - the only origin that there is.
func Origin(base string, policy *checkpoint.Policy, keys []note.Verifier) (string, error) {
	var origins []string
	add := func(name string) {
		for _, known := range origins {
			if known == name {
				return
			}
		}
		origins = append(origins, name)
	}
	if policy != nil {
		for _, l := range policy.Logs {
			if l.URL != "" && strings.TrimSuffix(l.URL, "/") == base {
				return l.Verifier.Name(), nil
			}
			add(l.Verifier.Name())
		}
	}
	for _, v := range keys {
		add(v.Name())
	}
	_, plain, _ := strings.Cut(base, "://")
	var alike []string
	for _, origin := range origins {
		if origin == plain {
			return origin, nil
		}
		if i := strings.LastIndex(origin, "/logs/"); i >= 0 && strings.HasSuffix(plain, origin[i:]) {
			alike = append(alike, origin)
		}
	}
	switch {
	case len(alike) == 1:
		return alike[0], nil
	case len(alike) == 0 && len(origins) == 1:
		return origins[0], nil
	}
	return "", fmt.Errorf("which of the %d logs whose keys are pinned is at %s? Write the URL behind its key in the policy", len(origins), base)
}

// KindOf returns what a log's entries are by its origin: a hub's, those of a log of Treeline, or unknown ones.
func KindOf(origin string) Kind {
	switch {
	case checkpoint.CheckOrigin(origin) != nil:
		return Opaque
	case strings.HasSuffix(origin, "/logs/hub"):
		return Hub
	}
	return Chained
}
