package volume

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"skerry/drivers"
	"skerry/mapper"
)

// run is the device's own part of a request.
type run struct {
	op   drivers.Op
	room [4]mapper.Segment // for plans of requests that are done inline

	// The rest is of requests that are not done inline, see watch.
	slot       uint64 // of the device's grace
	since      int64  // nanoseconds of the device's clock
	prev, next *Request
	ctx        runContext
	earlier    *Request // of the device's order, like later and before
	later      *Request
	before     int  // changes that must end first
	exposed    bool // an inline try had an unknown outcome
	listed     bool
	answered   bool
	answering  bool
	finished   bool
}

// runContext is the context of a request that is not done inline. It ends at the deadline, when the request
// is answered; nobody is woken by that.
type runContext struct{ late atomic.Bool }

// Deadline implements [context.Context].
func (*runContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements [context.Context].
func (*runContext) Done() <-chan struct{} { return nil }

// Value implements [context.Context].
func (*runContext) Value(any) any { return nil }

// Err implements [context.Context].
func (c *runContext) Err() error {
	if c.late.Load() {
		return context.DeadlineExceeded
	}
	return nil
}

// queue hands requests to workers, which are started as they are needed.
type queue struct {
	do      func(*Request)
	limit   int
	workers sync.WaitGroup

	mu       sync.Mutex
	ready    sync.Cond
	waiting  []*Request
	head     int
	started  int
	idle     int
	finished bool
}

func newQueue(limit int, do func(*Request)) *queue {
	q := &queue{do: do, limit: limit}
	q.ready.L = &q.mu
	return q
}

// put queues a request.
func (q *queue) put(r *Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head > 0 && len(q.waiting) == cap(q.waiting) {
		n := copy(q.waiting, q.waiting[q.head:])
		clear(q.waiting[n:])
		q.waiting, q.head = q.waiting[:n], 0
	}
	q.waiting = append(q.waiting, r)
	switch {
	case q.idle > 0:
		q.ready.Signal()
	case q.started < q.limit:
		q.started++
		q.workers.Go(q.work)
	}
}

func (q *queue) work() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for q.head == len(q.waiting) {
			if q.finished {
				return
			}
			q.idle++
			q.ready.Wait()
			q.idle--
		}
		r := q.waiting[q.head]
		q.waiting[q.head] = nil
		if q.head++; q.head == len(q.waiting) {
			q.waiting, q.head = q.waiting[:0], 0
		}
		q.mu.Unlock()
		q.do(r)
		q.mu.Lock()
	}
}

// close waits until all requests are done and the workers have ended.
func (q *queue) close() {
	q.mu.Lock()
	q.finished = true
	q.ready.Broadcast()
	q.mu.Unlock()
	q.workers.Wait()
}
