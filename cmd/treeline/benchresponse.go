package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// responseReader reads HTTP/1.1 responses off a connection and keeps nothing of them but the status. It knows what is
// needed to find where a response to a POST ends (RFC 9112, section 6.3): Content-Length, chunked transfer coding, and
// the end of the connection.
type responseReader struct {
	r *bufio.Reader
}

func newResponseReader(r io.Reader) *responseReader {
	return &responseReader{bufio.NewReaderSize(r, 4096)}
}

// read reads one response, interim ones before it aside, and returns its status and whether the connection can take
// another request. Lines of more than 4,096 bytes are an error.
func (p *responseReader) read() (status int, keep bool, err error) {
	for {
		status, keep, err = p.readOne()
		if err != nil || status >= 200 {
			return status, keep, err
		}
	}
}

func (p *responseReader) readOne() (status int, keep bool, err error) {
	line, err := p.line()
	if err != nil {
		return 0, false, err
	}
	// status-line = HTTP-version SP status-code SP [ reason-phrase ]
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return 0, false, fmt.Errorf("malformed status line %q", line)
	}
	status, err = strconv.Atoi(string(line[9:12]))
	if err != nil || status < 100 {
		return 0, false, fmt.Errorf("malformed status line %q", line)
	}
	keep = line[7] == '1'

	length, chunked := int64(-1), false
	for {
		line, err := p.line()
		if err != nil {
			return 0, false, err
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return 0, false, fmt.Errorf("malformed header line %q", line)
		}
		value = bytes.TrimSpace(value)
		switch len(name) { // most names are told apart by their length
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				length, err = strconv.ParseInt(string(value), 10, 64)
				if err != nil || length < 0 {
					return 0, false, fmt.Errorf("malformed Content-Length %q", value)
				}
			}
		case len("Transfer-Encoding"):
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
				if !bytes.EqualFold(value, []byte("chunked")) {
					return 0, false, fmt.Errorf("transfer coding %q is not known", value)
				}
				chunked = true
			}
		case len("Connection"):
			if bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")) {
				keep = false
			}
		}
	}

	switch {
	case status < 200 || status == http.StatusNoContent || status == http.StatusNotModified:
	case chunked:
		err = p.discardChunks()
	case length >= 0:
		err = p.discard(length)
	default:
		keep = false
		_, err = io.Copy(io.Discard, p.r)
	}
	return status, keep, err
}

// discardChunks reads a chunked body and its trailer (RFC 9112, section 7.1).
func (p *responseReader) discardChunks() error {
	for {
		line, err := p.line()
		if err != nil {
			return err
		}
		digits, _, _ := bytes.Cut(line, []byte(";"))
		size, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 31)
		if err != nil {
			return fmt.Errorf("malformed chunk size %q", line)
		}
		if size == 0 {
			break
		}
		if err := p.discard(int64(size)); err != nil {
			return err
		}
		if end, err := p.line(); err != nil || len(end) != 0 {
			return fmt.Errorf("chunk of %d bytes doesn't end where it should", size)
		}
	}
	for {
		line, err := p.line()
		if err != nil || len(line) == 0 {
			return err
		}
	}
}

func (p *responseReader) discard(n int64) error {
	// bufio's Discard takes an int, which has 32 bits on some machines.
	for n > 0 {
		step, err := p.r.Discard(int(min(n, 1<<30)))
		if err != nil {
			return err
		}
		n -= int64(step)
	}
	return nil
}

// line returns the next line without its end, valid until the next read.
func (p *responseReader) line() ([]byte, error) {
	line, err := p.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}
