package checkpoint

import (
	"strings"
	"testing"
)

func TestCheckOrigin(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	host180 := strings.Repeat(strings.Repeat("a", 59)+".", 3) // 180 bytes, with a dot at the end
	for _, origin := range []string{
		"logs.example.com/logs/acme",
		"localhost:8080/logs/default",
		"192.0.2.1/logs/a",
		"0123456789ab.localhost/logs/default",
		"a/logs/0",
		"a:1/logs/hub",
		"xn--bcher-kva.example:65535/logs/a-b-",
		label63 + ".example/logs/" + label63,
		host180 + "abcdef/logs/" + label63, // 180 + 6 + 6 + 63 = 255
	} {
		if err := CheckOrigin(origin); err != nil {
			t.Errorf("%q: %v", origin, err)
		}
	}
	for _, origin := range []string{
		"",
		"acme",
		"/logs/acme",
		"example.com/logs/",
		"example.com/logs",
		"example.com/log/acme",
		"example.com//logs/acme",
		"example.com/audit/logs/acme",
		"example.com/logs/acme/",
		"example.com/logs/logs/acme",
		"example.com/logs/a/logs/b",
		"https://example.com/logs/acme",
		"Example.com/logs/acme",
		"example.com/logs/Acme",
		"example.com/logs/-acme",
		"example.com/logs/a_b",
		"example.com/logs/a.b",
		"example.com/logs/a+b",
		"example.com/logs/a b",
		"example.com/logs/a\n",
		"example.com/logs/bücher",
		"bücher.example/logs/a",
		"exa mple.com/logs/a",
		"exa+mple.com/logs/a",
		"exa_mple.com/logs/a",
		".example.com/logs/a",
		"example.com./logs/a",
		"example..com/logs/a",
		"-example.com/logs/a",
		"example-.com/logs/a",
		"example.com:/logs/a",
		"example.com:0/logs/a",
		"example.com:080/logs/a",
		"example.com:65536/logs/a",
		"example.com:+80/logs/a",
		"example.com:80:80/logs/a",
		"[::1]/logs/a",
		"user@example.com/logs/a",
		"example.com/logs/" + label63 + "a",
		label63 + "a.example/logs/a",
		host180 + "abcdefg/logs/" + label63, // 256 bytes
	} {
		if err := CheckOrigin(origin); err == nil {
			t.Errorf("%q: accepted", origin)
		}
	}
}
