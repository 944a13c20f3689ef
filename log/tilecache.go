package log

import (
	"context"
	"sync"

	"github.com/treeline-log/treeline/merkle"
)

// maxCachedTiles bounds the tiles that are kept for proofs: 8 KiB each at most, so 32 MiB.
const maxCachedTiles = 4096

// tileCache keeps tiles of signed trees, which never change but grow: what is kept of a tile is the beginning of all that will be
// read of it. Only proofs are made from it. Whatever signs or checks reads the store.
type tileCache struct {
	mu    sync.Mutex
	tiles map[tileKey][]merkle.Hash
}

type tileKey struct {
	log   ID
	level int
	index uint64
}

func (c *tileCache) get(k tileKey, width int) []merkle.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	if hashes := c.tiles[k]; len(hashes) >= width {
		return hashes[:width:width]
	}
	return nil
}

func (c *tileCache) put(k tileKey, hashes []merkle.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tiles == nil {
		c.tiles = make(map[tileKey][]merkle.Hash)
	}
	if len(c.tiles) >= maxCachedTiles {
		for other := range c.tiles { // any: which one is hardly worth knowing
			delete(c.tiles, other)
			break
		}
	}
	if len(hashes) > len(c.tiles[k]) {
		c.tiles[k] = hashes
	}
}

// cachedTiles reads a log's tree for proofs of a signed size. It is a merkle.TileReader.
type cachedTiles struct {
	tiles
	cache *tileCache
}

func (t cachedTiles) ReadTile(ctx context.Context, tile merkle.Tile) ([]merkle.Hash, error) {
	k := tileKey{t.log, tile.Level, tile.Index}
	if hashes := t.cache.get(k, tile.Width); hashes != nil {
		return hashes, nil
	}
	hashes, err := t.tiles.ReadTile(ctx, tile)
	if err == nil {
		t.cache.put(k, hashes)
	}
	return hashes, err
}

// proven returns the log's tree for proofs.
func (l *Log) proven() merkle.TileReader {
	return cachedTiles{tiles{l.service.reader, l.ID}, &l.service.tiles}
}
