package log

import (
	"testing"

	"github.com/treeline-log/treeline/merkle"
)

func TestTilesAreKeptAsFarAsTheyWereRead(t *testing.T) {
	var c tileCache
	hashes := make([]merkle.Hash, 200)
	for i := range hashes {
		hashes[i][0] = byte(i)
	}
	k := tileKey{log: 1, level: 0, index: 3}
	c.put(k, hashes[:100])
	c.put(k, hashes[:50]) // less than there is
	if got := c.get(k, 70); len(got) != 70 || got[69] != hashes[69] {
		t.Errorf("a narrower tile: got %d hashes", len(got))
	}
	if got := c.get(k, 101); got != nil {
		t.Errorf("a wider tile than was read: got %d hashes", len(got))
	}
	c.put(k, hashes)
	if got := c.get(k, 200); len(got) != 200 {
		t.Errorf("a tile that has grown: got %d hashes", len(got))
	}
	for _, other := range []tileKey{{2, 0, 3}, {1, 1, 3}, {1, 0, 4}} {
		if got := c.get(other, 1); got != nil {
			t.Errorf("%+v: got another's tile", other)
		}
	}
	for i := range uint64(2 * maxCachedTiles) {
		c.put(tileKey{1, 0, i}, hashes[:1])
	}
	if len(c.tiles) > maxCachedTiles {
		t.Errorf("%d tiles are kept, at most %d may be", len(c.tiles), maxCachedTiles)
	}
}
