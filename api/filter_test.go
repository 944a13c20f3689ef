package api

import (
	"slices"
	"testing"
)

// What selects everything is an empty filter, which costs a search nothing.
func TestFiltersThatSelectEverything(t *testing.T) {
	for _, q := range []query{nil, {"limit": {"5"}, "order": {"oldest"}, "log": {"x"}}, {"action": {"*"}}, {"action": {"a", "*", "b.*"}}} {
		if f, err := q.filter(0); err != nil || !f.All() {
			t.Errorf("%v: got %+v, %v", q, f, err)
		}
	}
}

// A filter holds each value once, as events hold it.
func TestFiltersHoldEachValueOnce(t *testing.T) {
	f, err := query{"ip": {"2001:DB8::1", "::ffff:10.0.0.1", "2001:db8:0::1"}, "action": {"b.*", "a", "b.*"}, "metadata.x": {"2", "1", "2"}}.filter(0)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.IPs, []string{"10.0.0.1", "2001:db8::1"}) || !slices.Equal(f.Actions, []string{"a", "b.*"}) ||
		!slices.Equal(f.Metadata[0].Values, []string{"1", "2"}) {
		t.Errorf("got %+v", f)
	}
}
