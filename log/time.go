package log

import (
	"errors"
	"time"
)

// Times are written in UTC with exactly six fractional digits.
const timeSize = len(timeLayout)

// timeLayout is that form for package time.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// minTime and maxTime are the first and last microsecond since 1970 UTC that four digits of a year can express.
const (
	minTime = -62167219200_000000
	maxTime = 253402300799_999999
)

var (
	errTimeForm  = errors.New("must be an RFC 3339 time such as 2026-11-23T09:30:00.000000Z")
	errTimeLeap  = errors.New("is a leap second, which is refused: send second 59 or the next second")
	errTimeRange = errors.New("must lie in the years 0000 to 9999 of UTC")
)

// ParseTime returns the microseconds since 1970 UTC, which AppendTime takes, of a time as clients may write it: an RFC 3339
// date-time with any offset, fractional digits after the sixth cut off.
func ParseTime(s string) (int64, error) { return parseTime([]byte(s)) }

// parseTime returns the microseconds since 1970 UTC of an RFC 3339 date-time. As the RFC permits, T and Z may be in lower
// case. Fractional digits after the sixth are cut off, not rounded, so no event moves into the future.
func parseTime(s []byte) (int64, error) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[4] != '-' || s[7] != '-' || s[10]|0x20 != 't' || s[13] != ':' || s[16] != ':' {
		return 0, errTimeForm
	}
	year, ok1 := decimal(s[0:4])
	month, ok2 := decimal(s[5:7])
	day, ok3 := decimal(s[8:10])
	hour, ok4 := decimal(s[11:13])
	minute, ok5 := decimal(s[14:16])
	second, ok6 := decimal(s[17:19])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		hour > 23 || minute > 59 || second > 60 {
		return 0, errTimeForm
	}
	if second == 60 {
		return 0, errTimeLeap
	}

	s = s[19:]
	micros := 0
	if s[0] == '.' {
		n := 1
		for ; n < len(s) && '0' <= s[n] && s[n] <= '9'; n++ {
			if n <= 6 {
				micros = micros*10 + int(s[n]-'0')
			}
		}
		if n == 1 {
			return 0, errTimeForm
		}
		for i := n; i <= 6; i++ {
			micros *= 10
		}
		s = s[n:]
	}

	offset := 0 // seconds east of UTC
	switch {
	case len(s) == 1 && s[0]|0x20 == 'z':
	case len(s) == 6 && (s[0] == '+' || s[0] == '-') && s[3] == ':':
		h, ok1 := decimal(s[1:3])
		m, ok2 := decimal(s[4:6])
		if !ok1 || !ok2 || h > 23 || m > 59 {
			return 0, errTimeForm
		}
		offset = h*3600 + m*60
		if s[0] == '-' {
			offset = -offset
		}
	default:
		return 0, errTimeForm
	}

	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC).Unix() - int64(offset)
	t = t*1e6 + int64(micros)
	if t < minTime || t > maxTime {
		return 0, errTimeRange
	}
	return t, nil
}

// AppendTime appends the time, in microseconds since 1970 UTC and between minTime and maxTime, as RFC 3339 in UTC with
// exactly six fractional digits.
func AppendTime(dst []byte, micros int64) []byte {
	t := time.UnixMicro(micros).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = appendPadded(dst, year, 4)
	dst = append(dst, '-')
	dst = appendPadded(dst, int(month), 2)
	dst = append(dst, '-')
	dst = appendPadded(dst, day, 2)
	dst = append(dst, 'T')
	dst = appendPadded(dst, hour, 2)
	dst = append(dst, ':')
	dst = appendPadded(dst, minute, 2)
	dst = append(dst, ':')
	dst = appendPadded(dst, second, 2)
	dst = append(dst, '.')
	dst = appendPadded(dst, t.Nanosecond()/1000, 6)
	return append(dst, 'Z')
}

// appendPadded appends v with leading zeros to the given number of digits, at most six.
func appendPadded(dst []byte, v, width int) []byte {
	var digits [6]byte
	for i := width - 1; i >= 0; i-- {
		digits[i] = byte('0' + v%10)
		v /= 10
	}
	return append(dst, digits[:width]...)
}

// decimal returns the value of a few decimal digits.
func decimal(s []byte) (v int, ok bool) {
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return v, true
}

// daysIn returns the number of days of a month of the proleptic Gregorian calendar.
func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}
