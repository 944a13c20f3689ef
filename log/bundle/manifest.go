package bundle

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/treeline-log/treeline/checkpoint"
)

// Format is what a manifest says that the bundle is.
const Format = "treeline/bundle@v1"

// maxCount bounds indices and numbers of events in a manifest: JSON numbers are exact up to there.
const maxCount = 1<<53 - 1

// Selection says which events a bundle is meant to hold: of [From, To) those that Filter selects.
type Selection struct {
	From, To uint64
	// Filter are the parameters of an export, as the canonical query of a URL that url.Values.Encode writes; "" for all events.
	Filter string
}

// manifest is the last file. Its JSON form is canonical (RFC 8785).
type manifest struct {
	Count  uint64      `json:"count"` // of events
	Files  []fileEntry `json:"files"` // in order, but for the events and the manifest itself
	Filter string      `json:"filter"`
	Format string      `json:"format"`
	From   uint64      `json:"from"`
	Origin string      `json:"origin"`
	Root   string      `json:"root"` // and size are those of the checkpoint
	Size   uint64      `json:"size"`
	To     uint64      `json:"to"`
}

type fileEntry struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Size   int    `json:"size"`
}

func newManifest(c checkpoint.Checkpoint, files []fileEntry, count uint64, s Selection) (manifest, error) {
	m := manifest{
		Count: count, Files: files, Filter: s.Filter, Format: Format, From: s.From, Origin: c.Origin, Root: c.Root.String(), Size: c.Size, To: s.To,
	}
	return m, m.check()
}

// check checks what doesn't depend on the rest of the bundle.
func (m *manifest) check() error {
	if m.Size > maxCount || m.From > m.To || m.To > m.Size || m.Count > m.To-m.From {
		return fmt.Errorf("a bundle of %d events from %d to %d of %d, want no more than there are, and at most %d",
			m.Count, m.From, m.To, m.Size, uint64(maxCount))
	}
	if m.Filter == "" && m.Count != m.To-m.From {
		return fmt.Errorf("a bundle of %d events for all from %d to %d", m.Count, m.From, m.To)
	}
	if values, err := url.ParseQuery(m.Filter); err != nil || values.Encode() != m.Filter {
		return fmt.Errorf("the filter %.300q isn't a query in its canonical form", m.Filter)
	}
	return nil
}

// marshal returns the canonical form. No text in it needs escaping.
func (m *manifest) marshal() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		panic(err) // strings and numbers only
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// parseManifest reads a manifest in its one encoding. With an unknown format nothing else is looked at.
func parseManifest(data []byte) (m manifest, known bool, err error) {
	if err := json.Unmarshal(data, &m); err != nil {
		return m, true, fmt.Errorf("manifest: %w", err)
	}
	if m.Format != Format {
		return m, false, nil
	}
	if !bytes.Equal(m.marshal(), data) {
		return m, true, fmt.Errorf("manifest: not in canonical form, or with members that don't belong there")
	}
	for _, f := range m.Files {
		if b, err := hex.DecodeString(f.SHA256); err != nil || len(b) != 32 {
			return m, true, fmt.Errorf("manifest: the SHA-256 of %.60q is not 64 lower-case hex digits", f.Name)
		}
	}
	return m, true, m.check()
}
