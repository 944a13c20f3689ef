package bundle

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// The container is a ZIP archive (PKWARE APPNOTE.TXT) of stored files without flags, extra fields, comments or ZIP64, all of the
// first moment that it can express. Limits keep it from needing more.
const (
	maxFiles     = math.MaxUint16 - 1
	maxContainer = math.MaxUint32 - 1 // bytes up to the end of the last file

	localHeader   = "PK\x03\x04"
	centralHeader = "PK\x01\x02"
	endHeader     = "PK\x05\x06"

	zipVersion = 10     // that is needed to extract it: 1.0
	zipDate    = 0x0021 // 1980-01-01
)

// file is what the container says of a file besides its content.
type file struct {
	name   string
	size   uint32
	crc    uint32
	offset uint32 // of its local header
}

// appendCommon appends what the local and the central header have in common.
func (f *file) appendCommon(dst []byte) []byte {
	le := binary.LittleEndian
	for _, v := range []uint16{zipVersion, 0, 0, 0, zipDate} { // version, flags, method, time, date
		dst = le.AppendUint16(dst, v)
	}
	for _, v := range []uint32{f.crc, f.size, f.size} { // compressed and not
		dst = le.AppendUint32(dst, v)
	}
	return le.AppendUint16(le.AppendUint16(dst, uint16(len(f.name))), 0) // no extra field
}

func (f *file) appendLocal(dst []byte) []byte {
	return append(f.appendCommon(append(dst, localHeader...)), f.name...)
}

func (f *file) appendCentral(dst []byte) []byte {
	le := binary.LittleEndian
	dst = f.appendCommon(le.AppendUint16(append(dst, centralHeader...), zipVersion))
	dst = append(dst, make([]byte, 2+2+2+4)...) // comment, disk, attributes
	return append(le.AppendUint32(dst, f.offset), f.name...)
}

// directory returns the bytes after the last file, which ends at offset.
func directory(files []file, offset uint32) []byte {
	var dst []byte
	for i := range files {
		dst = files[i].appendCentral(dst)
	}
	le, size, n := binary.LittleEndian, uint32(len(dst)), uint16(len(files))
	dst = append(dst, endHeader...)
	for _, v := range []uint16{0, 0, n, n} { // disks
		dst = le.AppendUint16(dst, v)
	}
	return le.AppendUint16(le.AppendUint32(le.AppendUint32(dst, size), offset), 0)
}

// container writes files.
type container struct {
	w      io.Writer
	files  []file
	offset int64
	header []byte
}

// add writes a file.
func (c *container) add(name string, content []byte) error {
	f := file{name: name, size: uint32(len(content)), crc: crc32.ChecksumIEEE(content), offset: uint32(c.offset)}
	c.header = f.appendLocal(c.header[:0])
	end := c.offset + int64(len(c.header)) + int64(len(content))
	if end > maxContainer || len(c.files) == maxFiles {
		return fmt.Errorf("a bundle of %d files and %d bytes, want at most %d and %d", len(c.files)+1, end, maxFiles, int64(maxContainer))
	}
	if _, err := c.w.Write(c.header); err != nil {
		return err
	}
	if _, err := c.w.Write(content); err != nil {
		return err
	}
	c.files, c.offset = append(c.files, f), end
	return nil
}

// close writes what stands after the files.
func (c *container) close() error {
	_, err := c.w.Write(directory(c.files, uint32(c.offset)))
	return err
}

// errMalformed is wrapped by errors about a container that isn't of the one form.
var errMalformed = errors.New("malformed bundle")

// contents reads files, in the order in which they stand.
type contents struct {
	r      *bufio.Reader
	files  []file
	offset int64
	failed error // of the reader beneath, which says nothing about the container
}

// from begins to read from r.
func (c *contents) from(r io.Reader) {
	c.r = bufio.NewReaderSize(readerFunc(func(b []byte) (int, error) {
		n, err := r.Read(b)
		if err != nil && err != io.EOF {
			c.failed = err
		}
		return n, err
	}), 64<<10)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// readFull is io.ReadFull of a container, whose end must not come before.
func (c *contents) readFull(b []byte) error {
	_, err := io.ReadFull(c.r, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends after less than %d bytes", errMalformed, c.offset+int64(len(b)))
	}
	c.offset += int64(len(b))
	return err
}

// next reads the header of the file that comes next, which must be the named one and have at most limit bytes. With ok false it is
// another one, and nothing was read.
func (c *contents) next(name string, limit int64) (f *part, ok bool, err error) {
	want := file{name: name, offset: uint32(c.offset)}
	head := want.appendLocal(nil)
	got, err := c.r.Peek(len(head))
	if err == io.EOF || len(got) < len(head) && err == nil {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	want.crc, want.size = binary.LittleEndian.Uint32(got[14:]), binary.LittleEndian.Uint32(got[18:])
	if !bytes.Equal(got, want.appendLocal(nil)) {
		return nil, false, nil
	}
	end := c.offset + int64(len(head)) + int64(want.size)
	if int64(want.size) > limit || end > maxContainer || len(c.files) == maxFiles {
		return nil, false, fmt.Errorf("%w: %s has %d bytes, want at most %d", errMalformed, name, want.size, limit)
	}
	if err := c.readFull(head); err != nil {
		return nil, false, err
	}
	c.files = append(c.files, want)
	return &part{c: c, file: want, left: int64(want.size)}, true, nil
}

// read reads the file that comes next, as next does, with its content.
func (c *contents) read(name string, limit int64) ([]byte, error) {
	f, ok, err := c.next(name, limit)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, c.missing(name)
	}
	return c.content(f)
}

// content reads what is in a file.
func (c *contents) content(f *part) ([]byte, error) {
	content, err := io.ReadAll(f) // which grows with what is there, not with what is announced
	if err != nil {
		return nil, err
	}
	return content, f.close()
}

func (c *contents) missing(name string) error {
	return fmt.Errorf("%w: at byte %d there is no file %s as bundles have it; was it written anew by another program?", errMalformed, c.offset, name)
}

// close reads what stands after the files, and makes sure that nothing follows.
func (c *contents) close() error {
	want := directory(c.files, uint32(c.offset))
	got := make([]byte, len(want))
	if err := c.readFull(got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: its directory doesn't say what is in it", errMalformed)
	}
	switch _, err := c.r.ReadByte(); err {
	case io.EOF:
		return nil
	case nil:
		return fmt.Errorf("%w: bytes follow after its end", errMalformed)
	default:
		return err
	}
}

// part is a file that is being read.
type part struct {
	c *contents
	file
	left int64
	sum  uint32
}

func (p *part) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n, err := p.c.r.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	p.c.offset += int64(n)
	p.sum = crc32.Update(p.sum, crc32.IEEETable, b[:n])
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: it ends within %s", errMalformed, p.name)
	}
	return n, err
}

// close makes sure that the file was read to its end and has the checksum that its header gives.
func (p *part) close() error {
	switch {
	case p.left > 0:
		return fmt.Errorf("%w: %s has %d bytes too many", errMalformed, p.name, p.left)
	case p.sum != p.crc:
		return fmt.Errorf("%w: the checksum of %s isn't that of its content", errMalformed, p.name)
	}
	return nil
}
