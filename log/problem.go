package log

import (
	"fmt"
	"strings"
)

// MaxProblems is the largest number of problems that one InvalidError reports. Parsing stops there: a client that gets
// twenty things wrong learns nothing more from the twenty-first, and the work on a hostile body stays bounded.
const MaxProblems = 20

// Problem is one reason why an input was refused.
type Problem struct {
	// Index is the 0-based position of the event in its batch, -1 where the input isn't a batch or the problem isn't
	// within one event.
	Index int

	// Pointer is an RFC 6901 JSON Pointer, within the event, to the place in the spelling that the client sent
	// ("/actor_id", "/metadata/a~1b"). It names the absent member where one is required, the nearest container where a
	// member's name can't be written in a pointer, and is empty for the event as a whole, as for a syntax error.
	Pointer string

	// Detail says what is wrong, and for syntax errors at which line and byte, both counted from 1.
	Detail string
}

// String returns the problem on one line.
func (p Problem) String() string {
	var b strings.Builder
	if p.Index >= 0 {
		fmt.Fprintf(&b, "event %d: ", p.Index)
	}
	if p.Pointer != "" {
		b.WriteString(p.Pointer)
		b.WriteString(": ")
	}
	b.WriteString(p.Detail)
	return b.String()
}

// InvalidError says that an input isn't a valid event, batch, claim or JSON value, and why. It has between one and
// MaxProblems problems, in the order in which they were found.
type InvalidError struct {
	Problems []Problem
}

// Error returns all problems on one line, separated by semicolons.
func (e *InvalidError) Error() string {
	var b strings.Builder
	b.WriteString("invalid input: ")
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.String())
	}
	return b.String()
}
