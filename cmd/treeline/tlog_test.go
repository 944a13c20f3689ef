package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// tlogClient reads a log's tiles over HTTP for golang.org/x/mod/sumdb/tlog, which isn't ours: it checks every tile against
// the root of a checkpoint before it believes it.
type tlogClient struct {
	p       *process
	log     string
	fetched map[string][]byte // by path below the log
	spoil   bool              // change a byte of every tile
}

func (c *tlogClient) Height() int { return 8 }

func (c *tlogClient) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range tiles {
		data, err := c.fetch(tile)
		if err != nil {
			return nil, err
		}
		if c.spoil {
			data = bytes.Clone(data)
			data[len(data)-1] ^= 1
		}
		out = append(out, data)
	}
	return out, nil
}

func (c *tlogClient) SaveTiles([]tlog.Tile, [][]byte) {}

// fetch gets a tile from where C2SP tlog-tiles has it: tlog's own path without the height, and its data under entries.
func (c *tlogClient) fetch(tile tlog.Tile) ([]byte, error) {
	path := strings.Replace(strings.Replace(tile.Path(), "tile/8/", "tile/", 1), "tile/data/", "tile/entries/", 1)
	if data, ok := c.fetched[path]; ok {
		return data, nil
	}
	a, err := c.p.call(http.MethodGet, "/logs/"+c.log+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("%s: %d %s", path, a.status, a.body)
	}
	if got := a.header.Get("Content-Type"); got != "application/octet-stream" {
		return nil, fmt.Errorf("%s: Content-Type %q", path, got)
	}
	if got := a.header.Get("Cache-Control"); !strings.HasSuffix(got, ", max-age=31536000, immutable") {
		return nil, fmt.Errorf("%s: Cache-Control %q", path, got)
	}
	c.fetched[path] = a.body
	return a.body, nil
}

// entries returns the entries of a tree, from its bundles.
func (c *tlogClient) entries(t *testing.T, size int64) [][]byte {
	t.Helper()
	var out [][]byte
	for n := int64(0); n*256 < size; n++ {
		width := int(min(256, size-n*256))
		data, err := c.fetch(tlog.Tile{H: 8, L: -1, N: n, W: width})
		if err != nil {
			t.Fatal(err)
		}
		for range width { // u16 length ‖ entry, by C2SP tlog-tiles
			if len(data) < 2 || len(data) < 2+int(data[0])<<8+int(data[1]) {
				t.Fatalf("bundle %d of width %d ends early", n, width)
			}
			length := int(data[0])<<8 + int(data[1])
			out, data = append(out, data[2:2+length]), data[2+length:]
		}
		if len(data) > 0 {
			t.Fatalf("bundle %d of width %d has %d bytes too many", n, width, len(data))
		}
	}
	return out
}

// released returns the released checkpoint as tlog has it.
func (c *tlogClient) released(t *testing.T, vkey string) tlog.Tree {
	t.Helper()
	a, err := c.p.call(http.MethodGet, "/logs/"+c.log+"/checkpoint", nil)
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("checkpoint: %v, %v", a, err)
	}
	if got := a.header.Get("Content-Type") + "; " + a.header.Get("Cache-Control"); got != "text/plain; charset=utf-8; no-cache" {
		t.Errorf("the checkpoint comes with %q", got)
	}
	checked, err := openNote(vkey, string(a.body))
	if err != nil {
		t.Fatal(err)
	}
	// tlog's tree note has another first line, so the rest is given to its parser.
	_, rest, _ := strings.Cut(string(a.body), "\n")
	text, _, _ := strings.Cut(rest, "\n\n")
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + text + "\n"))
	if err != nil || uint64(tree.N) != checked.Size || tlog.Hash(checked.Root) != tree.Hash {
		t.Fatalf("tlog reads %v of checkpoint %+v: %v", tree, checked, err)
	}
	return tree
}

// grow appends events until the log has size, and waits until all are signed.
func grow(t *testing.T, p *process, name string, from, size int) {
	t.Helper()
	for from < size {
		var body []byte
		for n := 0; n < 5000 && from < size; n++ {
			body = fmt.Appendf(body, `{"id":"e%d","action":"tlog.test","metadata":{"n":%[1]d}}`+"\n", from)
			from++
		}
		a, err := p.call(http.MethodPost, "/v1/events/batch?wait=signed&log="+name, body, "Content-Type", "application/x-ndjson")
		if err != nil || a.status != http.StatusCreated {
			t.Fatalf("appending up to %d: %v, %v", from, a, err)
		}
	}
}

// An implementation that is not ours reads the log as C2SP tlog-tiles has it, checks the inclusion of every entry and the
// consistency of every released checkpoint with every later one, and gets the same bytes whenever it asks.
func TestTlogReadsOurTiles(t *testing.T) {
	p := serving(t, t.TempDir(), "--checkpoint-interval", "20ms")
	var made struct{ VKeys []string }
	p.mustPost(t, "/v1/logs", `{"name":"tiles","public":true}`, http.StatusCreated, &made)
	vkey := made.VKeys[0]
	c := &tlogClient{p: p, log: "tiles", fetched: map[string][]byte{}}
	sizes := []int{1, 2, 3, 255, 256, 257, 511, 700, 1024, 2049}
	if long() {
		sizes = append(sizes, 65535, 65536, 65537, 70000)
	}
	var trees []tlog.Tree
	from := 0
	for _, size := range sizes {
		grow(t, p, "tiles", from, size)
		from = size
		tree := c.released(t, vkey)
		if tree.N != int64(size) {
			t.Fatalf("released size %d, want %d", tree.N, size)
		}
		reader := tlog.TileHashReader(tree, c)
		for _, old := range trees {
			proof, err := tlog.ProveTree(tree.N, old.N, reader)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
				t.Fatalf("tlog: from %d to %d: %v", old.N, tree.N, err)
			}
		}
		trees = append(trees, tree)
		beyond(t, p, "tiles", uint64(size))
	}

	tree := trees[len(trees)-1]
	reader := tlog.TileHashReader(tree, c)
	entries := c.entries(t, tree.N)
	var indexes []int64
	for i := range entries {
		indexes = append(indexes, tlog.StoredHashIndex(0, int64(i)))
	}
	leaves, err := reader.ReadHashes(indexes) // checked against the root
	if err != nil {
		t.Fatal(err)
	}
	previous := log.Genesis(strings.SplitN(vkey, "+", 2)[0])
	for i, entry := range entries {
		leaf := tlog.RecordHash(entry)
		if leaf != leaves[i] {
			t.Fatalf("entry %d hashes to %v, its tile says %v", i, leaf, leaves[i])
		}
		e, err := log.ParseEntry(entry)
		if err != nil || e.Previous != previous {
			t.Fatalf("entry %d: previous %v, %v; want %v", i, e.Previous, err, previous)
		}
		previous = merkle.Hash(leaf)
		if i%11 == 0 || int64(i) == tree.N-1 { // by a proof, too, though that reads the same tiles
			proof, err := tlog.ProveRecord(tree.N, int64(i), reader)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, int64(i), leaf); err != nil {
				t.Fatalf("tlog: entry %d: %v", i, err)
			}
		}
	}
	c.spoil = true
	if _, err := tlog.TileHashReader(tree, c).ReadHashes(indexes); err == nil {
		t.Error("tlog doesn't check what it reads: this test proves nothing")
	}

	for path, before := range c.fetched {
		if now, err := p.get("/logs/tiles/" + path); err != nil || !bytes.Equal(now, before) {
			t.Errorf("%s has changed: %d bytes, were %d (%v)", path, len(now), len(before), err)
		}
	}
}

// beyond asks for the nearest things that a tree of the size doesn't have.
func beyond(t *testing.T, p *process, name string, size uint64) {
	t.Helper()
	for level := merkle.EntriesLevel; level <= 3; level++ {
		have := size >> (8 * max(level, 0))
		next := merkle.Tile{Level: level, Index: have / 256, Width: int(have%256) + 1}
		for _, tile := range []merkle.Tile{
			next, {Level: level, Index: have / 256, Width: 256}, {Level: level, Index: have/256 + 1, Width: 1},
			{Level: level, Index: have/256 + 1, Width: 256}, {Level: level, Index: 1 << 40, Width: 256},
		} {
			notFound(t, p, "/logs/"+name+"/"+tile.Path())
		}
	}
}

func notFound(t *testing.T, p *process, path string) {
	t.Helper()
	a, err := p.call(http.MethodGet, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusNotFound || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("GET %s: %d, %q, %d bytes; want 404, never to be cached", path, a.status, a.header.Get("Cache-Control"), len(a.body))
	}
}

// What isn't signed isn't served, though it is there; and what isn't public is served as if it weren't there.
func TestNothingUnreleasedIsServed(t *testing.T) {
	p := serving(t, t.TempDir(), "--checkpoint-interval", "1h")
	var body []byte
	for i := range 300 {
		body = fmt.Appendf(body, `{"id":"e%d","action":"a"}`+"\n", i)
	}
	a, err := p.call(http.MethodPost, "/v1/events/batch", body, "Content-Type", "application/x-ndjson")
	if err != nil || a.status != http.StatusCreated {
		t.Fatalf("%v, %v", a, err)
	}
	var head logPage
	p.mustGetJSON(t, "/v1/checkpoint", &head)
	if head.Sizes.Size != 300 || head.Sizes.Signed != 0 || head.Sizes.Released != 0 {
		t.Fatalf("sizes %+v, want 300 entries, none signed", head.Sizes)
	}
	released, err := p.get("/logs/default/checkpoint")
	if err != nil || string(released) != head.Checkpoint {
		t.Fatalf("%s, %v, want\n%s", released, err, head.Checkpoint)
	}
	beyond(t, p, "default", 0)
	for _, tile := range []string{"tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44"} {
		notFound(t, p, "/logs/default/"+tile)
	}
	if a, err := p.call(http.MethodGet, "/v1/events/e0/proof", nil); err != nil || a.status != http.StatusConflict ||
		!strings.Contains(string(a.body), `"not_signed"`) {
		t.Errorf("a proof before signing: %v, %v, want 409 not_signed", a, err)
	}
	for _, path := range []string{"/v1/proofs/inclusion?index=0&size=300", "/v1/proofs/consistency?from=0&to=300"} {
		if a, err := p.call(http.MethodGet, path, nil); err != nil || a.status != http.StatusConflict {
			t.Errorf("GET %s: %v, %v, want 409", path, a, err)
		}
	}

	// The graceful stop signs what is there.
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	p = serving(t, p.dir, "--checkpoint-interval", "1h")
	var signed logPage
	p.mustGetJSON(t, "/v1/checkpoint", &signed)
	if signed.Sizes.Released != 300 {
		t.Fatalf("after a graceful stop %+v, want 300 released", signed.Sizes)
	}
	a, err = p.call(http.MethodGet, "/logs/default/tile/0/000", nil)
	if err != nil || a.status != http.StatusOK || len(a.body) != 256*merkle.HashSize ||
		a.header.Get("Cache-Control") != "private, max-age=31536000, immutable" {
		t.Errorf("a full tile: %d bytes with %v, %v", len(a.body), a.header, err)
	}
	for _, path := range []string{"checkpoint", "tile/0/000", "tile/entries/000"} {
		private, err := http.Get(p.url + "/logs/default/" + path)
		if err != nil {
			t.Fatal(err)
		}
		absent, err := http.Get(p.url + "/logs/absent/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := problemOf(t, private), problemOf(t, absent); a != b || a.Status != http.StatusNotFound {
			t.Errorf("%s of a private log is answered with %+v, of one that doesn't exist with %+v", path, a, b)
		}
	}
}

// problemText is what of a problem doesn't differ between two equal requests.
type problemText struct {
	Type, Title, Detail, Code string
	Status                    int
}

func problemOf(t *testing.T, resp *http.Response) (p problemText) {
	t.Helper()
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p
}
