package drivers

import (
	"errors"
	"sync"
	"time"
)

// idleTime is how long a worker waits for work before it ends.
const idleTime = 10 * time.Second

// keptTenants bounds the tenants without work that a lane remembers, so that their queues are not allocated again.
const keptTenants = 1024

// lane is a queue with workers of its own. Workers are started when there is work and none is idle.
type lane struct {
	e       *Engine
	most    int    // workers
	start   func() // work, made once, so that starting a worker allocates nothing for it
	drained sync.Cond

	mu      sync.Mutex
	tenants map[uint64]*tenant
	last    *tenant // of the ring of tenants with work: the one served last; nil if there is no work
	queued  int
	running int   // at most most
	direct  int   // of them: on goroutines that are no workers
	bytes   int64 // payload queued and running
	workers int
	idle    []*worker // the longest idle first
	blocked waiters   // submitters without room
	wakeAt  time.Time // when the sweeper looks here next; zero: never
	closed  bool
}

// tenant is the queue of one tenant in one lane, and its place in the ring.
type tenant struct {
	id         uint64
	head, tail *Op
	next       *tenant
}

type worker struct {
	wake  chan struct{}
	since time.Time
	quit  bool
}

func newLane(e *Engine, most int) *lane {
	l := &lane{e: e, most: most, tenants: make(map[uint64]*tenant)}
	l.start = l.work
	l.drained.L = &l.mu
	return l
}

var errWithdrawn = errors.New("withdrawn")

// enqueue queues op, or blocks until there is room, the deadline passes or cancel is closed.
func (l *lane) enqueue(op *Op, cancel <-chan struct{}) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	op.queue = l
	l.sweepAtLocked(op.due)
	if op.NoWait || l.blocked.empty() && l.fitsLocked(op) {
		l.pushLocked(op)
		l.mu.Unlock()
		return nil
	}
	w := &waiter{op: op, admitted: make(chan error, 1)}
	l.blocked.push(w)
	l.mu.Unlock()
	select {
	case err := <-w.admitted:
		return err
	case <-cancel:
	}
	l.mu.Lock()
	removed := l.blocked.remove(w)
	l.admitLocked()
	l.mu.Unlock()
	if removed {
		return errWithdrawn
	}
	return <-w.admitted
}

func payload(op *Op) int64 {
	switch op.Kind {
	case OpRead, OpWrite, OpReplace:
		return int64(len(op.Data))
	}
	return 0
}

func (l *lane) fitsLocked(op *Op) bool {
	n := payload(op)
	return l.queued < l.e.o.MaxOps && (l.bytes == 0 || n == 0 || l.bytes+n <= l.e.o.MaxBytes)
}

// pushLocked appends op to its tenant's queue and finds it a worker.
func (l *lane) pushLocked(op *Op) {
	t := l.tenants[op.Tenant]
	if t == nil {
		t = &tenant{id: op.Tenant}
		l.tenants[op.Tenant] = t
	}
	op.next = nil
	if t.head == nil {
		t.head, t.tail = op, op
		if l.last == nil {
			t.next = t
		} else {
			t.next = l.last.next
			l.last.next = t
		}
		l.last = t
	} else {
		t.tail.next = op
		t.tail = op
	}
	l.queued++
	l.bytes += payload(op)
	l.wakeLocked()
}

// wakeLocked finds a worker for what is queued.
func (l *lane) wakeLocked() {
	if n := len(l.idle); n > 0 {
		w := l.idle[n-1]
		l.idle = l.idle[:n-1]
		w.wake <- struct{}{}
	} else if l.workers < l.most {
		l.workers++
		l.e.tasks.Add(1)
		go l.start()
	}
}

// popLocked takes the first operation of the tenant whose turn it is, nil if there is none or enough run.
func (l *lane) popLocked() *Op {
	if l.last == nil || l.running >= l.most {
		return nil
	}
	t := l.last.next
	op := t.head
	if t.head = op.next; t.head == nil {
		l.leaveLocked(l.last)
	} else {
		l.last = t
	}
	op.next = nil
	l.queued--
	return op
}

// leaveLocked takes the tenant after prev, which has no work left, out of the ring.
func (l *lane) leaveLocked(prev *tenant) {
	t := prev.next
	t.tail = nil
	switch {
	case prev == t:
		l.last = nil
	default:
		prev.next = t.next
		if l.last == t {
			l.last = prev
		}
	}
	t.next = nil
	if len(l.tenants) > keptTenants {
		delete(l.tenants, t.id)
	}
}

// admitLocked queues blocked submitters' operations while there is room.
func (l *lane) admitLocked() {
	for !l.blocked.empty() && l.fitsLocked(l.blocked.first.op) {
		w := l.blocked.pop()
		l.pushLocked(w.op)
		w.admitted <- nil
	}
}

// work is a worker's life.
func (l *lane) work() {
	defer l.e.tasks.Done()
	w := &worker{wake: make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		op := l.popLocked()
		if op == nil {
			if l.closed && l.queued == 0 {
				break
			}
			w.since = time.Now()
			l.idle = append(l.idle, w)
			l.sweepAtLocked(w.since.Add(idleTime))
			l.mu.Unlock()
			<-w.wake
			l.mu.Lock()
			if w.quit {
				return // the sweeper has counted this worker out
			}
			continue
		}
		l.running++
		l.admitLocked()
		l.mu.Unlock()
		n := payload(op)
		l.e.run(op)
		l.mu.Lock()
		l.running--
		l.bytes -= n
		l.admitLocked()
	}
	l.workers--
	l.endedLocked()
}

// endedLocked tells those who wait for the end of a closed lane that somebody ended, if nothing is left to do.
func (l *lane) endedLocked() {
	if !l.closed || l.queued > 0 {
		return
	}
	l.drained.Broadcast()
	for _, w := range l.idle {
		w.wake <- struct{}{}
	}
	l.idle = nil
}

// begin counts op as running, without a worker, if a worker would begin with it at once.
func (l *lane) begin(op *Op) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.queued > 0 || l.running >= l.most || !l.blocked.empty() || !l.fitsLocked(op) {
		return false
	}
	op.queue = l
	l.running++
	l.direct++
	l.bytes += payload(op)
	return true
}

// end ends what begin began, an operation with n bytes of payload.
func (l *lane) end(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	l.direct--
	l.bytes -= n
	l.admitLocked()
	if l.queued > 0 {
		l.wakeLocked()
	}
	l.endedLocked()
}

// withdraw takes op out of the queue and reports whether it was there.
func (l *lane) withdraw(op *Op) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		return false
	}
	found := l.filterLocked(func(o *Op) bool { return o == op })
	l.admitLocked()
	return found != nil
}

// filterLocked takes the operations for which out is true from the queue and returns them, linked by next.
func (l *lane) filterLocked(out func(*Op) bool) *Op {
	var removed, removedTail *Op
	var ring, tail *tenant // rebuilt of the tenants that still have work, in the same order
	first := l.last
	if first == nil {
		return nil
	}
	first = first.next
	for t := first; t != nil; {
		next := t.next
		if next == first {
			next = nil
		}
		op := t.head
		t.head, t.tail, t.next = nil, nil, nil
		for op != nil {
			o := op
			op, o.next = o.next, nil
			if out(o) {
				if removed == nil {
					removed = o
				} else {
					removedTail.next = o
				}
				removedTail = o
				l.queued--
				l.bytes -= payload(o)
				continue
			}
			if t.head == nil {
				t.head = o
			} else {
				t.tail.next = o
			}
			t.tail = o
		}
		if t.head != nil {
			if ring == nil {
				ring = t
			} else {
				tail.next = t
			}
			tail = t
		}
		t = next
	}
	if tail != nil {
		tail.next = ring
	}
	l.last = tail
	return removed
}

// close refuses new operations. What is queued is still done.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for !l.blocked.empty() {
		l.blocked.pop().admitted <- ErrClosed
	}
	for _, w := range l.idle {
		w.wake <- struct{}{}
	}
	l.idle = nil
}

// drain waits until all workers of a closed lane have ended, which they do when nothing is queued.
func (l *lane) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.workers > 0 || l.direct > 0 {
		l.drained.Wait()
	}
}

// waiter is a submitter without room.
type waiter struct {
	op       *Op
	admitted chan error // one answer
	next     *waiter
}

// waiters is a first-in first-out list.
type waiters struct{ first, last *waiter }

func (q *waiters) empty() bool { return q.first == nil }

func (q *waiters) push(w *waiter) {
	if q.first == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
}

func (q *waiters) pop() *waiter {
	w := q.first
	q.first = w.next
	return w
}

// remove takes w out and reports whether it was in.
func (q *waiters) remove(w *waiter) bool {
	var prev *waiter
	for o := q.first; o != nil; prev, o = o, o.next {
		if o != w {
			continue
		}
		if prev == nil {
			q.first = w.next
		} else {
			prev.next = w.next
		}
		if q.last == w {
			q.last = prev
		}
		return true
	}
	return false
}
