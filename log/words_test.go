package log_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
)

// words returns the words of a text that is looked for.
func words(t rapid.TB, text string) log.Words {
	t.Helper()
	w, err := log.ParseWords(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return w
}

func TestWords(t *testing.T) {
	long := strings.Repeat("x", log.MaxIndexedValue)
	e := parsed(t, `{"id":"Evt-0001","action":"user.permission.updated","actor":{"id":"user_123","name":"Zoë O'Neil-Świątek","email":"zoe@Example.com","type":"acttype"},
		"targets":[{"id":"doc:77","name":"Straße 12","type":"tartype"},{"id":"ΟΔΥΣΣΕΥΣ"}],
		"context":{"ip":"203.0.113.9","user_agent":"agent","location":"place","session_id":"sess.9","request_id":"req-8","traceparent":"tp"},
		"changes":[{"field":"chfield","before":"chbefore","after":["chafter"]}],
		"metadata":{"membername":"plain value","n":4711,"t":true,"deep":{"nested":["in a list",{"er":"deepest"}]},
			"esc":"line\none\ttab\\back\"quote\u0001ctl","long":"`+long+` a","limit":"`+long[:len(long)-4]+` fin","empty":"",
			"cjk":"東京都 東京","hindi":"हिन्दी","combined":"cafe\u0301","squared":"m²"}}`)
	for q, want := range map[string]bool{
		"permission":                 true,
		"PERMISSION updated":         true,
		"updated permission":         true,
		"permission.updated":         true,
		"permission nothing":         false,
		"permissio":                  false,
		"permissio*":                 true,
		"permission*":                true,
		"permissions*":               false,
		"p* u* 1*":                   true,
		"ermission":                  false,
		"evt":                        true,
		"0001":                       true,
		"1":                          false,
		"user_123":                   true,
		"123_user":                   true,
		"zoe":                        true, // of the email, the name has Zoë
		"zoë":                        true,
		"ZOË":                        true,
		"o'neil":                     true,
		"oneil":                      false,
		"świątek":                    true,
		"swiatek":                    false,
		"Example.COM":                true,
		"STRASSE":                    false,
		"straẞe":                     true,
		"Οδυσσευς":                   true,
		"οδυσσευσ":                   true,
		"77":                         true,
		"sess req 9 8":               true,
		"acttype":                    false,
		"tartype":                    false,
		"203":                        false,
		"agent":                      false,
		"place":                      false,
		"tp":                         false,
		"chfield":                    false,
		"chbefore":                   false,
		"chafter":                    false,
		"membername":                 false,
		"nested":                     false,
		"plain":                      true,
		"4711":                       false,
		"true":                       false,
		"in a list":                  true,
		"deepest":                    true,
		"line one tab back quote":    true,
		"none":                       false, // n of \n is no letter
		"ttab":                       false,
		"ctl":                        true,
		"u0001ctl":                   false,
		"fin":                        true,
		long + "*":                   false,
		"東京都":                        true,
		"東京":                         true,
		"東京*":                        true,
		"京都":                         false,
		"हिन्दी":                     true,
		"हिन्":                       false,
		"हिन्*":                      true,
		"cafe\u0301":                 true,
		"café":                       false, // another spelling
		"cafe":                       false,
		"m²":                         true,
		"m2":                         false,
		"\u212Aelvin":                false,
		"kelvin* deepest":            false,
		"plain  \t,;value -- list":   true,
		"de* dee* deep* deepest dee": false,
		"de* dee* deep* deepest":     true,
	} {
		f := log.Filter{Words: []log.Words{words(t, q)}}
		if got := f.Match(e, 0); got != want {
			t.Errorf("%q: got %t, want %t", q, got, want)
		}
		if want && !log.Holds(&f, e.JSON()) {
			t.Errorf("%q: the filter selects an event that holds none of what it looks for", q)
		}
		if got := hasWords(t, e.JSON(), q); got != want {
			t.Errorf("%q, the naive way: got %t, want %t", q, got, want)
		}
	}
	either := log.Filter{Words: []log.Words{words(t, "nothing"), words(t, "deepest plain")}}
	if !either.Match(e, 0) || either.All() || !log.Holds(&either, e.JSON()) {
		t.Error("an event that has the words of one of two lists isn't selected")
	}
	both := log.Filter{Words: []log.Words{words(t, "deepest")}, Actions: []string{"user.created"}}
	if both.Match(e, 0) {
		t.Error("an event that has the words, but another action, is selected")
	}
}

func TestWordsThatCantBeLookedFor(t *testing.T) {
	var many []string
	for i := range log.MaxWords + 1 {
		many = append(many, fmt.Sprint("w", i))
	}
	for text, want := range map[string]string{
		"": "no word", " -_. ": "no word", "*": "*", "* a": "*", "a *": "*", "*a": "*", "a*b": "*", "a**": "*", "a* *": "*", `"a b"`: "quotation marks", `a"`: "quotation",
		strings.Join(many, " "): "21 words, want at most 20",
	} {
		if w, err := log.ParseWords(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want a word about %q", text, w, err, want)
		}
	}
	if w := words(t, strings.Join(append(many[1:], "w1", "W*"), " ")); len(w) != log.MaxWords {
		t.Errorf("got %d words, want %d", len(w), log.MaxWords)
	}
}

// A word is what Unicode's version says; the same words of another version are others.
func TestTheVersionOfWordsIsThatOfUnicode(t *testing.T) {
	if log.WordsVersion>>24 != 1 || log.WordsVersion&0xffffff == 0 {
		t.Errorf("got %08x, want a byte and Unicode's version", log.WordsVersion)
	}
}

var (
	wordRE   = regexp.MustCompile(`[\pL\pM\pN]+`)
	lookedRE = regexp.MustCompile(`[\pL\pM\pN]+\*?`)
)

// wordsOf is a second, slow implementation of what words an event has.
func wordsOf(t rapid.TB, event []byte) (have []string) {
	var e struct {
		ID, Action string
		Actor      struct{ ID, Name, Email string }
		Targets    []struct{ ID, Name string }
		Context    struct {
			SessionID string `json:"session_id"`
			RequestID string `json:"request_id"`
		}
		Metadata map[string]any
	}
	if err := json.NewDecoder(bytes.NewReader(event)).Decode(&e); err != nil {
		t.Fatal(err)
	}
	texts := []string{e.ID, e.Action, e.Actor.ID, e.Actor.Name, e.Actor.Email, e.Context.SessionID, e.Context.RequestID}
	for _, target := range e.Targets {
		texts = append(texts, target.ID, target.Name)
	}
	var all func(v any)
	all = func(v any) {
		switch v := v.(type) {
		case string:
			texts = append(texts, v)
		case []any:
			for _, v := range v {
				all(v)
			}
		case map[string]any:
			for _, v := range v {
				all(v)
			}
		}
	}
	all(any(e.Metadata))
	for _, text := range texts {
		if len(text) <= 512 {
			have = append(have, wordRE.FindAllString(text, -1)...)
		}
	}
	return have
}

// hasWords is a second, slow implementation of what words mean.
func hasWords(t rapid.TB, event []byte, q string) bool {
	have := wordsOf(t, event)
	for _, looked := range lookedRE.FindAllString(q, -1) {
		if !slices.ContainsFunc(have, func(word string) bool { return isWord(word, looked) }) {
			return false
		}
	}
	return true
}

// isWord reports whether a word is the one that is looked for, or begins like it.
func isWord(word, looked string) bool {
	prefix, begins := strings.CutSuffix(looked, "*")
	if runes, n := []rune(word), utf8.RuneCountInString(prefix); begins && len(runes) > n {
		word = string(runes[:n])
	}
	return strings.EqualFold(word, prefix)
}

// drawWords draws a text to look for, of words of an event and others.
func drawWords(t *rapid.T, event []byte) string {
	var out []string
	own := wordRE.FindAllString(strings.NewReplacer(`\n`, " ", `\"`, " ", `\\`, " ", `\u`, " ").Replace(string(event)), -1)
	for range rapid.IntRange(1, 3).Draw(t, "words") {
		w := rapid.SampledFrom(own).Draw(t, "word")
		if rapid.IntRange(0, 2).Draw(t, "prefix") == 0 {
			runes := []rune(w)
			w = string(runes[:rapid.IntRange(1, len(runes)).Draw(t, "length")]) + "*"
		}
		switch rapid.IntRange(0, 9).Draw(t, "changed") {
		case 0:
			w = strings.ToUpper(w)
		case 1:
			w = strings.Title(strings.ToLower(w)) //nolint:staticcheck // any other case will do
		case 2:
			w = "x" + w
		}
		out = append(out, w)
	}
	return strings.Join(out, rapid.SampledFrom([]string{" ", ".", " - ", "@"}).Draw(t, "between"))
}

// Any words of any event are found, or not, as the naive way says.
func TestWordsMeanTheSameToWhoeverReadsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := drawNested(t)
		model["metadata"] = map[string]any{"a": drawJSON(3).Draw(t, "metadata"), "b": drawString(0, 40).Draw(t, "text")}
		data, err := json.Marshal(model)
		if err != nil {
			t.Fatal(err)
		}
		e, err := log.ParseEvent(data, clientOptions())
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		q := drawWords(t, e.JSON())
		w, err := log.ParseWords(q)
		if err != nil {
			t.Fatalf("%q: %v", q, err)
		}
		f := log.Filter{Words: []log.Words{w}}
		got, want := f.Match(e, 0), hasWords(t, e.JSON(), q)
		if got != want {
			t.Fatalf("%q on %s: got %t, want %t", q, e.JSON(), got, want)
		}
		if want && !log.Holds(&f, e.JSON()) {
			t.Fatalf("%q: the filter selects an event that holds none of what it looks for: %s", q, e.JSON())
		}
	})
}

// vocabulary is what words the events of a log have, each word once.
type vocabulary struct {
	words []string
	of    [][]int // by event
}

func readVocabulary(t testing.TB, all []stored) *vocabulary {
	v, numbers := &vocabulary{}, make(map[string]int)
	for i := range all {
		var own []int
		for _, w := range wordsOf(t, all[i].record.Event) {
			n, ok := numbers[w]
			if !ok {
				n = len(v.words)
				v.words, numbers[w] = append(v.words, w), n
			}
			own = append(own, n)
		}
		v.of = append(v.of, own)
	}
	return v
}

// having returns which events have the words, as hasWords tells.
func (v *vocabulary) having(q string) func(s *stored) bool {
	var looked []map[int]bool
	for _, l := range lookedRE.FindAllString(q, -1) {
		numbers := make(map[int]bool)
		for n, w := range v.words {
			if isWord(w, l) {
				numbers[n] = true
			}
		}
		looked = append(looked, numbers)
	}
	return func(s *stored) bool {
		return !slices.ContainsFunc(looked, func(numbers map[int]bool) bool {
			return !slices.ContainsFunc(v.of[s.record.Index], func(n int) bool { return numbers[n] })
		})
	}
}

// Whatever the index holds of words (none, since an older version has written it; those of another version; ours up to some event),
// they are found where the naive way finds them.
func TestWordsAreFoundWhateverTheIndexHolds(t *testing.T) {
	t.Parallel()
	const size = 6*index.Width + 500
	s := newTestService(t)
	s.appendAll(s.log(), variedEvents(t, 21, size))
	all := readAll(t, s.log())
	s.close()
	s.noIndex = true
	v := readVocabulary(t, all)
	for _, c := range []struct {
		name           string
		indexed, older uint64 // up to where it goes, and up to where it has no words
		version        uint32
	}{
		{"nothing", 0, 0, log.WordsVersion},
		{"words of some events", 3 * index.Width, 0, log.WordsVersion},
		{"words of all events", 6 * index.Width, 0, log.WordsVersion},
		{"no words", 6 * index.Width, 6 * index.Width, log.WordsVersion},
		{"words of the newer events", 6 * index.Width, 3 * index.Width, log.WordsVersion},
		{"words of a newer version", 5 * index.Width, 3 * index.Width, log.WordsVersion + 1},
		{"words of an older version", 5 * index.Width, 3 * index.Width, log.WordsVersion - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.open()
			if err := log.IndexWith(t.Context(), s.store.Store, s.log().ID, c.older, c.indexed, c.version); err != nil {
				t.Fatal(err)
			}
			s.close()
			s.open()
			defer s.close()
			l := s.log()
			s.searched(l, size-c.indexed)
			for _, name := range names {
				for _, text := range []string{strings.ToUpper(name), "e* " + strings.ToLower(name)} {
					checkPages(t, l, all, &log.Filter{Words: []log.Words{words(t, text)}}, v.having(text), log.Page{Oldest: true, Limit: 50, MaxBytes: 4 << 20})
				}
			}
			rapid.Check(t, func(t *rapid.T) {
				var f log.Filter
				var having []func(*stored) bool
				for range rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "lists") {
					q := drawWords(t, all[rapid.IntRange(0, len(all)-1).Draw(t, "like")].record.Event)
					f.Words, having = append(f.Words, words(t, q)), append(having, v.having(q))
				}
				action := rapid.SampledFrom([]string{"", "", "user.*", "invoice.paid"}).Draw(t, "action")
				if action != "" {
					f.Actions = []string{action}
				}
				selects := func(s *stored) bool {
					prefix, begins := strings.CutSuffix(action, "*")
					is := action == "" || s.event.Action() == prefix || begins && strings.HasPrefix(s.event.Action(), prefix)
					return is && slices.ContainsFunc(having, func(has func(*stored) bool) bool { return has(s) })
				}
				checkPages(t, l, all, &f, selects, log.Page{
					Oldest:   rapid.Bool().Draw(t, "oldest"),
					Position: rapid.OneOf(rapid.SampledFrom([]uint64{0, size}), rapid.Uint64Range(0, size)).Draw(t, "position"),
					Limit:    rapid.SampledFrom([]int{1, 3, 50, 1000}).Draw(t, "limit"),
					MaxBytes: 4 << 20,
				})
			})
		})
	}
}

// An index of an older version is rewritten where it stands: nothing is refused meanwhile, words are found before and after, and in
// the end it is what a new one would be.
func TestAnIndexOfAnOlderVersionIsRewritten(t *testing.T) {
	t.Parallel()
	const size = 6*index.Width + 500
	s := newTestService(t)
	s.appendAll(s.log(), variedEvents(t, 22, size))
	all := readAll(t, s.log())
	v := readVocabulary(t, all)
	s.openOlder(size)
	find := func() {
		t.Helper()
		for _, text := range []string{"rar* u7", "Świątek kind*"} {
			checkPages(t, s.log(), all, &log.Filter{Words: []log.Words{words(t, text)}}, v.having(text), log.Page{Position: size, Limit: 1000, MaxBytes: 64 << 20})
		}
	}
	s.searched(s.log(), 500)
	find()
	s.until("the rewriting to fail", func() bool { return strings.Contains(s.logs.String(), "rewriting a search index") })
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("not ready while the index is of an older version: %v", err)
	}
	s.rewritten()
	find()
	if n, err := log.CheckIndex(t.Context(), s.store, s.log().Info, nil); err != nil || n != size-500 {
		t.Errorf("the index: got %d, %v, want %d", n, err, size-500)
	}
}

// So is a merged segment, which takes several runs.
func TestAMergedSegmentOfAnOlderVersionIsRewritten(t *testing.T) {
	t.Parallel()
	const size = mergedSize + index.Width
	s := newTestService(t)
	s.appendAll(s.log(), events(t, size))
	s.openOlder(size)
	s.rewritten()
	metas, err := s.store.Segments(t.Context(), s.log().ID)
	if err != nil || len(metas) != 2 || metas[0].Level != index.Level1 {
		t.Errorf("segments: got %+v, %v, want one of each level", metas, err)
	}
	if n, err := log.CheckIndex(t.Context(), s.store, s.log().Info, nil); err != nil || n != size {
		t.Errorf("the index: got %d, %v, want %d", n, err, size)
	}
}

// openOlder opens the service with an index of an older version, up to a size, which can't be written.
func (s *testService) openOlder(size uint64) {
	s.t.Helper()
	s.close()
	s.noIndex = true
	s.open()
	if err := log.IndexWith(s.t.Context(), s.store.Store, s.log().ID, size, size, log.WordsVersion); err != nil {
		s.t.Fatal(err)
	}
	s.close()
	s.open()
}

// rewritten lets the index be written, and waits until all of it is of this version.
func (s *testService) rewritten() {
	s.t.Helper()
	s.store.noIndex.Store(false)
	s.clock.Add(61_000_000)
	end := time.Now().Add(3 * time.Minute) // under the race detector on a busy machine
	for old := true; old; time.Sleep(10 * time.Millisecond) {
		if have, _ := s.log().Unindexed(); have > index.Width {
			s.t.Fatalf("the index is %d events behind while it is rewritten", have)
		}
		metas, err := s.store.Segments(s.t.Context(), s.log().ID)
		if err != nil || time.Now().After(end) {
			s.t.Fatalf("waited in vain for the index to be rewritten: %+v, %v", metas, err)
		}
		old = slices.ContainsFunc(metas, func(m index.Meta) bool { return m.Words != log.WordsVersion })
	}
	s.until("a word about it", func() bool { return strings.Contains(s.logs.String(), "of this version now") })
}

// Segments that another version has written are built again where they are merged with ours. These are of a newer one, so that nobody
// rewrites them before.
func TestSegmentsWithOtherWordsAreBuiltAgainWhereTheyAreMerged(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.store.noIndex.Store(true)
	s.appendAll(s.log(), events(t, mergedSize/2))
	s.close()
	s.noIndex = true
	s.open()
	if err := log.IndexWith(t.Context(), s.store.Store, s.log().ID, 0, mergedSize/2, log.WordsVersion+1); err != nil {
		t.Fatal(err)
	}
	s.close()
	s.noIndex = false
	s.open()
	s.appendAll(s.log(), events(t, mergedSize/2))
	s.searched(s.log(), 0)
	if n, err := log.CheckIndex(t.Context(), s.store, s.log().Info, nil); err != nil || n != mergedSize {
		t.Errorf("the index: got %d, %v, want %d", n, err, mergedSize)
	}
	metas, err := s.store.Segments(t.Context(), s.log().ID)
	if err != nil || len(metas) != 1 || metas[0].Words != log.WordsVersion {
		t.Errorf("segments: got %+v, %v, want one with words", metas, err)
	}
	if strings.Contains(s.logs.String(), "is dropped and built anew") {
		t.Error("the index was dropped for it")
	}
}

// What a segment is listed as and what its blocks are must be one thing: a search that has read the one before and the other after it
// was rewritten begins again, and never takes blocks without words for ones with words.
func TestASegmentThatIsNotWhatItWasListedAsIsLookedForAgain(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.appendAll(s.log(), variedEvents(t, 23, 4*index.Width))
	s.searched(s.log(), 0)
	all := readAll(t, s.log())
	f := &log.Filter{Words: []log.Words{words(t, "rare u7*")}, Actions: []string{"rare*"}}
	for _, listed := range []uint32{0, log.WordsVersion - 1, log.WordsVersion} {
		older := uint64(0)
		if listed == log.WordsVersion {
			older = 4 * index.Width // the blocks have none
		}
		if err := log.IndexWith(t.Context(), s.store.Store, s.log().ID, older, 4*index.Width, log.WordsVersion); err != nil {
			t.Fatal(err)
		}
		for _, once := range []bool{true, false} {
			n := 0
			s.store.listed.Store(new(func(metas []index.Meta) {
				for i := range metas {
					if n == 0 || !once {
						metas[i].Words = listed
					}
				}
				n++
			}))
			found, err := s.log().Search(t.Context(), f, log.Page{Position: 4 * index.Width, Limit: 1000, MaxBytes: 64 << 20})
			if !once {
				if !errors.Is(err, log.ErrDamaged) {
					t.Errorf("listed as %08x, for good: got %d, %v, want ErrDamaged", listed, len(found.Records), err)
				}
				continue
			}
			want := 0
			for i := range all {
				if f.Match(all[i].event, all[i].record.ReceivedAt) {
					want++
				}
			}
			if err != nil || len(found.Records) != want || n != 2 {
				t.Errorf("listed as %08x, once: got %d, %v after %d lists, want %d after 2", listed, len(found.Records), err, n, want)
			}
		}
	}
}
