package log

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the metadata of a log's own events says is what docs/spec.md says that it does, member by member.
func TestOwnEventsAreAsSpecified(t *testing.T) {
	text, err := os.ReadFile("../docs/spec.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "### 8.6 ")
	if !ok {
		t.Fatal("there is no section 8.6")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	specified := make(map[string][]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(treeline\\.[a-z.]+)` \\| (.*) \\|$").FindAllStringSubmatch(section, -1) {
		for _, m := range regexp.MustCompile("(\\[?)`([a-z_]+)`(\\]?)").FindAllStringSubmatch(row[2], -1) {
			if m[2] == "true" {
				continue
			}
			specified[row[1]] = append(specified[row[1]], m[1]+m[2]+m[3])
		}
	}
	actions := map[string]any{
		ActionRetentionRequested: retentionRequested{}, ActionRetentionApproved: retentionApproved{},
		ActionRetentionCancelled: retentionCancelled{}, ActionRetentionChanged: retentionChanged{},
		ActionHoldPlaced: holdPlaced{}, ActionHoldReleased: holdReleased{}, ActionPurged: purgedEvent{}, ActionErased: erasedEvent{},
	}
	for action, metadata := range actions {
		got, want := specified[action], jsonMembers(reflect.TypeOf(metadata))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: specified are %v, the event has %v", action, got, want)
		}
	}
	if len(specified) != len(actions) {
		t.Errorf("%d actions are specified, there are %d", len(specified), len(actions))
	}
	for what, v := range map[string]any{"`policy` is an object of": Retention{}, "`archive` is an object of": Archived{}} {
		_, after, _ := strings.Cut(section, what)
		after, _, _ = strings.Cut(after, "\n- ")
		for _, name := range jsonMembers(reflect.TypeOf(v)) {
			if !strings.Contains(after, "`"+strings.Trim(name, "[]")+"`") {
				t.Errorf("%s: %s isn't there", what, name)
			}
		}
	}
}

// jsonMembers returns the members that a type has as JSON, in brackets those that may be left out.
func jsonMembers(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			names = append(names, jsonMembers(f.Type)...)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if options == "omitempty" {
			name = "[" + name + "]"
		}
		names = append(names, name)
	}
	return names
}
