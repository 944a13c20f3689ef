package main

import (
	"archive/zip"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What isn't shown is called purged or erased with the proof of the log's own event only, in the bundle or beside it.
func TestVerifyTellsWhatWasRemoved(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "log", "bundle", "testdata", "bundles.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Bundle string
		Keys         []string
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	bundles, key := make(map[string]string), ""
	for _, v := range vectors {
		data, err := hex.DecodeString(v.Bundle)
		if err != nil {
			t.Fatal(err)
		}
		bundles[v.Name] = writeTemp(t, string(data))
		if v.Name == "purged and erased" {
			key = v.Keys[0]
		}
	}
	removal := func(name string) string {
		data, err := os.ReadFile(bundles["purged and erased"])
		if err != nil {
			t.Fatal(err)
		}
		z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		f, err := z.Open("removals/" + name)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return writeTemp(t, string(proof))
	}
	purge, erase := removal("000000.tlog-proof"), removal("000001.tlog-proof")
	for _, tt := range []struct {
		bundle   string
		removals []string
		code     int
		want     []string
	}{
		{"purged and erased", nil, exitOK, []string{"purged       1 events", "erased       in 2 events: /actor/email", "removed by   treeline:purged:1 (entry 8)"}},
		{"purged, and withheld", nil, exitOK, []string{"purged       1 events", "withheld     in 2 events: /actor/email"}},
		{"purged, and withheld", []string{erase}, exitOK, []string{"erased       in 2 events: /actor/email"}},
		{"erased, and not shown", nil, exitUnverified, []string{"not shown    1 events"}},
		{"erased, and not shown", []string{erase}, exitUnverified, []string{"not shown    1 events"}},
		{"erased, and not shown", []string{purge}, exitOK, []string{"purged       1 events"}},
		{"erased, and not shown", []string{bundles["cut off"]}, exitInvalid, nil},
	} {
		args := []string{"verify", bundles[tt.bundle], "--vkey", key}
		for _, r := range tt.removals {
			args = append(args, "--removal", r)
		}
		code, out, stderr := runCommand(t, "", args...)
		if code != tt.code {
			t.Errorf("%s with %d proofs: exit code %d\n%s%s", tt.bundle, len(tt.removals), code, out, stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s with %d proofs: it doesn't say %q:\n%s", tt.bundle, len(tt.removals), want, out)
			}
		}
	}
	// Of a proof file, too.
	if code, out, _ := runCommand(t, "", "verify", purge, "--vkey", key, "--removal", erase); code != exitOK || strings.Contains(out, "was purged") {
		t.Errorf("a proof of what is there: exit code %d\n%s", code, out)
	}
	if code, _, stderr := runCommand(t, "", "verify", purge, "--removal", erase); code != exitUnverified || !strings.Contains(stderr, "--removal") {
		t.Errorf("a removal without a key: exit code %d: %s", code, stderr)
	}
}
