package witness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/checkpoint"
)

const (
	vkeyA = "coachandhorses2026h1.staging.certificate.transparency.goog+3295e0b0+AY2+QOFlhz9eatgixbbGBrt5xgL3gmbYXxRaEGJ9fvm1"
	vkeyB = "witness.example/w1+aa4a09d1+BOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"
)

func TestParseLogList(t *testing.T) {
	list := "#\n# List: 100qps-40klogs\n#\n  logs/v0\t\n\n# 1st\nvkey " + vkeyA + "\nqpd 86400\ncontact google-ct-logs@googlegroups.com\n\n" +
		"  vkey " + vkeyB + "  \norigin something else \nqpd 24\ncontact sysadmin (at) bar.org\nvkey " + vkeyA + "\norigin third\nqpd 1\ncontact"
	want := []LogKey{
		{Origin: "coachandhorses2026h1.staging.certificate.transparency.goog", VKey: vkeyA, QPD: 86400, Contact: "google-ct-logs@googlegroups.com"},
		{Origin: "something else", VKey: vkeyB, QPD: 24, Contact: "sysadmin (at) bar.org"},
		{Origin: "third", VKey: vkeyA, QPD: 1},
	}
	for name, text := range map[string]string{"": list, "with CRLF": strings.ReplaceAll(list, "\n", "\r\n"), "with a last newline": list + "\n"} {
		got, err := ParseLogList([]byte(text))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("a list %s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
	if got, err := ParseLogList([]byte("logs/v0\n")); err != nil || len(got) != 0 {
		t.Errorf("a list of nothing: got %v, %v", got, err)
	}
}

func TestFaultsOfALogList(t *testing.T) {
	block := "vkey " + vkeyA + "\nqpd 10\ncontact me\n"
	many := "logs/v0\n"
	for n := range maxListKeys + 1 {
		_, vkey, err := checkpoint.Seed{byte(n)}.Ed25519("logs.example/logs/x", 0)
		if err != nil {
			t.Fatal(err)
		}
		many += "vkey " + vkey + "\nqpd 10\ncontact me\n"
	}
	for _, row := range []struct {
		list string
		line int
		want string
	}{
		{"", 0, "ends before"},
		{"# nothing\n", 1, "ends before"},
		{"\nlogs/v1\n", 2, `want "logs/v0"`},
		{"logs/v0 x\n", 1, `want "logs/v0"`},
		{block, 1, `want "logs/v0"`},
		{"logs/v0\n" + block + "logs/v0\n", 5, "want vkey"},
		{"logs/v0\nqpd 10\n", 2, "want vkey"},
		{"logs/v0\nvkey " + vkeyA + "\ncontact me\n", 3, "want origin or qpd"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd 10\norigin o\ncontact me\n", 4, "want contact"},
		{"logs/v0\nvkey " + vkeyA + "\norigin o\norigin o\nqpd 10\ncontact me\n", 4, "want qpd"},
		{"logs/v0\nvkey " + vkeyA + "\nvkey " + vkeyA + "\nqpd 10\ncontact me\n", 3, "want origin or qpd"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd 10\n", 3, "want contact"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd 10\n\n\n", 5, "want contact"},
		{"logs/v0\n" + block + "\nkey x\n", 6, "want vkey"},
		{"logs/v0\nVKEY " + vkeyA + "\n", 2, "want vkey"},
		{"logs/v0\nvkey" + vkeyA + "\n", 2, "want vkey"},
		{"logs/v0\nvkey foo+00000000+AY2+QOFlhz9eatgixbbGBrt5xgL3gmbYXxRaEGJ9fvm1\n", 2, "hash"},
		{"logs/v0\nvkey " + vkeyA[:len(vkeyA)-4] + "\n", 2, "verifier key"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd 0\ncontact me\n", 3, "qpd"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd 010\ncontact me\n", 3, "qpd"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd +1\ncontact me\n", 3, "qpd"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd -1\ncontact me\n", 3, "qpd"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd 1 2\ncontact me\n", 3, "qpd"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd 2147483648\ncontact me\n", 3, "qpd"},
		{"logs/v0\nvkey " + vkeyA + "\norigin\nqpd 1\ncontact me\n", 3, "origin"},
		{"logs/v0\nvkey " + vkeyA + "\norigin " + strings.Repeat("x", 256) + "\nqpd 1\ncontact me\n", 3, "origin"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd 1\ncontact " + strings.Repeat("x", 2000) + "\n", 4, "contact"},
		{"logs/v0\nvkey " + vkeyA + "\nqpd 1\ncontact \x1b[31m\n", 4, "text"},
		{"logs/v0\n# \xff\n", 2, "text"},
		{"logs/v0\n" + block + block, 7, "line 2"},
		{many, 1 + 3*(maxListKeys+1), "more than 16 keys"},
	} {
		got, err := ParseLogList([]byte(row.list))
		var fault *ListError
		if !errors.As(err, &fault) || fault.Line != row.line || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q\ngot %v, %v, want line %d: %s", row.list, got, err, row.line, row.want)
		}
	}
}

func FuzzParseLogList(f *testing.F) {
	f.Add([]byte("logs/v0\n\n# c\nvkey " + vkeyA + "\nqpd 86400\ncontact me\n\nvkey " + vkeyB + "\norigin o p\nqpd 1\ncontact\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := ParseLogList(data)
		if err != nil {
			var fault *ListError
			if !errors.As(err, &fault) || keys != nil || fault.Line > strings.Count(string(data), "\n")+1 {
				t.Errorf("got %v, %v", keys, err)
			}
			return
		}
		// What was read says the same when it is written plainly.
		var b strings.Builder
		b.WriteString("logs/v0\n")
		for _, k := range keys {
			fmt.Fprintf(&b, "vkey %s\norigin %s\nqpd %d\ncontact %s\n", k.VKey, k.Origin, k.QPD, k.Contact)
		}
		if again, err := ParseLogList([]byte(b.String())); err != nil || !slices.Equal(again, keys) {
			t.Errorf("%q\nread as %+v, and written plainly as %+v, %v", data, keys, again, err)
		}
	})
}

// A file of the operator's is a list or a policy.
func TestParseLogs(t *testing.T) {
	for name, text := range map[string]string{
		"list":   "# mine\n\nlogs/v0\nvkey " + vkeyA + "\nqpd 10\ncontact me\n",
		"policy": "# mine\nlog " + vkeyA + "\nquorum none\n",
	} {
		keys, err := ParseLogs([]byte(text))
		if err != nil || len(keys) != 1 || keys[0].VKey != vkeyA || !strings.HasPrefix(vkeyA, keys[0].Origin+"+") {
			t.Errorf("a %s: got %+v, %v", name, keys, err)
		}
	}
	if _, err := ParseLogs([]byte("log " + vkeyA + " \nlog x\nquorum none\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a faulty policy: got %v, want the line", err)
	}
	if _, err := ParseLogs([]byte("logs/v0\nx\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a faulty list: got %v, want the line", err)
	}
}

func TestListURLs(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://witness-network.example/list.1": true, "http://127.0.0.1:80/x": true, "http://localhost/x": true, "http://[::1]/x": true,
		"http://witness-network.example/list.1": false, "http://10.0.0.1/x": false, "ftp://x/y": false, "file:///etc/passwd": false,
		"https://user:pw@x/y": false, "https:///x": false, "list.1": false, "http://localhost.example/x": false,
	} {
		if err := CheckListURL(url); (err == nil) != ok {
			t.Errorf("%s: got %v, want ok: %v", url, err, ok)
		}
	}
}

// A list is fetched in bounds, and a redirect leads to no place where it couldn't have been got from.
func TestFetchList(t *testing.T) {
	good := "logs/v0\nvkey " + vkeyA + "\nqpd 10\ncontact me\n"
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, good) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://witness-network.example/good", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, good)
		line := []byte("#" + strings.Repeat("x", 1<<20) + "\n")
		for range maxList/len(line) + 2 {
			w.Write(line)
		}
	})
	mux.HandleFunc("/wrong", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, want := range map[string]string{
		"/good": "", "/moved": "", "/away": "want https", "/loop": "redirects", "/huge": "bytes", "/wrong": "line 1", "/none": "status 404",
	} {
		keys, err := fetchList(context.Background(), server.URL+path)
		if want == "" && (err != nil || len(keys) != 1) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, %v, want %q", path, keys, err, want)
		}
	}
}

// A list that comes from elsewhere doesn't make the witness ask what listens on its own machine.
func TestListsDoNotLeadHome(t *testing.T) {
	for target, ok := range map[string]bool{
		"https://other.example/list": true, "http://127.0.0.1:8091/metrics": false, "http://localhost/": false,
	} {
		from := httptest.NewRequest(http.MethodGet, "https://witness-network.example/list.1", nil)
		to := httptest.NewRequest(http.MethodGet, target, nil)
		if err := listClient.CheckRedirect(to, []*http.Request{from}); (err == nil) != ok {
			t.Errorf("%s: got %v, want ok: %v", target, err, ok)
		}
	}
}
