package log_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
)

func TestAges(t *testing.T) {
	at := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC).UnixMicro()
	for text, want := range map[string]string{
		"0d": "2024-02-29T12:00:00.000000Z", "30d": "2024-03-30T12:00:00.000000Z", "1y": "2025-03-01T12:00:00.000000Z",
		"4y": "2028-02-29T12:00:00.000000Z", "1y30d": "2025-03-31T12:00:00.000000Z",
	} {
		a, err := log.ParseAge(text)
		if err != nil || a.String() != text {
			t.Errorf("%s: got %v, %v", text, a, err)
		}
		if got, ok := a.After(at); !ok || string(log.AppendTime(nil, got)) != want {
			t.Errorf("%s after the leap day: got %s, want %s", text, log.AppendTime(nil, got), want)
		}
		if end, _ := a.After(at); a.Reached(at, end-1) || !a.Reached(at, end) {
			t.Errorf("%s: it isn't reached exactly at its end", text)
		}
	}
	if a, err := log.ParseAge("forever"); err != nil || a != log.Forever || a.Reached(at, 1<<62) {
		t.Errorf("forever: got %v, %v", a, err)
	}
	for _, text := range []string{"", "d", "y", "1", "01d", "1d1y", "0y", "0y1d", "1y0d", "-1d", "+1d", "1 d", "1w", "99999999d", "Forever"} {
		if a, err := log.ParseAge(text); err == nil {
			t.Errorf("%q is taken for %v", text, a)
		}
	}
}

// Whatever may be changed at once keeps every event for as long as before, wherever in the calendar it was received.
func TestAPolicyThatIsSetAtOnceKeepsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		age := func(name string) log.Age {
			if rapid.IntRange(0, 9).Draw(t, name+"/forever") == 0 {
				return log.Forever
			}
			return log.Age{Years: rapid.IntRange(0, 10).Draw(t, name+"/years"), Days: rapid.IntRange(0, 400).Draw(t, name+"/days")}
		}
		policy := func(name string) log.Retention {
			return log.Retention{
				Min: age(name + "/min"), Max: age(name + "/max"), Archive: rapid.Bool().Draw(t, name+"/archive"),
				EraseEarly: rapid.Bool().Draw(t, name+"/early"), Closing: rapid.Bool().Draw(t, name+"/closing"),
			}
		}
		before, after := policy("before"), policy("after")
		if !log.KeepsAll(after, before) {
			return
		}
		at := rapid.Int64Range(0, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()).Draw(t, "at")
		ends := func(r log.Retention) (purge, erase int64) {
			const never = 1<<63 - 1
			of := func(a log.Age) int64 {
				if end, ok := a.After(at); ok {
					return end
				}
				return never
			}
			purge, erase = of(r.Max), of(r.Min)
			if r.Closing {
				purge = erase
			}
			if r.EraseEarly {
				erase = 0
			}
			return purge, erase
		}
		purgeBefore, eraseBefore := ends(before)
		purgeAfter, eraseAfter := ends(after)
		if purgeAfter < purgeBefore || eraseAfter < eraseBefore || before.Archive && !after.Archive {
			t.Fatalf("from %+v to %+v at once loses something", before, after)
		}
	})
}
