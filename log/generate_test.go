package log_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"

	"pgregory.net/rapid"
)

// drawString draws text without U+0000.
func drawString(minLen, maxLen int) *rapid.Generator[string] {
	return rapid.StringOfN(rapid.OneOf(
		rapid.RuneFrom([]rune("ab/~\"\\{}\b\n\x1f\u007f\u0080é€\ue000\ufb33\uffff😀𝄞")),
		rapid.Rune(),
	).Filter(func(r rune) bool { return r != 0 && r != 0xfffd }), minLen, maxLen, maxLen)
}

// drawJSON draws a JSON value of nil, bool, string, json.Number, []any and map[string]any.
func drawJSON(depth int) *rapid.Generator[any] {
	all := []*rapid.Generator[any]{
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		drawString(0, 12).AsAny(),
		rapid.Map(rapid.Int64Range(-1<<53, 1<<53), func(i int64) any { return json.Number(strconv.FormatInt(i, 10)) }),
		rapid.Map(rapid.Float64(), func(f float64) any { return json.Number(strconv.FormatFloat(f, 'g', -1, 64)) }),
	}
	if depth > 0 {
		all = append(all,
			rapid.SliceOfN(drawJSON(depth-1), 0, 4).AsAny(),
			rapid.MapOfN(drawString(0, 6), drawJSON(depth-1), 0, 4).AsAny())
	}
	return rapid.OneOf(all...)
}

// render writes a value as JSON with members in any order, white space anywhere, and characters and numbers in any of their spellings.
func render(t *rapid.T, v any) string {
	var b strings.Builder
	renderTo(t, &b, v)
	return b.String()
}

func renderTo(t *rapid.T, b *strings.Builder, v any) {
	space := func() { b.WriteString(rapid.SampledFrom([]string{"", "", "", " ", "\n", "\t\r\n "}).Draw(t, "space")) }
	space()
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		b.WriteByte('{')
		for i, name := range rapid.Permutation(names).Draw(t, "order") {
			if i > 0 {
				b.WriteByte(',')
			}
			renderTo(t, b, name)
			b.WriteByte(':')
			renderTo(t, b, v[name])
		}
		space()
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			renderTo(t, b, e)
		}
		space()
		b.WriteByte(']')
	case string:
		b.WriteByte('"')
		for _, r := range v {
			switch {
			case r < 0x20 || r == '"' || r == '\\' || rapid.IntRange(0, 7).Draw(t, "escape") == 0:
				for _, u := range utf16.Encode([]rune{r}) {
					fmt.Fprintf(b, rapid.SampledFrom([]string{`\u%04x`, `\u%04X`}).Draw(t, "hex"), u)
				}
			default:
				b.WriteRune(r)
			}
		}
		b.WriteByte('"')
	case json.Number:
		b.WriteString(string(v))
		if !strings.ContainsAny(string(v), ".eE") {
			b.WriteString(rapid.SampledFrom([]string{"", "", ".0", "e0", "E+00", ".000e-0"}).Draw(t, "spelling"))
		}
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case nil:
		b.WriteString("null")
	default:
		t.Fatalf("no spelling of %T", v)
	}
	space()
}

// sameRational reports whether two JSON numbers denote the same rational.
func sameRational(a, b string) bool {
	x, ok1 := new(big.Rat).SetString(a)
	y, ok2 := new(big.Rat).SetString(b)
	return ok1 && ok2 && x.Cmp(y) == 0
}
