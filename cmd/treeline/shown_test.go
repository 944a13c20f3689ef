package main

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/spf13/cobra"
)

// A table shows of an event with erased claims what is left of it, and of one that was purged that it was.
func TestRowsOfWhatIsLeft(t *testing.T) {
	for _, row := range []struct {
		record  string
		want    []string
		changes string
	}{
		{
			`{"id":"e-1","received_at":"2026-11-23T13:17:38.237652Z","event":{"action":"a.b","actor":{"id":"u","email":"u@x"},"outcome":"denied","targets":[{"id":"d","type":"doc"},{"id":"e"}]}}`,
			[]string{"2026-11-23T13:17:38Z", "u (u@x)", "a.b", "doc d +1", "denied", "e-1"}, "",
		},
		{
			`{"id":"e-1","received_at":"2026-11-23T13:17:38.237652Z","erased_by":[],"claims":[{"pointer":"/action","value":"a.b"},{"pointer":"/actor/email","commitment":"00"},` +
				`{"pointer":"/actor/id","value":"u"},{"pointer":"/changes/0","commitment":"00"},{"pointer":"/changes/1","value":{"field":"f","after":1}},` +
				`{"pointer":"/metadata/x","value":"m"},{"pointer":"/outcome","value":"denied"},{"pointer":"/targets/0/id","value":"d"},` +
				`{"pointer":"/targets/0/type","value":"doc"},{"pointer":"/targets/1/id","commitment":"00"},{"pointer":"/targets/2/id","value":"e"}]}`,
			[]string{"2026-11-23T13:17:38Z", "u", "a.b", "doc d +2", "denied", "e-1"}, "f: - -> 1",
		},
		{
			`{"received_at":"2026-11-23T13:17:38.237652Z","purged_by":{"id":"treeline:purged:1","index":7},"digest":"00"}`,
			[]string{"2026-11-23T13:17:38Z", "", "(purged)", "", "", ""}, "",
		},
	} {
		got, err := eventRow(json.RawMessage(row.record))
		if err != nil || !slices.Equal(got, row.want) {
			t.Errorf("got %q, %v, want %q", got, err, row.want)
		}
		if changes, err := eventChanges(json.RawMessage(row.record)); err != nil || changes != row.changes {
			t.Errorf("changes: got %q, %v, want %q", changes, err, row.changes)
		}
	}
}

// TREELINE_ARCHIVE, set for a server and for commands on its archive, is no value of a flag of another kind.
func TestTheArchivesVariableIsForTheArchive(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if f := cmd.Flags().Lookup("archive"); f != nil && f.Value.Type() != "string" {
			t.Errorf("--archive of %s is a %s", cmd.CommandPath(), f.Value.Type())
		}
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(newRootCmd())
}

func TestRemovedText(t *testing.T) {
	for want, n := range map[string][2]uint64{"": {}, ", 3 purged": {3, 0}, ", 2 of them without erased claims, 1 purged": {1, 2}} {
		if got := removedText(n[0], n[1]); got != want {
			t.Errorf("%d purged, %d erased: got %q, want %q", n[0], n[1], got, want)
		}
	}
}
