package monitor

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// Evidence is kept in the directory evidence/ below that of the states, as files whose names begin alike:
//
//	diverged-<log>-<what>.report.txt    says all of it, and is written last
//	diverged-<log>-<what>.older.note    the two notes, as they were served
//	diverged-<log>-<what>.newer.note
//	diverged-<log>-<what>.proof.txt     hashes of a consistency proof, where there is one
//
// <log> is the beginning of the origin's SHA-256, and <what> that of what contradicts itself, so that what is found every
// minute is written once. What is wrong but no second history begins with "invalid-" instead of "diverged-".
const reportSuffix = ".report.txt"

// maxEvidence is how many reports of a log there can be that diverge, and of those that are invalid. The first ones are as good as
// the last, and a log that signs something new in every round must not fill the disk that the states are on.
const maxEvidence = 100

// exhibit is a checkpoint, and what shows that the log's operator has signed it.
type exhibit struct {
	cp   checkpoint.Checkpoint
	note []byte // the log's signed note, as it was served
	from string // who served it

	// Of an entry of a hub: what makes the proof file that takes the note's place, and how its file's name ends.
	prove  func() []byte
	suffix string
}

// show returns what goes into the evidence, and how its file's name ends.
func (x exhibit) show() ([]byte, string) {
	if x.prove != nil {
		return x.prove(), x.suffix
	}
	return x.note, ".note"
}

// prefixClaim says that the first size entries of a tree have the given root, and shows it by a consistency proof.
type prefixClaim struct {
	size  uint64
	root  merkle.Hash
	tree  checkpoint.Checkpoint // the tree
	proof []merkle.Hash         // from the size and root to the tree's
}

// holds reports whether the proof shows what the claim says.
func (c prefixClaim) holds() bool {
	return merkle.VerifyConsistency(c.size, c.tree.Size, c.proof, c.root, c.tree.Root) == nil
}

// contradiction is a pair of checkpoints that are not of one history, or of which nobody shows that they are.
type contradiction struct {
	a, b   exhibit
	why    string
	claims []prefixClaim // which together with the two notes prove it; none where the sizes are the same, or nothing is proven
}

// diverge keeps the evidence of a contradiction and returns the problem that it is.
func (d *directory) diverge(origin string, c contradiction) *Problem {
	older, newer := c.a, c.b
	if older.cp.Size > newer.cp.Size {
		older, newer = newer, older
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "SECURITY ERROR\nThe log %s has signed two histories, or doesn't show that it has not!\n\n", origin)
	fmt.Fprintf(&b, "%s\n\n", c.why)
	files := map[string][]byte{}
	for _, side := range []struct {
		name string
		exhibit
	}{{"older", older}, {"newer", newer}} {
		data, suffix := side.show()
		files["."+side.name+suffix] = data
		fmt.Fprintf(&b, "%s checkpoint, size %d, from %s:\n\t%s\n", side.name, side.cp.Size, side.from, indent(data))
	}
	var proofs bytes.Buffer
	for _, claim := range c.claims {
		fmt.Fprintf(&proofs, "the first %d entries of the tree of size %d have the root\n%s\nas this consistency proof shows:\n",
			claim.size, claim.tree.Size, base64.StdEncoding.EncodeToString(claim.root[:]))
		for _, h := range claim.proof {
			fmt.Fprintf(&proofs, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
		}
	}
	switch {
	case len(c.claims) > 0:
		fmt.Fprintf(&b, "proof of misbehavior:\n\t%s\n", indent(proofs.Bytes()))
	case older.cp.Size == newer.cp.Size:
		fmt.Fprintf(&b, "proof of misbehavior: both are signed, and have one size and two roots\n")
	default:
		fmt.Fprintf(&b, "no proof of misbehavior: the log doesn't serve what would lead to either\n")
	}
	if len(c.claims) > 0 {
		files[".proof.txt"] = proofs.Bytes()
	}
	p := problem(Diverged, KindDiverged, "%s: size %d from %s, size %d from %s", c.why,
		older.cp.Size, older.from, newer.cp.Size, newer.from)
	p.Notice = b.String()
	p.Evidence = d.keep(p, evidencePrefix(origin), older.cp.Text()+newer.cp.Text(), files)
	return p
}

// accuse keeps the evidence of a problem with what a checkpoint implies, and returns the problem.
func (d *directory) accuse(p *Problem, x exhibit, files map[string][]byte) *Problem {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nin the log %s:\n\n%s\n\n", p.Verdict, x.cp.Origin, p.Detail)
	fmt.Fprintf(&b, "checkpoint from %s:\n\t%s\n", x.from, indent(x.note))
	prefix := evidencePrefix(x.cp.Origin)
	if p.Verdict != Diverged {
		prefix = strings.Replace(prefix, "diverged-", "invalid-", 1)
	}
	all := map[string][]byte{".note": x.note}
	for suffix, data := range files {
		all[suffix] = data
		if isText(data) {
			fmt.Fprintf(&b, "%s:\n\t%s\n", strings.TrimPrefix(suffix, "."), indent(data))
		}
	}
	p.Notice = b.String()
	p.Evidence = d.keep(p, prefix, p.Detail, all)
	return p
}

// isText reports whether data is fit for a report.
func isText(data []byte) bool {
	return len(data) <= maxGrowth && !bytes.ContainsFunc(data, func(r rune) bool { return r < ' ' && r != '\n' || r == '\uFFFD' })
}

// indent makes room for a tab before each line but the first.
func indent(text []byte) []byte {
	return bytes.ReplaceAll(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"), []byte("\n\t"))
}

// keep durably writes the files, and last the report, unless it is there already, and returns the report's path. Evidence that
// can't be written is still shown.
func (d *directory) keep(p *Problem, prefix, what string, files map[string][]byte) string {
	sum := sha256.Sum256([]byte(what))
	base := filepath.Join(d.path, "evidence", prefix+hex.EncodeToString(sum[:])[:16])
	if _, err := os.Stat(base + reportSuffix); !errors.Is(err, fs.ErrNotExist) {
		return base + reportSuffix
	}
	reports, err := d.reports(prefix)
	if err == nil && len(reports) >= maxEvidence {
		err = fmt.Errorf("there are %d reports like this already", len(reports))
	}
	if err == nil {
		err = d.writeAll(base, files, p.Notice)
	}
	if err != nil {
		p.Detail += fmt.Sprintf(" (the evidence wasn't written: %v)", err)
		return ""
	}
	return base + reportSuffix
}

func (d *directory) writeAll(base string, files map[string][]byte, report string) error {
	for suffix, data := range files {
		if err := checkpoint.ReplaceFile(base+suffix, data); err != nil {
			return err
		}
	}
	return checkpoint.ReplaceFile(base+reportSuffix, []byte(report))
}
