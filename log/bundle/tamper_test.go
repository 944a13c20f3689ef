package bundle_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
)

// refused checks that a bundle isn't VALID, and that a reason is given.
func refused(t testing.TB, name string, data []byte, trust log.Trust) error {
	t.Helper()
	v, err := bundle.Verify(bytes.NewReader(data), trust)
	switch {
	case err == nil:
		t.Errorf("%s: VALID", name)
	case errors.Is(err, log.ErrInvalidProof) == errors.Is(err, log.ErrNotVerifiable):
		t.Errorf("%s: neither INVALID nor NOT_VERIFIABLE: %v", name, err)
	case errors.Is(err, log.ErrInvalidProof) != (v == nil):
		t.Errorf("%s: %v with %+v", name, err, v)
	}
	return err
}

// No byte of a bundle can change, go or come.
func TestEveryByteOfABundleCounts(t *testing.T) {
	t.Parallel()
	l := newLog(t, 11)
	trust := l.trust()
	data := l.bundle(11, bundle.Selection{From: 1, To: 9, Filter: "action=user.updated"}, []int{2, 3, 7})
	if !bytes.Equal(pack(unpack(t, data)), data) {
		t.Fatal("the container isn't as it is described")
	}
	for i := range data {
		changed := slices.Clone(data)
		changed[i] ^= 1 << (i % 8)
		refused(t, fmt.Sprintf("byte %d, %q", i, data[max(0, i-10):i+1]), changed, trust)
	}
	for n := 0; n < len(data); n += 5 {
		if err := refused(t, fmt.Sprintf("the first %d bytes", n), data[:n], trust); !errors.Is(err, log.ErrInvalidProof) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	for _, more := range []string{"\x00", "PK", string(data)} {
		refused(t, "with bytes after it", append(slices.Clone(data), more...), trust)
		refused(t, "with bytes before it", append([]byte(more), data...), trust)
	}
}

// Nor can any byte of what is proven change if the forger makes all checksums and the manifest fit.
func TestEveryProvenByteOfABundleCounts(t *testing.T) {
	t.Parallel()
	l := newLog(t, 11)
	trust := l.trust()
	files := unpack(t, l.bundle(11, bundle.Selection{From: 1, To: 9, Filter: "action=user.updated"}, []int{2, 3, 7}))
	for i, f := range files[:len(files)-1] {
		if f.name == "README.txt" || f.name == "policy" {
			continue // whose word they are is said
		}
		for at := range f.content {
			changed := slices.Clone(files)
			changed[i].content = slices.Clone(f.content)
			changed[i].content[at] ^= 1 << (at % 8)
			refused(t, fmt.Sprintf("%s, byte %d", f.name, at), pack(remanifest(t, changed)), trust)
		}
	}
	if _, err := bundle.Verify(bytes.NewReader(pack(remanifest(t, files))), trust); err != nil {
		t.Errorf("nothing changed: %v", err)
	}
}

// find returns the position of a file.
func find(t testing.TB, files []aFile, name string) int {
	t.Helper()
	i := slices.IndexFunc(files, func(f aFile) bool { return f.name == name })
	if i < 0 {
		t.Fatalf("there is no file %s", name)
	}
	return i
}

func TestForgedBundles(t *testing.T) {
	t.Parallel()
	const n = 520 // two parts
	l, other := newLog(t, n), newLog(t, n+1)
	trust := l.trust()
	genuine := unpack(t, l.whole(n, 0, n))
	const first, second = "events/000000.ndjson", "events/000001.ndjson"
	lines := func(f *aFile, change func(lines [][]byte) [][]byte) {
		f.content = bytes.Join(change(bytes.SplitAfter(f.content, []byte("\n"))), nil)
	}
	swap := func(all [][]byte) [][]byte {
		all[3], all[4] = all[4], all[3]
		return all
	}
	entriesOf := func(f *aFile, change func(entries [][]byte) [][]byte) {
		f.content = bytes.Join(change(slices.Collect(slices.Chunk(f.content, 81))), nil)
	}
	for name, change := range map[string]func(files []aFile) []aFile{
		"a line left out": func(files []aFile) []aFile {
			lines(&files[find(t, files, second)], func(all [][]byte) [][]byte { return slices.Delete(all, 2, 3) })
			return files
		},
		"a line twice": func(files []aFile) []aFile {
			lines(&files[find(t, files, second)], func(all [][]byte) [][]byte { return slices.Insert(all, 2, all[2]) })
			return files
		},
		"two lines exchanged": func(files []aFile) []aFile {
			lines(&files[find(t, files, first)], swap)
			return files
		},
		"two events exchanged": func(files []aFile) []aFile {
			lines(&files[find(t, files, first)], swap)
			entriesOf(&files[find(t, files, "entries/000000.bin")], swap)
			return files
		},
		"two events exchanged, with their indices": func(files []aFile) []aFile {
			lines(&files[find(t, files, first)], func(all [][]byte) [][]byte {
				swap(all)
				all[3] = bytes.Replace(all[3], []byte(`"index":4`), []byte(`"index":3`), 1)
				all[4] = bytes.Replace(all[4], []byte(`"index":3`), []byte(`"index":4`), 1)
				return all
			})
			entriesOf(&files[find(t, files, "entries/000000.bin")], func(all [][]byte) [][]byte {
				swap(all)
				all[3][7], all[4][7] = 3, 4
				return all
			})
			return files
		},
		"the last event left out": func(files []aFile) []aFile {
			lines(&files[find(t, files, second)], func(all [][]byte) [][]byte { return all[:len(all)-2] })
			entriesOf(&files[find(t, files, "entries/000001.bin")], func(all [][]byte) [][]byte { return all[:len(all)-1] })
			return remanifest(t, files, func(m map[string]any) { m["count"], m["to"] = n-1, n-1 })
		},
		"the last event left out, with its hash instead": func(files []aFile) []aFile {
			lines(&files[find(t, files, second)], func(all [][]byte) [][]byte { return all[:len(all)-2] })
			entriesOf(&files[find(t, files, "entries/000001.bin")], func(all [][]byte) [][]byte { return all[:len(all)-1] })
			files[find(t, files, "hashes/000001.bin")].content = l.leaves[n-1][:]
			return remanifest(t, files, func(m map[string]any) { m["count"] = n - 1 }) // but still said to be all
		},
		"a part left out": func(files []aFile) []aFile {
			return slices.Delete(files, find(t, files, "entries/000001.bin"), find(t, files, second)+1)
		},
		"a part twice": func(files []aFile) []aFile {
			i := find(t, files, "entries/000001.bin")
			return slices.Insert(files, i, files[i:i+3]...)
		},
		"parts exchanged": func(files []aFile) []aFile {
			i := find(t, files, "entries/000000.bin")
			return slices.Concat(files[:i], files[i+3:i+6], files[i:i+3], files[i+6:])
		},
		"more hashes than needed": func(files []aFile) []aFile {
			files[find(t, files, "hashes/000001.bin")].content = make([]byte, 32)
			return files
		},
		"half a hash": func(files []aFile) []aFile {
			files[find(t, files, "hashes/000001.bin")].content = make([]byte, 16)
			return files
		},
		"hashes that come too early": func(files []aFile) []aFile {
			files[find(t, files, "hashes/000000.bin")].content = make([]byte, 32)
			return files
		},
		"parts of other sizes": func(files []aFile) []aFile {
			for _, name := range []string{"entries/%06d.bin", "events/%06d.ndjson"} {
				a, b := &files[find(t, files, fmt.Sprintf(name, 0))], &files[find(t, files, fmt.Sprintf(name, 1))]
				at := len(a.content) - 81
				if name[0] == 'e' && name[1] == 'v' {
					at = bytes.LastIndexByte(a.content[:len(a.content)-1], '\n') + 1
				}
				a.content, b.content = a.content[:at], slices.Concat(a.content[at:], b.content)
			}
			return files
		},
		"a README that is too long": func(files []aFile) []aFile {
			files[0].content = make([]byte, 64<<10+1)
			return files
		},
		"half an entry": func(files []aFile) []aFile {
			f := &files[find(t, files, "entries/000001.bin")]
			f.content = f.content[:len(f.content)-1]
			return files
		},
		"an empty part": func(files []aFile) []aFile {
			return slices.Insert(files, len(files)-1, aFile{"entries/000002.bin", nil}, aFile{"hashes/000002.bin", nil}, aFile{"events/000002.ndjson", nil})
		},
		"an index beyond the checkpoint": func(files []aFile) []aFile {
			f := &files[find(t, files, "entries/000001.bin")]
			binary.BigEndian.PutUint64(f.content[len(f.content)-81:], n)
			lines(&files[find(t, files, second)], func(all [][]byte) [][]byte {
				all[7] = bytes.Replace(all[7], []byte(`"index":519}`), []byte(`"index":520}`), 1)
				return all
			})
			return files
		},
		"the largest index": func(files []aFile) []aFile {
			f := &files[find(t, files, "entries/000001.bin")]
			binary.BigEndian.PutUint64(f.content[len(f.content)-81:], 1<<64-1)
			lines(&files[find(t, files, second)], func(all [][]byte) [][]byte {
				all[7] = bytes.Replace(all[7], []byte(`"index":519}`), []byte(`"index":18446744073709551615}`), 1)
				return all
			})
			return files
		},
		"another log's checkpoint": func(files []aFile) []aFile {
			files[find(t, files, "checkpoint")].content = other.note(n + 1)
			return files
		},
		"a checkpoint without signature": func(files []aFile) []aFile {
			f := &files[find(t, files, "checkpoint")]
			f.content = f.content[:bytes.Index(f.content, []byte("\n\n"))+1]
			return files
		},
		"a policy that is none": func(files []aFile) []aFile {
			files[find(t, files, "policy")].content = []byte("quorum some\n")
			return files
		},
		"another file": func(files []aFile) []aFile {
			return slices.Insert(files, 3, aFile{"notes.txt", []byte("see the events")})
		},
		"a file outside": func(files []aFile) []aFile {
			return slices.Insert(files, 3, aFile{"../../etc/cron.d/x", []byte("x")})
		},
		"a file twice": func(files []aFile) []aFile { return slices.Insert(files, 1, files[0]) },
		"a file under another name": func(files []aFile) []aFile {
			files[0].name = "readme.txt"
			return files
		},
		"files in another order": func(files []aFile) []aFile {
			files[0], files[1] = files[1], files[0]
			return files
		},
		"no manifest": func(files []aFile) []aFile { return files[:len(files)-1] },
		"nothing":     func([]aFile) []aFile { return nil },
	} {
		files := make([]aFile, len(genuine))
		for i, f := range genuine {
			files[i] = aFile{f.name, slices.Clone(f.content)}
		}
		files = change(files)
		if len(files) > 0 && files[len(files)-1].name == "manifest.json" && !strings.HasPrefix(name, "the last event") {
			files = remanifest(t, files)
		}
		if err := refused(t, name, pack(files), trust); !errors.Is(err, log.ErrInvalidProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(m map[string]any){
		"another origin":     func(m map[string]any) { m["origin"] = "test.example/logs/other" },
		"another size":       func(m map[string]any) { m["size"] = n + 1 },
		"another root":       func(m map[string]any) { m["root"] = strings.Repeat("0", 64) },
		"fewer events":       func(m map[string]any) { m["count"] = n - 1 },
		"a shorter range":    func(m map[string]any) { m["to"], m["filter"] = n-1, "action=a" },
		"a later range":      func(m map[string]any) { m["from"], m["filter"] = 1, "action=a" },
		"a longer range":     func(m map[string]any) { m["to"] = n + 1 },
		"a filter unsorted":  func(m map[string]any) { m["filter"] = "b=1&a=1" },
		"a malformed filter": func(m map[string]any) { m["filter"] = "%" },
		"another member":     func(m map[string]any) { m["note"] = "" },
		"a member missing":   func(m map[string]any) { delete(m, "filter") },
		"other files":        func(m map[string]any) { m["files"] = m["files"].([]any)[1:] },
		"a hash in capitals": func(m map[string]any) {
			f := m["files"].([]any)[0].(map[string]any)
			f["sha256"] = strings.ToUpper(f["sha256"].(string))
		},
	} {
		if err := refused(t, name, pack(remanifest(t, genuine, change)), trust); !errors.Is(err, log.ErrInvalidProof) {
			t.Errorf("manifest with %s: %v", name, err)
		}
	}
	some := unpack(t, l.bundle(n, bundle.Selection{From: 1, To: 9, Filter: "action=a"}, []int{2, 3, 7}))
	for name, change := range map[string]func(m map[string]any){
		"fewer events":              func(m map[string]any) { m["count"] = 2 },
		"more events":               func(m map[string]any) { m["count"] = 4 },
		"a range that begins later": func(m map[string]any) { m["from"] = 3 },
		"a range that ends earlier": func(m map[string]any) { m["to"] = 7 },
	} {
		if err := refused(t, name, pack(remanifest(t, some, change)), trust); !errors.Is(err, log.ErrInvalidProof) {
			t.Errorf("manifest of a selection with %s: %v", name, err)
		}
	}
	later := remanifest(t, genuine, func(m map[string]any) { m["format"] = "treeline/bundle@v2" })
	if err := refused(t, "a later format", pack(later), trust); !errors.Is(err, bundle.ErrUnknownFormat) {
		t.Errorf("a later format: %v", err)
	}
}

// An entry of another version is not something to be called wrong, nor right.
func TestBundlesOfOtherEntries(t *testing.T) {
	t.Parallel()
	l := newLog(t, 3)
	files := unpack(t, l.whole(3, 0, 3))
	files[find(t, files, "entries/000000.bin")].content[8] = 0x03
	if err := refused(t, "version 3", pack(remanifest(t, files)), l.trust()); !errors.Is(err, log.ErrUnknownVersion) {
		t.Errorf("got %v", err)
	}
}

// What other programs make of the same files isn't a bundle, and nothing is believed that a ZIP says of itself.
func TestOtherZIPs(t *testing.T) {
	t.Parallel()
	l := newLog(t, 5)
	trust := l.trust()
	data := l.whole(5, 0, 5)
	files := unpack(t, data)
	for name, method := range map[string]uint16{"stored": zip.Store, "deflated": zip.Deflate} {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for _, f := range files {
			w, err := z.CreateHeader(&zip.FileHeader{Name: f.name, Method: method})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(f.content); err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if err := refused(t, name+" anew", b.Bytes(), trust); !strings.Contains(err.Error(), "another program") {
			t.Errorf("%s anew: %v", name, err)
		}
	}
	wrong := slices.Clone(data)
	for range 2 { // in the header of the first file, and in the directory
		at := bytes.Index(wrong, data[14:18])
		wrong[at] ^= 1
	}
	if err := refused(t, "with another checksum", wrong, trust); !strings.Contains(err.Error(), "checksum") {
		t.Errorf("with another checksum: %v", err)
	}
	for at := 0; at < len(data); {
		size, length := int(binary.LittleEndian.Uint32(data[at+18:])), int(binary.LittleEndian.Uint16(data[at+26:]))
		for _, announced := range []uint32{0, 1, uint32(size) + 1, 1 << 20, 1<<31 - 1, 1<<32 - 2, 1<<32 - 1} {
			lie := slices.Clone(data)
			binary.LittleEndian.PutUint32(lie[at+18:], announced)
			binary.LittleEndian.PutUint32(lie[at+22:], announced)
			if int(announced) != size {
				refused(t, fmt.Sprintf("a file of %d bytes that says %d", size, announced), lie, trust)
			}
		}
		if at += 30 + length + size; !bytes.HasPrefix(data[at:], []byte("PK\x03\x04")) {
			break
		}
	}
}

// endless is a bundle whose announced content never ends.
type endless struct{ start io.Reader }

func (e endless) Read(b []byte) (int, error) {
	if n, err := e.start.Read(b); err == nil {
		return n, nil
	}
	clear(b)
	return len(b), nil
}

// Whatever comes, no more is read than a bundle can have.
func TestEndlessBundles(t *testing.T) {
	t.Parallel()
	l := newLog(t, 5)
	data := l.whole(5, 0, 5)
	for n := 0; n <= len(data); n += 100 {
		if _, err := bundle.Verify(endless{bytes.NewReader(data[:n])}, l.trust()); !errors.Is(err, log.ErrInvalidProof) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// A bundle is VALID only if it is one that was written.
func FuzzVerify(f *testing.F) {
	l := newLog(f, 12)
	trust := l.trust()
	seeds := [][]byte{l.whole(12, 0, 12), l.whole(12, 3, 7), l.whole(1, 0, 1), l.whole(0, 0, 0),
		l.bundle(12, bundle.Selection{From: 0, To: 12, Filter: "a=1"}, []int{1, 5, 6})}
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := bundle.Verify(bytes.NewReader(data), trust)
		if err == nil && !slices.ContainsFunc(seeds, func(s []byte) bool { return bytes.Equal(s, data) }) {
			t.Errorf("VALID, and nobody wrote it: %x", data)
		}
		if err != nil && errors.Is(err, log.ErrInvalidProof) == errors.Is(err, log.ErrNotVerifiable) {
			t.Errorf("neither INVALID nor NOT_VERIFIABLE: %v", err)
		}
	})
}

// An operator who signs what no log is finds no bundle for it, even if all hashes lead to the root.
func TestBundlesOfLogsThatAreNone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at     int
		change func(d *log.Disclosure)
		chain  bool // whether what follows is chained to what was changed
		want   string
	}{
		"a chain of another log":      {0, func(d *log.Disclosure) { d.Previous = log.Genesis("test.example/logs/other") }, true, "isn't the first of the log"},
		"a broken chain":              {4, func(d *log.Disclosure) { d.Previous[0] ^= 1 }, true, "isn't chained"},
		"an event that was exchanged": {4, func(d *log.Disclosure) { d.Seed = &[32]byte{9} }, false, "isn't chained"},
		"a clock that went backwards": {4, func(d *log.Disclosure) { d.ReceivedAt = began }, true, "was received before"},
	} {
		l := newLog(t, 9)
		changed := *l.disclosures[c.at]
		c.change(&changed)
		l.disclosures[c.at], l.leaves[c.at] = &changed, changed.Entry().LeafHash()
		for i := c.at + 1; c.chain && i < 9; i++ {
			d := *l.disclosures[i]
			d.Previous = l.leaves[i-1]
			l.disclosures[i], l.leaves[i] = &d, d.Entry().LeafHash()
		}
		if err := refused(t, name, l.whole(9, 0, 9), l.trust()); !errors.Is(err, log.ErrInvalidProof) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	hub := newLogOf(t, 9, "test.example/logs/hub")
	if err := refused(t, "of a hub", hub.whole(9, 0, 9), hub.trust()); !errors.Is(err, log.ErrInvalidProof) {
		t.Errorf("of a hub: %v", err)
	}
}
