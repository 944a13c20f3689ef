//go:build darwin || linux

package client_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/treeline-log/treeline/api/client"
)

// Events that can't be put aside for lack of room are put aside once there is some, each on a line of its own. As it limits the files
// of the process, this test runs by itself.
func TestPuttingAsideOnAFullDisk(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var items []string
		for i := range bytes.Count(body, []byte("\n")) {
			items = append(items, fmt.Sprintf(`{"index":%d,"pointer":"/action","detail":"is refused"}`, i))
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"status":400,"code":"invalid_event","detail":"no","errors":[%s]}`, strings.Join(items, ","))
	}))
	defer refusing.Close()
	c, err := client.New(client.Config{Server: refusing.URL, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	open := func() (*client.Spool, *problems) {
		p := &problems{}
		spool, err := client.OpenSpool(client.SpoolConfig{Client: c, Dir: dir, OnError: p.add})
		if err != nil {
			t.Fatal(err)
		}
		return spool, p
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	full := before
	full.Cur = 500 // bytes of a file: more than three spooled events, less than three that are put aside
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	spool, problems := open()
	record(t, spool, numbers(0, 3)...)
	until(t, "a failure to put aside", func() bool { return problems.has("file too large") })
	err = spool.Close(closed(t))
	rejected := spool.Stats().Rejected
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Fatal("everything was put aside")
	}

	spool, _ = open()
	closeSpool(t, spool)
	if rejected += spool.Stats().Rejected; rejected != 3 {
		t.Errorf("%d events were put aside, want 3", rejected)
	}
	data, err := os.ReadFile(filepath.Join(dir, "rejected.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("got line %s", line)
		}
	}
	if len(lines) != 3 {
		t.Errorf("got %d lines, want 3", len(lines))
	}
}
