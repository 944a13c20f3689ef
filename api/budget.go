package api

import (
	"io"
	"sync"

	"github.com/treeline-log/treeline/log"
)

// budget bounds what requests take of something, such as the memory of batches while they are read, parsed and waiting: over all
// requests, and over those of one log, so that no tenant can use up what the others need.
type budget struct {
	perLog, inAll int64

	mu    sync.Mutex
	total int64
	logs  map[log.ID]int64
}

// reserve takes n, or returns log.ErrLogOverloaded where the log's share is used up and log.ErrOverloaded where everybody's is.
func (b *budget) reserve(id log.ID, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.logs[id]+n > b.perLog:
		return log.ErrLogOverloaded
	case b.total+n > b.inAll:
		return log.ErrOverloaded
	}
	if b.logs == nil {
		b.logs = make(map[log.ID]int64)
	}
	b.total += n
	b.logs[id] += n
	return nil
}

func (b *budget) release(id log.ID, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total -= n
	if b.logs[id] -= n; b.logs[id] == 0 {
		delete(b.logs, id)
	}
}

// reservation is what one request takes of a budget. It reads the request's body, and reserves what arrives as it does:
// a request that announces much and sends little takes little.
type reservation struct {
	budget *budget
	log    log.ID
	body   io.Reader
	bytes  int64
}

func (r *reservation) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if n > 0 {
		if err := r.budget.reserve(r.log, int64(n)); err != nil {
			return 0, err
		}
		r.bytes += int64(n)
	}
	return n, err
}

func (r *reservation) release() { r.budget.release(r.log, r.bytes) }
