package retention

import (
	"context"
	"time"
)

// paceRest is how many times as long as it has worked the keeper leaves the machine to others.
const paceRest = 2

// pace keeps work that takes all of a processor, as writing and verifying a bundle does, from making appends wait.
type pace struct{ since time.Time }

func newPace() *pace { return &pace{time.Now()} }

// rest waits in proportion to how long it was worked since the last rest.
func (p *pace) rest(ctx context.Context) error {
	defer func() { p.since = time.Now() }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(paceRest * time.Since(p.since)):
		return nil
	}
}
