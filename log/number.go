package log

import (
	"bytes"
	"strconv"
)

// safeDigits is a number of decimal digits that every integer of this length, and every float64, can be told apart by:
// 10^15 < 2^53.
const safeDigits = 15

// maxDigits is the largest number of significant digits in the shortest decimal that denotes a float64.
const maxDigits = 17

// appendNumber appends the ECMAScript form (RFC 8785 §3.2.2.3) of a JSON number token to dst. It reports false, and
// returns dst as it was, when that form doesn't denote exactly the decimal number that the token does: 1.0, 1e2 and -0
// are 1, 100 and 0, but 9007199254740993 would become its neighbour, 1e400 infinite and 1e-400 zero.
//
// The token's value is taken apart as ±0.d₁d₂…dₙ × 10^point, so that the comparison is one of digits, whatever the
// length of the token and the size of its exponent.
func appendNumber(dst, token []byte) ([]byte, bool) {
	var digits [maxDigits]byte
	n, point, zeros := 0, 0, 0 // zeros: those seen since the last digit that counts
	negative, fraction := false, false
scan:
	for i, c := range token {
		switch c {
		case '-':
			negative = true
		case '.':
			fraction = true
		case 'e', 'E':
			point += parseExponent(token[i+1:])
			break scan
		default:
			switch {
			case c == '0' && n == 0:
				if fraction {
					point--
				}
				continue
			case c == '0':
				zeros++
			case n+zeros >= maxDigits:
				return dst, false
			default:
				for ; zeros > 0; zeros-- {
					digits[n] = '0'
					n++
				}
				digits[n] = c
				n++
			}
			if !fraction {
				point++
			}
		}
	}
	if n == 0 {
		return append(dst, '0'), true
	}
	// The largest float64 is 0.17…×10^309, the smallest 0.49…×10^-323.
	if point < -330 || point > 310 {
		return dst, false
	}
	if n > safeDigits || point < -300 || point > 300 {
		if !denotesFloat(digits[:n], point) {
			return dst, false
		}
	}
	// At most 15 significant digits survive the way to a float64 of normal range and back (DBL_DIG), so they are the
	// shortest form themselves.
	if negative {
		dst = append(dst, '-')
	}
	return appendDecimal(dst, digits[:n], point), true
}

// parseExponent returns the value of an exponent's digits with their optional sign. Beyond ±10^12 it stands still: no token
// that fits in memory has the digits to bring such a number back into range.
func parseExponent(b []byte) int {
	negative := false
	if b[0] == '+' || b[0] == '-' {
		negative, b = b[0] == '-', b[1:]
	}
	e := 0
	for _, c := range b {
		if e < 1e12 {
			e = e*10 + int(c-'0')
		}
	}
	if negative {
		return -e
	}
	return e
}

// denotesFloat reports whether the shortest decimal that denotes the float64 nearest to 0.digits × 10^point is that very
// decimal. The digits neither begin nor end with a zero.
func denotesFloat(digits []byte, point int) bool {
	var in, out [32]byte
	token := append(in[:0], "0."...)
	token = append(token, digits...)
	token = append(token, 'e')
	token = strconv.AppendInt(token, int64(point), 10)
	f, err := strconv.ParseFloat(string(token), 64)
	if err != nil || f == 0 {
		return false
	}
	shortest := strconv.AppendFloat(out[:0], f, 'e', -1, 64) // d.ddde±dd
	mantissa, exponent, _ := bytes.Cut(shortest, []byte{'e'})
	if parseExponent(exponent)+1 != point || len(mantissa) != len(digits)+min(1, len(digits)-1) {
		return false
	}
	return mantissa[0] == digits[0] && (len(digits) == 1 || bytes.Equal(mantissa[2:], digits[1:]))
}

// appendDecimal appends 0.digits × 10^point as ECMAScript's Number::toString writes it (ECMA-262 §6.1.6.1.20, where point
// is called n and the number of digits k).
func appendDecimal(dst, digits []byte, point int) []byte {
	k := len(digits)
	switch {
	case k <= point && point <= 21:
		dst = append(dst, digits...)
		for range point - k {
			dst = append(dst, '0')
		}
		return dst
	case 0 < point && point <= 21:
		dst = append(dst, digits[:point]...)
		dst = append(dst, '.')
		return append(dst, digits[point:]...)
	case -6 < point && point <= 0:
		dst = append(dst, "0."...)
		for range -point {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	}
	dst = append(dst, digits[0])
	if k > 1 {
		dst = append(dst, '.')
		dst = append(dst, digits[1:]...)
	}
	dst = append(dst, 'e')
	if point-1 >= 0 {
		dst = append(dst, '+')
	}
	return strconv.AppendInt(dst, int64(point-1), 10)
}
