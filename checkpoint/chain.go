package checkpoint

import (
	"fmt"

	"github.com/treeline-log/treeline/merkle"
)

// A Chain goes along the entries of a log and checks each against the one before it: the layout, that the time
// never goes back, and that the entry holds the hash of the one before it. A [Publisher] does that before it signs
// entries, whoever follows a log from outside does it again.
//
// That the chain holds says nothing about which entries are in the log: only the root of a tree over all of them does.
type Chain struct {
	previous   merkle.Hash // leaf hash of the last entry, the genesis hash if there is none
	receivedAt uint64      // of the last entry, µs since 1970 UTC; 0 if there is none
}

// NewChain returns the chain of the log with the given origin, before its first entry.
func NewChain(origin string) Chain {
	return Chain{previous: genesis(origin)}
}

// ResumeChain returns the chain behind an entry with the given leaf hash and time, which are what [Chain.Last]
// returned.
func ResumeChain(leaf merkle.Hash, receivedAt uint64) Chain {
	return Chain{leaf, receivedAt}
}

// Last returns the leaf hash of the last entry, or what stands for it before the first one, and the time at which the
// entry was received, in µs since 1970 UTC.
func (c Chain) Last() (leaf merkle.Hash, receivedAt uint64) {
	return c.previous, c.receivedAt
}

// Add goes on to an entry and returns its leaf hash. The index is for errors only, which say what is wrong with the
// entry; after one the chain is where it was.
func (c *Chain) Add(index uint64, entry []byte) (merkle.Hash, error) {
	receivedAt, previous, err := splitEntry(entry)
	if err != nil {
		return merkle.Hash{}, fmt.Errorf("entry %d: %w", index, err)
	}
	if receivedAt < c.receivedAt {
		return merkle.Hash{}, fmt.Errorf("entry %d was received at %d µs, before the one before it, at %d µs",
			index, receivedAt, c.receivedAt)
	}
	if previous != c.previous {
		return merkle.Hash{}, fmt.Errorf("entry %d doesn't continue the chain: got previous hash %v, want %v",
			index, previous, c.previous)
	}
	c.previous, c.receivedAt = merkle.LeafHash(entry), receivedAt
	return c.previous, nil
}
