package log

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Age is how old an event is, counted from when it was received: years of the calendar and days, or for ever. The zero value is no time
// at all.
type Age struct {
	Years, Days int
	Forever     bool
}

// Forever is the age that no event reaches.
var Forever = Age{Forever: true}

// Limits of ages that events are kept for.
const (
	MinKept  = 30 // days: the shortest time after which anything is removed
	MaxYears = 10 // the longest but for ever
)

// ParseAge reads the text of an age: "0d", "30d", "6y", "1y30d" or "forever".
func ParseAge(text string) (Age, error) {
	if text == "forever" {
		return Forever, nil
	}
	a, rest := Age{}, text
	for _, part := range []struct {
		unit string
		n    *int
	}{{"y", &a.Years}, {"d", &a.Days}} {
		number, after, ok := strings.Cut(rest, part.unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || strconv.FormatUint(n, 10) != number {
			return Age{}, errAge(text)
		}
		*part.n, rest = int(n), after
	}
	if rest != "" || a.String() != text {
		return Age{}, errAge(text)
	}
	return a, nil
}

func errAge(text string) error {
	return fmt.Errorf("%q is no age: want days or years, such as 30d or 6y, or forever", text)
}

// String returns the one text of an age, which ParseAge reads.
func (a Age) String() string {
	var b []byte
	if a.Forever {
		return "forever"
	}
	if a.Years > 0 {
		b = append(strconv.AppendInt(b, int64(a.Years), 10), 'y')
	}
	if a.Days > 0 || a.Years == 0 {
		b = append(strconv.AppendInt(b, int64(a.Days), 10), 'd')
	}
	return string(b)
}

// MarshalText returns what String does.
func (a Age) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what ParseAge does.
func (a *Age) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAge(string(text))
	return err
}

// After returns when what was received at a time, in µs since 1970 UTC, has come to the age; ok is false if it never does. For
// later times it is never earlier.
func (a Age) After(receivedAt int64) (at int64, ok bool) {
	if a.Forever {
		return 0, false
	}
	return time.UnixMicro(receivedAt).UTC().AddDate(a.Years, 0, a.Days).UnixMicro(), true
}

// Reached reports whether what was received at a time has come to the age, both in µs since 1970 UTC.
func (a Age) Reached(receivedAt, now int64) bool {
	at, ok := a.After(receivedAt)
	return ok && at <= now
}

// least and most are how many days the age can be, by where it begins.
func (a Age) least() int { return 365*a.Years + a.Days }
func (a Age) most() int  { return 366*a.Years + a.Days }

// atLeast reports whether no event comes to the age before it comes to o.
func (a Age) atLeast(o Age) bool {
	switch {
	case a.Forever:
		return true
	case o.Forever:
		return false
	}
	return a.Years >= o.Years && a.Days >= o.Days || a.least() >= o.most()
}
