package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/treeline-log/treeline/api"
)

// listeners are the addresses on which a server answers, and what answers there: the one for everybody, and the operator's own, unless
// there is none.
type listeners struct {
	all    []listener
	failed chan error // what a listener has ended with
}

// listener is an address and what answers there.
type listener struct {
	net.Listener
	server *http.Server
}

// listen answers on both addresses from now on. The second one, for the operator, may be empty.
func listen(public, ops string, front, back http.Handler, logger *slog.Logger) (*listeners, error) {
	l := &listeners{failed: make(chan error, 2)}
	if err := l.add(public, front, logger); err != nil {
		return nil, fmt.Errorf("%w; choose another address with --listen", err)
	}
	if ops != "" {
		if err := l.add(ops, back, logger); err != nil {
			l.close()
			return nil, fmt.Errorf("%w; choose another address with --ops-listen, or none with --ops-listen=", err)
		}
	}
	for _, one := range l.all {
		go func() { l.failed <- one.server.Serve(one.Listener) }()
	}
	return l, nil
}

func (l *listeners) add(address string, h http.Handler, logger *slog.Logger) error {
	on, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	l.all = append(l.all, listener{on, api.HTTPServer(h, logger)})
	return nil
}

// public returns the address for everybody.
func (l *listeners) public() net.Addr { return l.all[0].Addr() }

// ops returns the operator's own address, nil if there is none.
func (l *listeners) ops() net.Addr {
	if len(l.all) < 2 {
		return nil
	}
	return l.all[1].Addr()
}

// serve returns when ctx ends or a listener fails, and has let requests finish by then. It calls stopping before, for those that
// would wait for long.
func (l *listeners) serve(ctx context.Context, stopping func(), logger *slog.Logger) error {
	var err error
	select {
	case err = <-l.failed:
	case <-ctx.Done():
		logger.Info("stopping: no new requests, those in flight are answered")
	}
	stopping()
	grace, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, one := range l.all {
		err = errors.Join(err, one.server.Shutdown(grace))
	}
	return err
}

// close gives up the addresses.
func (l *listeners) close() {
	for _, one := range l.all {
		one.Close()
	}
}
