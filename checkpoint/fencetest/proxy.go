package fencetest

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"sync"
	"testing"
)

// A Fault is what a [Proxy] does to one request.
type Fault int

// The faults.
const (
	LoseRequest Fault = iota // the server never gets it, and the connection ends
	LoseAnswer               // the server does what it was asked to, and the connection ends instead of its answer
	HoldAnswer               // the server does it, and its answer never comes; the connection stays
)

// A Proxy stands between a fence and its server. It knows bytes, and no protocol.
type Proxy struct {
	Addr string // where it listens

	server string

	mu    sync.Mutex
	match []byte // what is in the request that the fault is for; nil: none
	fault Fault
	conns []net.Conn
}

// NewProxy starts a proxy for the server at an address.
func NewProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), server: server}
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.conns {
			c.Close()
		}
	})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	return p
}

// Fail lets the next request that has these bytes in it fail. They may be written in hexadecimal, as PostgreSQL's clients do.
func (p *Proxy) Fail(match []byte, f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.match, p.fault = match, f
}

// Failed reports whether the request came.
func (p *Proxy) Failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.match == nil
}

// take returns the fault for the request, if it is the one.
func (p *Proxy) take(request []byte) (Fault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.match == nil || !bytes.Contains(request, p.match) && !bytes.Contains(request, hex.AppendEncode(nil, p.match)) {
		return 0, false
	}
	p.match = nil
	return p.fault, true
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	p.mu.Unlock()
	end := func() {
		client.Close()
		server.Close()
	}

	var mu sync.Mutex // of answers
	answers := io.Writer(client)
	go func() {
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			if answers != io.Discard { // a server that hangs up isn't heard of either
				end()
			}
		}()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			mu.Lock()
			w := answers
			mu.Unlock()
			if _, werr := w.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}()

	defer end()
	// A request may come in pieces.
	var request []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		request = append(request[max(0, len(request)-len(buf)):], buf[:n]...)
		if f, ok := p.take(request); ok {
			mu.Lock()
			switch f {
			case LoseRequest:
				mu.Unlock()
				return
			case LoseAnswer:
				answers = broken{}
			case HoldAnswer:
				answers = io.Discard
			}
			mu.Unlock()
		}
		if _, werr := server.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// broken is a connection to nobody.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
