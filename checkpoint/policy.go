package checkpoint

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Limits of a policy. C2SP tlog-policy asks for at least 32 logs, witnesses and groups.
// A note can't have the signatures of many more witnesses: see maxSignatures.
const (
	MaxPolicySize      = 1 << 20 // bytes of the file
	MaxPolicyLogs      = 1000
	MaxPolicyWitnesses = 96
	MaxPolicyGroups    = 96
)

// noQuorum is the quorum's name in a policy that asks for no cosignatures.
const noQuorum = "none"

// A Policy says which checkpoints are to be believed: those that any one of its logs has
// signed, and that as many of its witnesses have cosigned as its quorum asks for. Its
// file is that of C2SP tlog-policy (https://c2sp.org/tlog-policy):
//
//	log logs.example.com/logs/acme+61802530+AeQ5GK/WLLPTJJDio2/aSp/cEJb47mo47OYZYxIZImYj
//
//	witness W1 witness.example/w1+aa4a09d1+BOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs https://witness.example/w1
//	witness W2 …
//	witness W3 …
//	group Ws 2 W1 W2 W3
//
//	quorum Ws
//
// A Policy comes from [ParsePolicy] and isn't changed afterwards.
type Policy struct {
	Logs      []PolicyLog
	Witnesses []Witness
	Groups    []Group // each after the groups that are its members
	Quorum    string  // name of a witness or a group, or "none"

	nodes map[string]node
}

// A PolicyLog is one of the logs of a policy. The name of its key is the log's origin.
type PolicyLog struct {
	VKey     string // of type 0x01 or 0x06
	Verifier note.Verifier
	URL      string // as in the file, where it may be missing
}

// A Witness is one of the witnesses of a policy. It is identified by its key. Its name is
// for use within the policy only, and isn't that of the key.
type Witness struct {
	Name     string
	VKey     string // of type 0x04 or 0x06
	URL      string // as in the file, where it may be missing
	Verifier note.Verifier
}

// Key returns what identifies the witness's key in a note, see [KeyID].
func (w Witness) Key() string { return KeyID(w.Verifier.Name(), w.Verifier.KeyHash()) }

// A Group of a policy has cosigned a checkpoint if Threshold of its members have, or more.
type Group struct {
	Name      string
	Threshold int      // from 1 to the number of members
	Members   []string // names of witnesses and groups
}

// A node is what a name in a policy stands for.
type node struct {
	line    int // that defines it
	witness *Witness
	group   *Group
}

// A PolicyError says what is wrong with a policy's file and, where that isn't plain, what
// to do about it.
type PolicyError struct {
	Line    int // counted from 1
	Problem string
}

func (e *PolicyError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Problem) }

// ParsePolicy parses the file of a policy. It reads strictly: comments have lines of
// their own, spaces and tabs separate, names are defined before they are used, and there
// is exactly one quorum. The error is a [*PolicyError].
//
// Beyond C2SP tlog-policy, the last line must end in a newline, too, since what is left of
// a file that was cut off must not pass for a policy; a key can't be both a log's and a
// witness's; and a log's key is of the signature type 0x01 or 0x06, a witness's of 0x04 or
// 0x06. What a URL means is for those to say who use it.
func ParsePolicy(data []byte) (*Policy, error) {
	p := policyParser{
		policy:  &Policy{nodes: make(map[string]node)},
		keys:    make(map[string]int),
		ids:     make(map[string]int),
		members: make(map[string]int),
	}
	if len(data) > MaxPolicySize {
		return nil, p.errorf("the file has %d bytes, want <= %d", len(data), MaxPolicySize)
	}
	for text := range bytes.Lines(data) {
		p.line++
		if err := p.parseLine(string(text)); err != nil {
			return nil, err
		}
	}
	if p.policy.Quorum == "" {
		return nil, p.errorf("the file ends without a quorum; say which witness or group must cosign, as in: quorum NAME, "+
			"or that none must: quorum %s", noQuorum)
	}
	return p.policy, nil
}

// A policyParser is in the middle of a policy's file. Its maps say in which line there was
// what.
type policyParser struct {
	policy  *Policy
	line    int
	quorum  int            // line of the quorum, 0 if there was none
	keys    map[string]int // raw public keys
	ids     map[string]int // what KeyID returns
	members map[string]int // names that are members of a group
}

func (p *policyParser) errorf(format string, args ...any) error {
	return &PolicyError{max(p.line, 1), fmt.Sprintf(format, args...)}
}

// parseLine parses one line, which has its newline still.
func (p *policyParser) parseLine(line string) error {
	line, ok := strings.CutSuffix(line, "\n")
	if !ok {
		return p.errorf("the last line doesn't end in a newline; if the file wasn't cut off here, add one")
	}
	for i := range len(line) {
		// "the allowed octet values are 0x09 (tab), 0x0A (newline), 0x20-0x7E, and 0x80-0xFF".
		switch c := line[i]; {
		case c == '\r':
			return p.errorf("a carriage return; lines end in a newline alone")
		case c < 0x20 && c != '\t' || c == 0x7f:
			return p.errorf("a control character, 0x%02x", c)
		}
	}
	fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
		return nil
	}
	switch keyword, args := fields[0], fields[1:]; keyword {
	case "log":
		return p.parseLog(args)
	case "witness":
		return p.parseWitness(args)
	case "group":
		return p.parseGroup(args)
	case "quorum":
		return p.parseQuorum(args)
	default:
		return p.errorf("it begins with %.40q, want log, witness, group, quorum or, for a comment, #", keyword)
	}
}

// words returns an error unless there are from min to max of the arguments.
func (p *policyParser) words(args []string, min, max int, form string) error {
	if len(args) < min {
		return p.errorf("want: %s", form)
	}
	for _, arg := range args[min:] {
		if strings.HasPrefix(arg, "#") {
			return p.errorf("a comment after a definition; comments have lines of their own")
		}
	}
	if len(args) > max {
		return p.errorf("%.40q is one word too many for: %s", args[max], form)
	}
	return nil
}

// parseLog parses what follows "log".
func (p *policyParser) parseLog(args []string) error {
	if err := p.words(args, 1, 2, "log VKEY [URL]"); err != nil {
		return err
	}
	if len(p.policy.Logs) == MaxPolicyLogs {
		return p.errorf("more than %d logs", MaxPolicyLogs)
	}
	k, verifier, err := p.parseKey(args[0])
	if err != nil {
		return err
	}
	if k.alg == algEd25519Time {
		return p.errorf("the key of log %.100q is of the signature type 0x%02x, which is for witnesses; that of a log is of 0x%02x or 0x%02x",
			k.name, k.alg, algEd25519, algMLDSA44)
	}
	if len(k.name) > maxOrigin {
		return p.errorf("the key's name, which is the log's origin, has %d bytes, want <= %d", len(k.name), maxOrigin)
	}
	l := PolicyLog{VKey: args[0], Verifier: verifier}
	if len(args) > 1 {
		l.URL = args[1]
	}
	p.policy.Logs = append(p.policy.Logs, l)
	return nil
}

// parseWitness parses what follows "witness".
func (p *policyParser) parseWitness(args []string) error {
	if err := p.words(args, 2, 3, "witness NAME VKEY [URL]"); err != nil {
		return err
	}
	if len(p.policy.Witnesses) == MaxPolicyWitnesses {
		return p.errorf("more than %d witnesses", MaxPolicyWitnesses)
	}
	k, verifier, err := p.parseKey(args[1])
	if err != nil {
		return err
	}
	if k.alg == algEd25519 {
		cosigning := verifierKey{k.name, algEd25519Time, k.public}
		return p.errorf("the key of witness %.100q is of the signature type 0x%02x, which has no time; that of a witness is of 0x%02x or 0x%02x; "+
			"if the witness cosigns with this one, its verifier key is %s", args[0], k.alg, algEd25519Time, algMLDSA44, cosigning)
	}
	w := Witness{Name: args[0], VKey: args[1], Verifier: verifier}
	if len(args) > 2 {
		w.URL = args[2]
	}
	p.policy.Witnesses = append(p.policy.Witnesses, w)
	return p.define(w.Name, node{witness: &w})
}

// parseGroup parses what follows "group".
func (p *policyParser) parseGroup(args []string) error {
	if len(args) < 3 {
		return p.errorf("want: group NAME all|any|K MEMBER…")
	}
	if len(p.policy.Groups) == MaxPolicyGroups {
		return p.errorf("more than %d groups", MaxPolicyGroups)
	}
	g := Group{Name: args[0], Members: args[2:]}
	for _, name := range g.Members {
		switch {
		case name == noQuorum:
			return p.errorf("group %.100q has the member %q, which is for the quorum only", g.Name, noQuorum)
		case strings.HasPrefix(name, "#") && p.policy.nodes[name].line == 0:
			return p.errorf("a comment after a definition; comments have lines of their own")
		case p.policy.nodes[name].line == 0:
			return p.errorf("group %.100q has the member %.100q, of which there is no definition above", g.Name, name)
		case p.members[name] != 0:
			// "Each defined name can be listed as a group member at most once."
			return p.errorf("group %.100q has the member %.100q, which is a member in line %d already", g.Name, name, p.members[name])
		}
		p.members[name] = p.line
	}
	switch args[1] {
	case "all":
		g.Threshold = len(g.Members)
	case "any":
		g.Threshold = 1
	default:
		k, err := strconv.Atoi(args[1])
		if err != nil || strconv.Itoa(k) != args[1] || k < 1 || k > len(g.Members) {
			return p.errorf("group %.100q asks for %.40q of its %d members, want all, any, or a number from 1 to %[3]d", g.Name, args[1], len(g.Members))
		}
		g.Threshold = k
	}
	p.policy.Groups = append(p.policy.Groups, g)
	return p.define(g.Name, node{group: &g})
}

// parseQuorum parses what follows "quorum".
func (p *policyParser) parseQuorum(args []string) error {
	if err := p.words(args, 1, 1, "quorum NAME"); err != nil {
		return err
	}
	if p.quorum != 0 {
		return p.errorf("a second quorum, after that of line %d; put both into a group", p.quorum)
	}
	if args[0] != noQuorum && p.policy.nodes[args[0]].line == 0 {
		return p.errorf("the quorum is %.100q, of which there is no definition above", args[0])
	}
	p.policy.Quorum, p.quorum = args[0], p.line
	return nil
}

// define gives a name its meaning.
func (p *policyParser) define(name string, n node) error {
	if name == noQuorum {
		return p.errorf("%q can't be the name of a witness or group", noQuorum)
	}
	if first := p.policy.nodes[name].line; first != 0 {
		return p.errorf("the name %.100q is that of line %d already", name, first)
	}
	n.line = p.line
	p.policy.nodes[name] = n
	return nil
}

// parseKey parses a verifier key that mustn't have been there before.
func (p *policyParser) parseKey(vkey string) (verifierKey, note.Verifier, error) {
	k, err := parseVerifierKey(vkey)
	if err != nil {
		return verifierKey{}, nil, p.errorf("%v", err)
	}
	v, err := k.verifier()
	if err != nil {
		return verifierKey{}, nil, p.errorf("%v", err)
	}
	// "Two vkeys are considered duplicate if they wrap the same underlying public
	// key, even if they differ by key name and key id."
	id := KeyID(k.name, k.hash())
	if first := p.keys[string(k.public)]; first != 0 {
		return verifierKey{}, nil, p.errorf("the public key of %.100q is that of line %d already", id, first)
	}
	// Notes have no more of a key than this, so nobody could tell the two apart.
	if first := p.ids[id]; first != 0 {
		return verifierKey{}, nil, p.errorf("the key is another one than that of line %d, but has the same name and hash, %.100q", first, id)
	}
	p.keys[string(k.public)], p.ids[id] = p.line, p.line
	return k, v, nil
}

// AsksForWitnesses reports whether the quorum is anything but "none".
func (p *Policy) AsksForWitnesses() bool { return p.Quorum != noQuorum }

// Met reports whether the quorum is met by those witnesses for which cosigned returns
// true. It is, whatever they did, if the quorum is "none".
func (p *Policy) Met(cosigned func(Witness) bool) bool {
	return len(p.Lacks(cosigned)) == 0
}

// Lacks returns as few witnesses as would meet the quorum if they cosigned, too, besides
// those for which cosigned returns true. It is empty if the quorum is met. Of several
// choices it is that of the witnesses which come first in their groups.
func (p *Policy) Lacks(cosigned func(Witness) bool) []Witness {
	if !p.AsksForWitnesses() {
		return nil
	}
	return p.LacksIn(p.Quorum, cosigned)
}

// LacksIn is [Policy.Lacks] for the witness or group of the given name in place of the
// quorum.
func (p *Policy) LacksIn(name string, cosigned func(Witness) bool) []Witness {
	n := p.nodes[name]
	if n.witness != nil {
		if cosigned(*n.witness) {
			return nil
		}
		return []Witness{*n.witness}
	}
	// No witness is in two members, so what the members lack can be added up.
	var lacks [][]Witness
	for _, member := range n.group.Members {
		lacks = append(lacks, p.LacksIn(member, cosigned))
	}
	slices.SortStableFunc(lacks, func(a, b []Witness) int { return len(a) - len(b) })
	return slices.Concat(lacks[:n.group.Threshold]...)
}

// LogVerifiers returns the verifiers of the policy's logs that have the given origin.
func (p *Policy) LogVerifiers(origin string) []note.Verifier {
	var list []note.Verifier
	for _, l := range p.Logs {
		if l.Verifier.Name() == origin {
			list = append(list, l.Verifier)
		}
	}
	return list
}

// WitnessVerifiers returns the verifiers of all of the policy's witnesses.
func (p *Policy) WitnessVerifiers() []note.Verifier {
	var list []note.Verifier
	for _, w := range p.Witnesses {
		list = append(list, w.Verifier)
	}
	return list
}

// PolicyFile returns the file of a policy with logs of the given verifier keys, and the witnesses, groups and quorum of p but
// none of its URLs, which may be for its owner only. With p nil no witness is asked for.
func PolicyFile(logs []string, p *Policy) []byte {
	var b bytes.Buffer
	for _, vkey := range logs {
		fmt.Fprintf(&b, "log %s\n", vkey)
	}
	quorum := noQuorum
	if p != nil {
		for _, w := range p.Witnesses {
			fmt.Fprintf(&b, "witness %s %s\n", w.Name, w.VKey)
		}
		for _, g := range p.Groups {
			fmt.Fprintf(&b, "group %s %d %s\n", g.Name, g.Threshold, strings.Join(g.Members, " "))
		}
		quorum = p.Quorum
	}
	fmt.Fprintf(&b, "quorum %s\n", quorum)
	return b.Bytes()
}
