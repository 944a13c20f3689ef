package main

import (
	"strings"
	"testing"
)

// What can't be undone is done when its name was typed, and for no other answer.
func TestAsk(t *testing.T) {
	for typed, want := range map[string]bool{"acme\n": true, " acme \r\n": true, "acme": true, "": false, "\n": false, "y\n": false, "yes\n": false, "ACME\n": false} {
		var asked strings.Builder
		if err := ask(strings.NewReader(typed), &asked, "This ends log acme for ever", "acme"); (err == nil) != want {
			t.Errorf("typed %q: got %v", typed, err)
		}
		if !strings.Contains(asked.String(), "for ever") {
			t.Errorf("asked %q", asked.String())
		}
	}
}
