package merkle

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// TileWidth is the number of hashes in a full tile, and of entries in a
	// full entry bundle.
	TileWidth = 1 << tileHeight

	// EntriesLevel is the Level of a [Tile] that is an entry bundle.
	EntriesLevel = -1

	// tileHeight is the number of the tree's levels that a tile spans.
	tileHeight = 8

	// maxTileLevel is the level of the highest tile of a tree of MaxSize.
	maxTileLevel = 7

	// maxTileIndex is the largest index of a tile in any level.
	maxTileIndex = (MaxSize - 1) / TileWidth
)

// A Tile names a tile or an entry bundle of C2SP tlog-tiles.
//
// A tile of Level L and Index N lists Width hashes, where hash i is that of the
// node (8·L, 256·N+i), the root of the perfect subtree over the entries
// [(256·N+i)·256^L, (256·N+i+1)·256^L). An entry bundle, of Level
// [EntriesLevel], lists the Width entries from 256·N on.
//
// A tile of [TileWidth] is full, one of a smaller Width is partial. Both are
// immutable: partial tiles of one Level and Index are prefixes of each other and
// of the full one.
type Tile struct {
	Level int    // 0 to 7, or EntriesLevel
	Index uint64 // counted within the level
	Width int    // 1 to TileWidth
}

// TileOf returns the tile of the given level and index as a tree of the given
// size implies it: full, or partial where the level ends. The result is false
// if the tree has no hashes there; empty tiles don't exist.
func TileOf(level int, index, size uint64) (Tile, bool) {
	if level < EntriesLevel || level > maxTileLevel || index > maxTileIndex {
		return Tile{}, false
	}
	start, end := index*TileWidth, levelSize(level, size)
	if start >= end {
		return Tile{}, false
	}
	return Tile{Level: level, Index: index, Width: int(min(end-start, TileWidth))}, true
}

// In reports whether the tile is of a tree of the given size: whether that
// size, or one that the tree had before, implies it. So a tile is in a tree if
// everything it lists is, and a tile of any malformed value is in no tree. The
// one that the size itself implies is [TileOf]'s; the narrower ones are those
// that readers of earlier checkpoints ask for.
func (t Tile) In(size uint64) bool {
	if t.Level < EntriesLevel || t.Level > maxTileLevel || t.Index > maxTileIndex ||
		t.Width < 1 || t.Width > TileWidth {
		return false
	}
	return t.Index*TileWidth+uint64(t.Width) <= levelSize(t.Level, size)
}

// levelSize returns how many hashes (or entries) the tiles of a level up to
// maxTileLevel have together in a tree of the given size: floor(size / 256^level).
func levelSize(level int, size uint64) uint64 {
	if level == EntriesLevel {
		level = 0
	}
	return size >> (tileHeight * level)
}

// Path returns the path of the tile below the log's prefix, such as
// "tile/0/x001/x234/067" for a full tile with index 1234067, or
// "tile/entries/000.p/5" for an entry bundle of five entries.
//
// The index is written in groups of three digits, each but the last with an x
// before it, so that no directory of a log kept in files grows large.
func (t Tile) Path() string {
	path := make([]byte, 0, len("tile/entries/x000/x000/x000/x000/x000/000.p/000"))
	path = append(path, "tile/"...)
	if t.Level == EntriesLevel {
		path = append(path, "entries"...)
	} else {
		path = strconv.AppendInt(path, int64(t.Level), 10)
	}
	path = appendIndex(path, t.Index/1000)
	path = append(path, '/')
	path = appendGroup(path, t.Index%1000)
	if t.Width != TileWidth {
		path = append(path, ".p/"...)
		path = strconv.AppendInt(path, int64(t.Width), 10)
	}
	return string(path)
}

// appendIndex appends the groups of three digits of n, each as "/x000"; none if
// n is zero.
func appendIndex(dst []byte, n uint64) []byte {
	if n == 0 {
		return dst
	}
	dst = appendIndex(dst, n/1000)
	dst = append(dst, "/x"...)
	return appendGroup(dst, n%1000)
}

// appendGroup appends n < 1000 as three digits.
func appendGroup(dst []byte, n uint64) []byte {
	return append(dst, byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
}

// ParseTilePath returns the tile that a path names, as [Tile.Path] writes it.
// Any other spelling is an error, and so is the path of a tile that no tree of
// up to [MaxSize] entries has.
func ParseTilePath(path string) (Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	level, rest, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return Tile{}, badPath(path)
	}
	index, width, partial := strings.Cut(rest, ".p/")

	t := Tile{Level: EntriesLevel, Width: TileWidth}
	var err error
	if level != "entries" {
		if t.Level, err = strconv.Atoi(level); err != nil {
			return Tile{}, badPath(path)
		}
	}
	if t.Index, err = strconv.ParseUint(indexDigits.Replace(index), 10, 64); err != nil {
		return Tile{}, badPath(path)
	}
	if partial {
		if t.Width, err = strconv.Atoi(width); err != nil {
			return Tile{}, badPath(path)
		}
	}
	// Everything that was lenient above, such as where the slashes are, leading
	// zeros, signs and ".p/256", is caught here: each tile has one path.
	if !t.In(MaxSize) || t.Path() != path {
		return Tile{}, badPath(path)
	}
	return t, nil
}

// indexDigits takes what is not a digit out of the index of a path.
var indexDigits = strings.NewReplacer("/", "", "x", "")

func badPath(path string) error {
	return fmt.Errorf("malformed tile path %.80q", path)
}
