package merkle_test

import (
	"math"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/merkle"
)

func TestTilePath(t *testing.T) {
	for _, tt := range []struct {
		tile merkle.Tile
		path string
	}{
		{merkle.Tile{Level: 0, Index: 0, Width: 256}, "tile/0/000"},
		{merkle.Tile{Level: 0, Index: 0, Width: 1}, "tile/0/000.p/1"},
		{merkle.Tile{Level: 0, Index: 1234067, Width: 256}, "tile/0/x001/x234/067"},
		{merkle.Tile{Level: 0, Index: 1234067, Width: 112}, "tile/0/x001/x234/067.p/112"},
		{merkle.Tile{Level: 0, Index: 273, Width: 112}, "tile/0/273.p/112"},
		{merkle.Tile{Level: 1, Index: 1, Width: 17}, "tile/1/001.p/17"},
		{merkle.Tile{Level: 2, Index: 999, Width: 255}, "tile/2/999.p/255"},
		{merkle.Tile{Level: 2, Index: 1000, Width: 256}, "tile/2/x001/000"},
		{merkle.Tile{Level: 7, Index: 0, Width: 127}, "tile/7/000.p/127"},
		{merkle.Tile{Level: 6, Index: 127, Width: 255}, "tile/6/127.p/255"},
		{merkle.Tile{Level: merkle.EntriesLevel, Index: 0, Width: 5}, "tile/entries/000.p/5"},
		{merkle.Tile{Level: merkle.EntriesLevel, Index: 999_999, Width: 256}, "tile/entries/x999/999"},
		{merkle.Tile{Level: merkle.EntriesLevel, Index: 1<<55 - 1, Width: 255}, "tile/entries/x036/x028/x797/x018/x963/967.p/255"},
	} {
		if got := tt.tile.Path(); got != tt.path {
			t.Errorf("path of %+v = %q, want %q", tt.tile, got, tt.path)
		}
		if got, err := merkle.ParseTilePath(tt.path); err != nil || got != tt.tile {
			t.Errorf("ParseTilePath(%q) = %+v, %v, want %+v", tt.path, got, err, tt.tile)
		}
	}
}

func TestParseTilePathIsStrict(t *testing.T) {
	for _, path := range []string{
		// Not a path of a tile.
		"", "/", "tile", "tile/", "tile/0", "tile/0/", "tile//000", "tile/entries", "tile/entries/",
		"tiles/0/000", "Tile/0/000", "/tile/0/000", "tile/0/000/", "checkpoint", "tile/8/0/000", "tile/data/000",
		// Levels.
		"tile/-1/000", "tile/+0/000", "tile/00/000", "tile/01/000", "tile/0x0/000", "tile/ 0/000", "tile/Entries/000",
		"tile/ENTRIES/000", "tile/8/000.p/1", "tile/63/000.p/1", "tile/64/000.p/1", "tile/256/000",
		"tile/1152921504606846976/000", "tile/2305843009213693952/000", "tile/18446744073709551616/000", "tile/٠/000",
		// Indices.
		"tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/1", "tile/0/1234", "tile/0/x000/000", "tile/0/x000/001",
		"tile/0/000/001", "tile/0/x001", "tile/0/x001/x234", "tile/0/x001/x234/x067", "tile/0/001/234/067",
		"tile/0/X001/000", "tile/0/x1/000", "tile/0/x0001/000", "tile/0/xx001/000", "tile/0//000", "tile/0/x001//000",
		"tile/0/+01", "tile/0/-01", "tile/0/-001", "tile/0/+001", "tile/0/ 01", "tile/0/001 ", "tile/0/0_1", "tile/0/0x1",
		"tile/0/abc", "tile/0/1e2", "tile/0/٠٠٠", "tile/0/001\n", "tile/0/001\x00", "tile/0/%30%30%30",
		"tile/0/..", "tile/0/../000", "tile/0/../../000", "tile/../tile/0/000", "tile/0/./000", "tile/0/x001/../000",
		// Beyond what a tree can have: 2^55 full or partial, 2^63 and 2^64 as
		// indices, full tiles that would end at size 2^63.
		"tile/0/x036/x028/x797/x018/x963/968.p/1", "tile/entries/x036/x028/x797/x018/x963/968.p/1",
		"tile/0/x036/x028/x797/x018/x963/967", "tile/entries/x036/x028/x797/x018/x963/967", "tile/7/000",
		"tile/7/000.p/128", "tile/7/001.p/1", "tile/6/127", "tile/6/128.p/1",
		"tile/0/x009/x223/x372/x036/x854/x775/808", "tile/0/x018/x446/x744/x073/x709/x551/616",
		"tile/0/" + strings.Repeat("x999/", 100) + "999",
		// Widths.
		"tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/257", "tile/0/000.p/-1",
		"tile/0/000.p/+1", "tile/0/000.p/01", "tile/0/000.p/001", "tile/0/000.p/1/", "tile/0/000.p/1.p/1", "tile/0/000.P/1",
		"tile/0/000p/1", "tile/0/000./1", "tile/0/000.p/ 1", "tile/0/000.p/1 ", "tile/0/000.p/1.0", "tile/0/000.p/0x1",
		"tile/0/000.p/../1", "tile/0/000.p/18446744073709551617", "tile/0/.p/1", "tile/0/x001.p/1", "tile/0/x001.p/1/000",
		"tile/entries/000.p/0", "tile/entries/000.p/256", "tile/entries/../000",
	} {
		if got, err := merkle.ParseTilePath(path); err == nil {
			t.Errorf("ParseTilePath(%q) = %+v, want an error", path, got)
		} else if got != (merkle.Tile{}) {
			t.Errorf("ParseTilePath(%q) = %+v with error %v, want no tile", path, got, err)
		}
	}
}

// A tile that no tree has is in none, and its path, if it is one, isn't parsed.
func TestMalformedTilesAreInNoTree(t *testing.T) {
	for _, tile := range []merkle.Tile{
		{},
		{Level: 0, Index: 0, Width: -1},
		{Level: 0, Index: 0, Width: 257},
		{Level: 0, Index: 0, Width: math.MaxInt},
		{Level: -2, Index: 0, Width: 1},
		{Level: math.MinInt, Index: 0, Width: 1},
		{Level: 8, Index: 0, Width: 1},
		{Level: 1 << 60, Index: 0, Width: 1},
		{Level: 1 << 61, Index: 0, Width: 1},
		{Level: math.MaxInt, Index: 0, Width: 1},
		{Level: 0, Index: 1 << 55, Width: 1},
		{Level: 0, Index: 1 << 56, Width: 1},
		{Level: 0, Index: math.MaxUint64, Width: 1},
		{Level: merkle.EntriesLevel, Index: 1<<55 - 1, Width: 256},
		{Level: 7, Index: 0, Width: 128},
	} {
		if tile.In(merkle.MaxSize) {
			t.Errorf("%+v is in a tree", tile)
		}
		if got, err := merkle.ParseTilePath(tile.Path()); err == nil {
			t.Errorf("ParseTilePath(%q) = %+v, want an error", tile.Path(), got)
		}
	}
}

func TestTileOf(t *testing.T) {
	none := merkle.Tile{}
	for _, tt := range []struct {
		level       int
		index, size uint64
		want        merkle.Tile
	}{
		{0, 0, 0, none},
		{merkle.EntriesLevel, 0, 0, none},
		{0, 0, 1, merkle.Tile{Level: 0, Index: 0, Width: 1}},
		{1, 0, 255, none},
		{0, 0, 256, merkle.Tile{Level: 0, Index: 0, Width: 256}},
		{0, 1, 256, none},
		{1, 0, 256, merkle.Tile{Level: 1, Index: 0, Width: 1}},
		{1, 0, 511, merkle.Tile{Level: 1, Index: 0, Width: 1}},
		{0, 1, 257, merkle.Tile{Level: 0, Index: 1, Width: 1}},
		{0, 272, 70_000, merkle.Tile{Level: 0, Index: 272, Width: 256}},
		{0, 273, 70_000, merkle.Tile{Level: 0, Index: 273, Width: 112}},
		{0, 274, 70_000, none},
		{merkle.EntriesLevel, 273, 70_000, merkle.Tile{Level: merkle.EntriesLevel, Index: 273, Width: 112}},
		{1, 0, 70_000, merkle.Tile{Level: 1, Index: 0, Width: 256}},
		{1, 1, 70_000, merkle.Tile{Level: 1, Index: 1, Width: 17}},
		{2, 0, 70_000, merkle.Tile{Level: 2, Index: 0, Width: 1}},
		{3, 0, 70_000, none},
		{7, 0, merkle.MaxSize, merkle.Tile{Level: 7, Index: 0, Width: 127}},
		{8, 0, merkle.MaxSize, none},
		{64, 0, merkle.MaxSize, none},
		{1 << 61, 0, merkle.MaxSize, none},
		{-2, 0, merkle.MaxSize, none},
		{0, 1<<55 - 1, merkle.MaxSize, merkle.Tile{Level: 0, Index: 1<<55 - 1, Width: 255}},
		{0, 1 << 55, merkle.MaxSize, none},
		{0, 1 << 56, merkle.MaxSize, none},
		{0, math.MaxUint64, merkle.MaxSize, none},
	} {
		got, ok := merkle.TileOf(tt.level, tt.index, tt.size)
		if got != tt.want || ok != (tt.want != none) {
			t.Errorf("TileOf(%d, %d, %d) = %+v, %t, want %+v", tt.level, tt.index, tt.size, got, ok, tt.want)
		}
	}
}

func drawTile(t *rapid.T) merkle.Tile {
	for {
		tile := merkle.Tile{
			Level: rapid.IntRange(merkle.EntriesLevel, 7).Draw(t, "level"),
			Width: rapid.IntRange(1, merkle.TileWidth).Draw(t, "width"),
		}
		bits := rapid.IntRange(0, 55).Draw(t, "bits of index")
		tile.Index = rapid.Uint64Range(0, 1<<bits).Draw(t, "index")
		if tile.In(merkle.MaxSize) {
			return tile
		}
	}
}

func TestTilePathRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tile := drawTile(t)
		if got, err := merkle.ParseTilePath(tile.Path()); err != nil || got != tile {
			t.Errorf("ParseTilePath(%q) = %+v, %v, want %+v", tile.Path(), got, err, tile)
		}
		if got, want := tile.Path(), tlogPath(tile); got != want {
			t.Errorf("path of %+v = %q, want %q", tile, got, want)
		}
	})
}

// tlogPath is the path of a tile by golang.org/x/mod/sumdb/tlog, which has the
// height in its paths and calls entries data.
func tlogPath(t merkle.Tile) string {
	path := tlog.Tile{H: 8, L: t.Level, N: int64(t.Index), W: t.Width}.Path()
	path = strings.Replace(path, "tile/8/", "tile/", 1)
	return strings.Replace(path, "tile/data/", "tile/entries/", 1)
}

// The tile that a size implies is in the tree of that size, in those that
// follow, and in none before some size that implies it.
func TestTileInFollowsTileOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tile := drawTile(t)
		first := (tile.Index*merkle.TileWidth + uint64(tile.Width)) << (8 * max(tile.Level, 0))
		if got, ok := merkle.TileOf(tile.Level, tile.Index, first); !ok || got != tile {
			t.Errorf("TileOf at size %d = %+v, %t, want %+v", first, got, ok, tile)
		}
		if tile.In(first - 1) {
			t.Errorf("%+v is in the tree of size %d", tile, first-1)
		}
		size := rapid.Uint64Range(first, merkle.MaxSize).Draw(t, "size")
		if !tile.In(size) {
			t.Errorf("%+v is not in the tree of size %d", tile, size)
		}
		if got, ok := merkle.TileOf(tile.Level, tile.Index, size); !ok || got.Width < tile.Width || !got.In(size) {
			t.Errorf("TileOf at size %d = %+v, %t, want one at least as wide as %+v", size, got, ok, tile)
		}
	})
}

func FuzzParseTilePath(f *testing.F) {
	f.Add("tile/0/x001/x234/067.p/112")
	f.Fuzz(func(t *testing.T, path string) {
		tile, err := merkle.ParseTilePath(path)
		if err != nil {
			return
		}
		if got := tile.Path(); got != path {
			t.Errorf("%q parsed is %+v, whose path is %q", path, tile, got)
		}
		if got := tlogPath(tile); got != path {
			t.Errorf("%q parsed is %+v, whose path by tlog is %q", path, tile, got)
		}
		if !tile.In(merkle.MaxSize) {
			t.Errorf("%q parsed is %+v, which is in no tree", path, tile)
		}
	})
}
