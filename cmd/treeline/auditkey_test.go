package main

import (
	"cmp"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/witness/monitor"
)

// Each log gets the key that was given for it, and no other host gets any.
func TestAuditKeys(t *testing.T) {
	const hub, acme, other = "https://a.example/logs/hub", "https://a.example/logs/acme", "https://b.example/logs/acme"
	for _, row := range []struct {
		keys, urls []string
		want       string // the logs' keys, or a part of the error
	}{
		{[]string{"k1"}, []string{hub, acme}, "k1 k1"},
		{[]string{"a.example=k1"}, []string{hub, acme, other}, "k1 k1 -"},
		{[]string{hub + "=k1", acme + "/=k2"}, []string{hub, acme, other}, "k1 k2 -"},
		{[]string{hub + "=k1", "k2"}, []string{hub, acme}, "k1 k2"},
		{[]string{"a.example=k1", acme + "=k2"}, []string{hub, acme}, "k1 k2"},
		{[]string{"k1", "k2"}, []string{hub, acme}, "two keys for the host a.example"},
		{[]string{"k1"}, []string{hub, other}, "there are several hosts"},
		{[]string{other + "=k1"}, []string{hub, acme}, "no log is followed at"},
		{[]string{"b.example=k1"}, []string{hub, acme}, `no log is at the host "b.example"`},
		{[]string{"two words"}, []string{hub}, "what no key has"},
	} {
		var targets []monitor.Target
		var hosts []string
		for _, url := range row.urls {
			base, host, err := monitor.ParseURL(url)
			if err != nil {
				t.Fatal(err)
			}
			targets, hosts = append(targets, monitor.Target{URL: base}), append(hosts, host)
		}
		var got string
		if err := (auditOptions{keys: row.keys}).addKeys(targets, hosts); err != nil {
			got = err.Error()
		} else {
			var keys []string
			for _, target := range targets {
				keys = append(keys, cmp.Or(target.Key, "-"))
			}
			got = strings.Join(keys, " ")
		}
		if !strings.Contains(got, row.want) {
			t.Errorf("%q for %q: got %q, want %q", row.keys, row.urls, got, row.want)
		}
	}
}
