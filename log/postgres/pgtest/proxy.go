package pgtest

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
)

// A Fault is what a [Proxy] does to one message of a client.
type Fault int

// The faults. After the first three the connection ends, after the others it stays, and says nothing more.
const (
	LoseRequest Fault = iota // the server never gets it
	LoseAnswer               // the server does what it was asked to, and its answer is lost
	HalveAnswer              // the server does it, and half of its answer arrives
	HoldRequest              // the server never gets it; nothing more is taken from the client, either
	HoldAnswer               // the server does it, and its answer never comes
)

// A Step is a message from a client: the first one of its kind with the text in it.
type Step struct {
	Kind byte   // of the protocol: 'Q' a statement without parameters, 'P' one with, 'd' data of a COPY, 'c' its end
	Text string // "": any
	// After is a text that was in an earlier statement of the transaction. "": any, or none.
	After string
}

// A Proxy stands between clients and a server. It reads along as far as the protocol's frames, so it can cut a connection at a step
// of the test's choice, and knows whether the server has done what it was asked to.
type Proxy struct {
	Port int

	server string

	mu     sync.Mutex
	step   Step
	faults []Fault // to come, one for each time that the step is met
	conns  []*proxied
}

// proxied is a connection through a proxy. It's guarded by the proxy's mutex.
type proxied struct {
	client, server net.Conn
	earlier        []byte // statements of the transaction so far
	fault          Fault
	faulty         bool
	lost           []byte // of an answer
}

// NewProxy starts a proxy for the server behind a port of 127.0.0.1.
func NewProxy(t testing.TB, port int) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Port: l.Addr().(*net.TCPAddr).Port, server: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.conns {
			c.end()
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

// Cut lets the faults happen, one each time that a client comes to the step. It replaces what was asked for earlier.
func (p *Proxy) Cut(at Step, faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step, p.faults = at, faults
}

// Pending returns how many of the faults have not happened yet.
func (p *Proxy) Pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.faults)
}

// Silence lets nothing more through on the connections that there are, and leaves them open: a network that was cut. New ones work.
func (p *Proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.fault, c.faulty = HoldRequest, true
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		client.Close()
		return
	}
	c := &proxied{client: client, server: server}
	p.mu.Lock()
	p.conns = append(p.conns, c)
	p.mu.Unlock()
	go p.answers(c)
	p.requests(c)
}

// requests carries what the client says.
func (p *Proxy) requests(c *proxied) {
	for header := 4; ; header = 5 { // the first message has no kind
		msg, err := readMessage(c.client, header)
		if err != nil {
			p.ended(c)
			return
		}
		var kind byte
		if header == 5 {
			kind = msg[0]
		}
		fault, cut := p.take(c, kind, msg)
		switch {
		case cut && fault == LoseRequest:
			c.end()
			return
		case cut && fault == HoldRequest:
			return
		}
		if _, err := c.server.Write(msg); err != nil {
			p.ended(c)
			return
		}
		if cut && kind == 'd' && fault != HoldAnswer { // which is not answered
			c.end()
			return
		}
	}
}

// answers carries what the server says.
func (p *Proxy) answers(c *proxied) {
	for {
		msg, err := readMessage(c.server, 5)
		if err != nil {
			p.ended(c)
			return
		}
		p.mu.Lock()
		fault, cut := c.fault, c.faulty
		p.mu.Unlock()
		if !cut {
			if _, err := c.client.Write(msg); err != nil {
				p.ended(c)
				return
			}
			continue
		}
		c.lost = append(c.lost, msg...)
		if whole := msg[0] == 'Z' || msg[0] == 'G'; !whole { // ready for the next query, or for data
			continue
		}
		switch fault {
		case HalveAnswer:
			_, _ = c.client.Write(c.lost[:len(c.lost)/2]) // which may be gone
			c.end()
			return
		case LoseRequest, LoseAnswer:
			c.end()
			return
		}
	}
}

// take returns what happens to a message.
func (p *Proxy) take(c *proxied, kind byte, msg []byte) (Fault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if kind == 'Q' && bytes.Contains(msg, []byte("BEGIN")) {
		c.earlier = nil
	}
	at := p.step
	if !c.faulty && len(p.faults) > 0 && kind == at.Kind && bytes.Contains(msg, []byte(at.Text)) &&
		bytes.Contains(c.earlier, []byte(at.After)) {
		c.fault, c.faulty = p.faults[0], true
		p.faults = p.faults[1:]
		return c.fault, true
	}
	if kind == 'Q' || kind == 'P' {
		c.earlier = append(c.earlier, msg...)
	}
	return c.fault, c.faulty && c.fault == HoldRequest
}

// ended ends a connection of which one side is gone, unless it is to stay.
func (p *Proxy) ended(c *proxied) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !c.faulty || c.fault != HoldRequest && c.fault != HoldAnswer {
		c.end()
	}
}

func (c *proxied) end() {
	c.client.Close()
	c.server.Close()
}

// readMessage reads a message of the protocol, whose header ends with the length of all but the kind.
func readMessage(r io.Reader, header int) ([]byte, error) {
	msg := make([]byte, header)
	if _, err := io.ReadFull(r, msg); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(msg[header-4:])
	msg = append(msg, make([]byte, max(4, length)-4)...)
	_, err := io.ReadFull(r, msg[header:])
	return msg, err
}
