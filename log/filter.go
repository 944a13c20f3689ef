package log

// Filter selects events. Its members are combined with AND, the values of one member with OR; a member without values selects
// all. Texts are compared byte by byte.
type Filter struct {
	Actions     []string // exact, or with a trailing * all actions that begin with what is before it
	ActorIDs    []string
	ActorEmails []string
	TargetIDs   []string // of any target
	TargetTypes []string // of any target, not necessarily the one that TargetIDs found
	Outcomes    []string
	IPs         []string   // of the context, in canonical text
	Occurred    TimeSpan   // occurred_at, or received_at where the event doesn't say
	Received    TimeSpan   // received_at
	Metadata    []Metadata // each of them must match
	Words       []Words    // all words of one of them, see ParseWords
}

// Metadata selects events by a scalar in their metadata: a text by its content, other scalars by their JSON form. Values over
// MaxIndexedValue bytes are never found.
type Metadata struct {
	// Path is the member's name, or for a nested member the names from the outermost in, joined by dots. A name may itself
	// hold dots: any member whose names give the path is meant.
	Path   string
	Values []string
}

// TimeSpan is a half-open span of time, in µs since 1970 UTC. A nil end is open.
type TimeSpan struct {
	From, To *int64
}

// Contains reports whether the span holds t.
func (s TimeSpan) Contains(t int64) bool {
	return (s.From == nil || t >= *s.From) && (s.To == nil || t < *s.To)
}

// MaxIndexedValue is the size in bytes up to which a metadata value is indexed and found.
const MaxIndexedValue = 512
