package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"
)

// cosigner returns a witness's key of the type 0x04.
func cosigner(t testing.TB, name string) *Cosigner {
	t.Helper()
	c, err := testSeed.Ed25519Cosigner(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// vkeyOf returns the verifier key of type 0x04 for the name.
func vkeyOf(t testing.TB, name string) string { return cosigner(t, name).VKey() }

func logKey(t testing.TB, generation uint32) string {
	t.Helper()
	_, vkey, err := testSeed.Ed25519(testOrigin, generation)
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

// examplePolicy is the example of C2SP tlog-policy, with keys.
func examplePolicy(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "log %s\n\n", logKey(t, 0))
	for _, name := range []string{"X1", "X2", "X3"} {
		fmt.Fprintf(&b, "witness %s %s\n", name, vkeyOf(t, name))
	}
	b.WriteString("group X-witnesses 2 X1 X2 X3\n\n")
	for _, name := range []string{"Y1", "Y2", "Y3"} {
		fmt.Fprintf(&b, "witness %s %s\n", name, vkeyOf(t, name))
	}
	b.WriteString("group Y-witnesses any Y1 Y2 Y3\n\ngroup X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n")
	return b.String()
}

func parsePolicy(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return p
}

// among returns what a policy asks for: whether a witness is one of those named.
func among(names ...string) func(Witness) bool {
	return func(w Witness) bool { return slices.Contains(names, w.Name) }
}

func namesOf(witnesses []Witness) string {
	var names []string
	for _, w := range witnesses {
		names = append(names, w.Name)
	}
	return strings.Join(names, " ")
}

func TestExamplePolicy(t *testing.T) {
	p := parsePolicy(t, examplePolicy(t))
	if len(p.Logs) != 1 || p.Logs[0].VKey != logKey(t, 0) || p.Logs[0].URL != "" || len(p.Witnesses) != 6 || len(p.Groups) != 3 || p.Quorum != "X-and-Y" {
		t.Errorf("got %+v", p)
	}
	if w := p.Witnesses[3]; w.Name != "Y1" || w.VKey != vkeyOf(t, "Y1") || !strings.HasPrefix(w.VKey, w.Key()+"+") {
		t.Errorf("got %+v", w)
	}
	if len(p.LogVerifiers(testOrigin)) != 1 || len(p.LogVerifiers("another")) != 0 || len(p.WitnessVerifiers()) != 6 {
		t.Error("verifiers")
	}
	for _, tc := range []struct{ cosigned, lacks string }{
		{"X1 X2 Y1", ""},
		{"X2 X3 Y3", ""},
		{"X1 X2 X3 Y1 Y2 Y3", ""},
		{"X1 X2 X3", "Y1"},
		{"X2 Y1 Y2 Y3", "X1"},
		{"Y2", "X1 X2"},
		{"", "Y1 X1 X2"},
	} {
		cosigned := among(strings.Fields(tc.cosigned)...)
		if got := namesOf(p.Lacks(cosigned)); got != tc.lacks || p.Met(cosigned) != (tc.lacks == "") {
			t.Errorf("%s: lacks %q, want %q; met %v", tc.cosigned, got, tc.lacks, p.Met(cosigned))
		}
	}
}

func TestPolicySyntax(t *testing.T) {
	w1, w2 := vkeyOf(t, "W1"), vkeyOf(t, "W2")
	ml, err := testSeed.MLDSA44Cosigner("W1")
	if err != nil {
		t.Fatal(err)
	}
	_, mlLog, err := testSeed.MLDSA44(testOrigin, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing but a quorum":    "quorum none\n",
		"white space":             "\n \t \n \t# comment\n\tquorum \t none \t\n\n",
		"comments":                "# one\n#two\nquorum none\n # three",
		"a witness":               "witness W1 " + w1 + "\nquorum W1\n",
		"both types of one name":  "witness a " + w1 + "\nwitness b " + ml.VKey() + "\ngroup g all a b\nquorum g\n",
		"both types of a log":     "log " + mlLog + "\nlog " + logKey(t, 0) + " https://logs.example.com/logs/acme\nquorum none\n",
		"two generations":         "log " + logKey(t, 0) + "\nlog " + logKey(t, 1) + "\nquorum none\n",
		"definitions afterwards":  "witness W1 " + w1 + "\nquorum W1\nwitness W2 " + w2 + "\ngroup g any W2\n",
		"odd names":               "witness all " + w1 + "\nwitness #1 " + w2 + " https://w.example/ä\ngroup \xff any all #1\nquorum \xff\n",
		"names are opaque octets": "witness K " + w1 + "\nwitness \u212a " + w2 + "\ngroup g all K \u212a\nquorum g\n",
		"a group of one":          "witness W1 " + w1 + "\ngroup g 1 W1\ngroup h all g\nquorum h\n",
	} {
		text = strings.TrimSuffix(text, "\n") + "\n"
		if _, err := ParsePolicy([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := parsePolicy(t, "witness a "+w1+" \t https://w.example/ \nquorum a\nlog "+logKey(t, 0)+" x:y\n")
	if p.Witnesses[0].URL != "https://w.example/" || p.Logs[0].URL != "x:y" {
		t.Errorf("got %+v", p)
	}
}

// Each error says where it is, and what is to be done where that isn't plain.
func TestPolicyErrors(t *testing.T) {
	w1, w2 := vkeyOf(t, "W1"), vkeyOf(t, "W2")
	key, err := parseVerifierKey(w1)
	if err != nil {
		t.Fatal(err)
	}
	otherName, plain := key, key
	otherName.name, plain.alg = "other", algEd25519
	two := "witness W1 " + w1 + "\nwitness W2 " + w2 + "\n"
	_, mlLog, err := testSeed.MLDSA44(testOrigin, 0)
	if err != nil {
		t.Fatal(err)
	}
	many := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i))
		}
		return b.String()
	}
	for _, tc := range []struct {
		name, text string
		line       int
		problem    string
	}{
		{"empty", "", 1, "without a quorum"},
		{"no quorum", two, 2, "quorum none"},
		{"two quorums", two + "quorum W1\nquorum W2\n", 4, "after that of line 3"},
		{"the same quorum twice", "quorum none\nquorum none\n", 2, "after that of line 1"},
		{"cut off", two + "quorum W1", 3, "newline"},
		{"cut off in a comment", "quorum none\n#", 2, "newline"},
		{"carriage returns", "quorum none\r\n", 1, "carriage return"},
		{"NUL", "quorum none\n#\x00\n", 2, "0x00"},
		{"DEL", "#\x7f\n", 1, "0x7f"},
		{"form feed", "\f\nquorum none\n", 1, "0x0c"},
		{"byte order mark", "\ufeffquorum none\n", 1, `"\ufeffquorum"`},
		{"no-break space", "quorum\u00a0none\n", 1, "want log, witness"},
		{"keyword in capitals", "Quorum none\n", 1, "want log, witness"},
		{"unknown keyword", "origin x\n", 1, "want log, witness"},

		{"log alone", "log\n", 1, "want: log VKEY [URL]"},
		{"log with a name", "log acme " + logKey(t, 0) + "\n", 1, "not of the form <name>+<hash>+<key>"},
		{"log with more", "log " + logKey(t, 0) + " x y\n", 1, `"y" is one word too many`},
		{"log with a comment", "log " + logKey(t, 0) + " # ours\n", 1, "comments have lines of their own"},
		{"log with a comment after the URL", "log " + logKey(t, 0) + " x #ours\n", 1, "comments have lines of their own"},
		{"log twice", "log " + logKey(t, 0) + "\nlog " + logKey(t, 0) + " x\n", 2, "is that of line 1"},
		{"log with a witness's key", "log " + w1 + "\n", 1, "which is for witnesses"},
		{"log with too long a name", "log " + verifierKey{strings.Repeat("a", 256), 1, key.public}.String() + "\n", 1, "256 bytes"},

		{"witness alone", "witness\n", 1, "want: witness NAME VKEY [URL]"},
		{"witness without a name", "witness " + w1 + "\n", 1, "want: witness NAME VKEY [URL]"},
		{"witness with more", "witness W1 " + w1 + " x y\n", 1, "one word too many"},
		{"witness with a comment", "witness W1 " + w1 + " #x\n", 1, "comments have lines of their own"},
		{"witness with a wrong hash", "witness W1 " + strings.Replace(w1, "+", "+0", 1) + "\n", 1, "the hash in it is"},
		{"witness none", "witness none " + w1 + "\n", 1, "can't be the name"},
		{"witness with a plain key", "\nwitness W1 " + plain.String() + "\n", 2, "its verifier key is " + w1},
		{"witness twice", two + "witness W3 " + w1 + "\n", 3, "is that of line 1"},
		{"witness under another key name", two + "witness W3 " + otherName.String() + "\n", 3, "is that of line 1"},
		{"name twice", two + "witness W2 " + vkeyOf(t, "W3") + "\n", 3, "is that of line 2"},
		{"log's key for a witness", "log " + plain.String() + "\nwitness W1 " + w1 + "\n", 2, "is that of line 1"},
		{"log's ML-DSA key for a witness", "log " + mlLog + "\nwitness W1 " + mlLog + "\n", 2, "is that of line 1"},

		{"group alone", "group\n", 1, "want: group"},
		{"group without members", two + "group g all\n", 3, "want: group"},
		{"group of what isn't", two + "group g any W1 W3\n", 3, `"W3", of which there is no definition above`},
		{"group of what is later", "group g any W1\n" + two, 1, "no definition above"},
		{"group of itself", two + "group g any g\n", 3, "no definition above"},
		{"group of none", two + "group g any none\n", 3, "for the quorum only"},
		{"group none", two + "group none any W1\n", 3, "can't be the name"},
		{"group with a comment", two + "group g any W1 # x\n", 3, "comments have lines of their own"},
		{"group with a witness's name", two + "group W1 any W2\n", 3, "is that of line 1"},
		{"group twice", two + "group g any W1\ngroup g any W2\n", 4, "is that of line 3"},
		{"member twice", two + "group g any W1 W1\n", 3, "member in line 3"},
		{"member of two groups", two + "group g any W1\ngroup h any W2 W1\n", 4, "member in line 3"},
		{"group in two groups", two + "group g any W1\ngroup h any g\ngroup i all g W2\n", 5, "member in line 4"},
		{"0 of 1", two + "group g 0 W1\n", 3, "a number from 1 to 1"},
		{"3 of 2", two + "group g 3 W1 W2\n", 3, "a number from 1 to 2"},
		{"-1 of 2", two + "group g -1 W1 W2\n", 3, "a number from 1 to 2"},
		{"+1 of 2", two + "group g +1 W1 W2\n", 3, "a number from 1 to 2"},
		{"01 of 2", two + "group g 01 W1 W2\n", 3, "a number from 1 to 2"},
		{"0x1 of 2", two + "group g 0x1 W1 W2\n", 3, "a number from 1 to 2"},
		{"2^64+1 of 2", two + "group g 18446744073709551617 W1 W2\n", 3, "a number from 1 to 2"},
		{"All", two + "group g All W1 W2\n", 3, "a number from 1 to 2"},

		{"quorum alone", "quorum\n", 1, "want: quorum NAME"},
		{"quorum of what isn't", two + "quorum W3\n", 3, "no definition above"},
		{"quorum of what is later", "quorum W1\n" + two, 1, "no definition above"},
		{"quorum of two", two + "quorum W1 W2\n", 3, "one word too many"},
		{"quorum with a comment", two + "quorum W1 # x\n", 3, "comments have lines of their own"},

		{"too long", strings.Repeat("#", MaxPolicySize) + "\n", 1, "1048577 bytes"},
		{"too many witnesses", many(97, func(i int) string { return fmt.Sprintf("witness W%d %s\n", i, vkeyOf(t, fmt.Sprint(i))) }), 97, "more than 96 witnesses"},
		{"too many groups", two + "group g0 any W1\n" + many(96, func(i int) string { return fmt.Sprintf("group g%d any g%d\n", i+1, i) }), 99, "more than 96 groups"},
	} {
		p, err := ParsePolicy([]byte(tc.text))
		problem, ok := errors.AsType[*PolicyError](err)
		if p != nil || !ok || problem.Line != tc.line || !strings.Contains(problem.Problem, tc.problem) {
			t.Errorf("%s: got %v, want line %d: …%s…", tc.name, err, tc.line, tc.problem)
		}
	}

	// As many as may be.
	full := many(MaxPolicyLogs, func(i int) string { return "log " + logKey(t, uint32(i)) + "\n" }) +
		many(MaxPolicyWitnesses, func(i int) string { return fmt.Sprintf("witness W%d %s\n", i, vkeyOf(t, fmt.Sprint(i))) }) +
		"group g0 any W0\n" + many(MaxPolicyGroups-1, func(i int) string { return fmt.Sprintf("group g%d any g%d\n", i+1, i) })
	p := parsePolicy(t, full+"quorum g95\n")
	if !p.Met(among("W0")) || p.Met(among("W1")) {
		t.Error("a quorum of 96 groups deep")
	}
	if _, err := ParsePolicy([]byte(full + "log " + logKey(t, MaxPolicyLogs) + "\n")); err == nil || !strings.Contains(err.Error(), "more than 1000 logs") {
		t.Errorf("1001 logs: %v", err)
	}
}

// drawPolicy draws a policy of a few witnesses and groups. The group g(i) has some of the
// witnesses and groups before it that are in no group yet.
func drawPolicy(t *rapid.T, vkeys []string) (text string, groups map[string]Group) {
	groups = make(map[string]Group)
	var b strings.Builder
	var free []string
	n := rapid.IntRange(1, len(vkeys)).Draw(t, "witnesses")
	for i, vkey := range vkeys[:n] {
		name := fmt.Sprint("w", i)
		fmt.Fprintf(&b, "witness %s %s\n", name, vkey)
		free = append(free, name)
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "groups") {
		free = rapid.Permutation(free).Draw(t, "order")
		n := rapid.IntRange(1, len(free)).Draw(t, "members")
		g := Group{fmt.Sprint("g", i), rapid.IntRange(1, n).Draw(t, "threshold"), slices.Clone(free[:n])}
		fmt.Fprintf(&b, "group %s %d %s\n", g.Name, g.Threshold, strings.Join(g.Members, " "))
		groups[g.Name] = g
		free = append(free[n:], g.Name)
	}
	fmt.Fprintf(&b, "quorum %s\n", rapid.SampledFrom(free).Draw(t, "quorum"))
	return b.String(), groups
}

// naiveMet is the definition: a group has witnessed if k of its members have.
func naiveMet(groups map[string]Group, name string, cosigned map[string]bool) bool {
	g, ok := groups[name]
	if !ok {
		return cosigned[name]
	}
	k := 0
	for _, member := range g.Members {
		if naiveMet(groups, member, cosigned) {
			k++
		}
	}
	return k >= g.Threshold
}

// The quorum is met when its definition says so, and what it lacks is as little as
// would meet it.
func TestQuorumIsThatOfItsDefinition(t *testing.T) {
	var vkeys []string
	for i := range 7 {
		vkeys = append(vkeys, vkeyOf(t, fmt.Sprint("w", i)))
	}
	rapid.Check(t, func(t *rapid.T) {
		text, groups := drawPolicy(t, vkeys)
		p, err := ParsePolicy([]byte(text))
		if err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		met := func(set map[string]bool) bool { return naiveMet(groups, p.Quorum, set) }
		cosigned := make(map[string]bool)
		for _, w := range p.Witnesses {
			cosigned[w.Name] = rapid.Bool().Draw(t, w.Name)
		}
		has := func(w Witness) bool { return cosigned[w.Name] }
		if p.Met(has) != met(cosigned) {
			t.Fatalf("Met(%v) = %v in:\n%s", cosigned, p.Met(has), text)
		}
		lacks := p.Lacks(has)
		with := maps.Clone(cosigned)
		for _, w := range lacks {
			if with[w.Name] {
				t.Fatalf("lacks %s, which has cosigned, in:\n%s", w.Name, text)
			}
			with[w.Name] = true
		}
		if !met(with) {
			t.Fatalf("with %s still not met after %v in:\n%s", namesOf(lacks), cosigned, text)
		}
		// No smaller set would do, of any witnesses.
		for set := range 1 << len(p.Witnesses) {
			with, n := maps.Clone(cosigned), 0
			for i, w := range p.Witnesses {
				if set>>i&1 == 1 {
					with[w.Name], n = true, n+1
				}
			}
			if n < len(lacks) && met(with) {
				t.Fatalf("lacks %s, but %d would do, after %v in:\n%s", namesOf(lacks), n, cosigned, text)
			}
		}
	})
}

// cosign adds cosignatures to a note.
func cosign(t testing.TB, msg []byte, c Checkpoint, at time.Time, cosigners ...*Cosigner) []byte {
	t.Helper()
	msg = slices.Clone(msg)
	for _, w := range cosigners {
		sig, err := w.Cosign(c, at)
		if err != nil {
			t.Fatal(err)
		}
		msg = append(msg, SignatureLine(sig)...)
	}
	return msg
}

func TestJudge(t *testing.T) {
	p := parsePolicy(t, "log "+logKey(t, 1)+"\n"+examplePolicy(t))
	now := time.Unix(1_800_000_000, 500)
	c := testCheckpoint(extend(nil, 5, "honest"))
	signed := signWith(t, c, 0)
	x1, x2, y1, y2 := cosigner(t, "X1"), cosigner(t, "X2"), cosigner(t, "Y1"), cosigner(t, "Y2")
	stranger := cosigner(t, "stranger")

	msg := cosign(t, signed, c, now, x1, stranger)
	msg = cosign(t, msg, c, now.Add(-time.Hour), x2)
	msg = cosign(t, msg, c, now.Add(MaxClockSkew+time.Second), y1)
	j, err := p.Judge(msg, now)
	if err != nil {
		t.Fatal(err)
	}
	if j.Checkpoint != c || len(j.Signed) != 1 || len(j.Unchecked) != 1 || j.Unchecked[0].Name != "stranger" || j.Met || namesOf(j.Lacks) != "Y1" {
		t.Errorf("got %+v", j)
	}
	var got []string
	for _, w := range j.Witnesses {
		at := "never"
		if !w.At.IsZero() {
			at = w.At.Sub(time.Unix(1_800_000_000, 0)).String()
		}
		got = append(got, fmt.Sprintf("%s %s %s", w.Witness.Name, w.State, at))
	}
	if want := "X1 cosigned 0s, X2 cosigned -1h0m0s, X3 missing never, Y1 from the future 5m1s, Y2 missing never, Y3 missing never"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}

	// A clock that is a little ahead does no harm; the other log key alone is enough.
	msg = cosign(t, signWith(t, c, 1), c, now, x1, x2)
	msg = cosign(t, msg, c, now.Add(MaxClockSkew), y2)
	if j, err := p.Judge(msg, now); err != nil || !j.Met || len(j.Lacks) != 0 {
		t.Errorf("got %+v, %v", j, err)
	}
	if j, err := p.Judge(msg, now.Add(-time.Second)); err != nil || j.Met {
		t.Errorf("a second earlier: %+v, %v", j, err)
	}

	// Who isn't of the policy, or of another log, doesn't count.
	_, v2 := testKey(t, 2)
	unknown := cosign(t, signWith(t, c, 2), c, now, x1, x2, y1)
	if j, err := p.Judge(unknown, now); !errors.Is(err, ErrNotSigned) || j != nil {
		t.Errorf("without a known log: %v, %v, want ErrNotSigned", j, err)
	}
	if j, err := p.Judge(unknown, now, v2); err != nil || !j.Met {
		t.Errorf("with the log from elsewhere: %+v, %v", j, err)
	}
	if j, err := p.Judge(cosign(t, signed, c, now, x1, x2, y1), now, p.Logs[0].Verifier, p.Logs[1].Verifier); err != nil || !j.Met {
		t.Errorf("with the log's keys again: %+v, %v", j, err)
	}
	other := c
	other.Origin = "logs.example.com/logs/other"
	if j, err := p.Judge(cosign(t, signOther(t, other), other, now, x1, x2, y1), now); !errors.Is(err, ErrNotSigned) || j != nil {
		t.Errorf("another log's: %v, %v, want ErrNotSigned", j, err)
	}
	if j, err := p.Judge(signed, now); err != nil || j.Met || namesOf(j.Lacks) != "Y1 X1 X2" {
		t.Errorf("not cosigned: %+v, %v", j, err)
	}

	// What can't be right.
	forge := func(msg []byte, name string) []byte {
		c, sigs, err := ParseNote(msg)
		if err != nil {
			t.Fatal(err)
		}
		for i := range sigs {
			if sigs[i].Name == name {
				b := []byte(sigs[i].Base64)
				b[40] ^= 1
				sigs[i].Base64 = string(b)
			}
		}
		return joinNote(c.Text(), sigs)
	}
	good := cosign(t, signed, c, now, x1, x2, y1, stranger)
	smaller := c
	smaller.Size--
	for name, msg := range map[string][]byte{
		"log's signature":     forge(good, testOrigin),
		"a cosignature":       forge(good, "X2"),
		"of another tree":     cosign(t, signed, smaller, now, y1),
		"twice a witness":     cosign(t, good, c, now, y1),
		"no signature":        []byte(c.Text() + "\n"),
		"empty with root":     []byte(testOrigin + "\n0\n" + rootB64 + "\n\n" + manyLines(1)),
		"foreign, no witness": []byte("\n7\n" + rootB64 + "\n\n" + manyLines(1)),
	} {
		if j, err := p.Judge(msg, now); err == nil || errors.Is(err, ErrNotSigned) {
			t.Errorf("%s: got %+v, %v", name, j, err)
		}
	}
	if j, err := p.Judge(forge(good, "stranger"), now); err != nil || !j.Met {
		t.Errorf("a stranger's: %+v, %v", j, err)
	}
}

// A witness's name and its key's are two things, and each key is a witness of its own.
func TestJudgeTellsKeysApart(t *testing.T) {
	ml, err := testSeed.MLDSA44Cosigner("W")
	if err != nil {
		t.Fatal(err)
	}
	ed := cosigner(t, "W")
	p := parsePolicy(t, "log "+logKey(t, 0)+"\nwitness a "+ed.VKey()+"\nwitness W "+ml.VKey()+"\ngroup both all a W\nquorum both\n")
	c, now := testCheckpoint(extend(nil, 5, "honest")), time.Unix(1_800_000_000, 0)
	signed := signWith(t, c, 0)
	for _, tc := range []struct {
		cosigners []*Cosigner
		lacks     string
	}{
		{nil, "a W"}, {[]*Cosigner{ed}, "W"}, {[]*Cosigner{ml}, "a"}, {[]*Cosigner{ml, ed}, ""},
	} {
		j, err := p.Judge(cosign(t, signed, c, now, tc.cosigners...), now)
		if err != nil || namesOf(j.Lacks) != tc.lacks {
			t.Errorf("got %+v, %v, want it to lack %q", j, err, tc.lacks)
		}
	}

	// A signature without a time is what a log makes, not a witness.
	_, signer, err := newMLDSA44("W", testSeed.Derive("treeline/witness/mldsa44/v1\nW\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	untimed, err := note.Sign(&note.Note{Text: c.Text()}, untimedSigner{signer})
	if err != nil {
		t.Fatal(err)
	}
	line := untimed[len(c.Text())+1:]
	j, err := p.Judge(append(cosign(t, signed, c, now, ed), line...), now)
	if err != nil || j.Met || j.Witnesses[1].State != Untimed || !j.Witnesses[1].At.IsZero() {
		t.Errorf("without a time: %+v, %v", j, err)
	}
}

// signOther signs a checkpoint of any log of this kind.
func signOther(t testing.TB, c Checkpoint) []byte {
	t.Helper()
	signer, _, err := testSeed.Ed25519(c.Origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := Sign(c, signer)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}
