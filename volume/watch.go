package volume

import (
	"fmt"
	"sync"
	"time"

	"skerry/drivers"
)

// watch ends the wait for requests that miss their deadline: they are answered with an error while the storage still
// holds their buffers, and released when it has let go of them.
type watch struct {
	deadline time.Duration

	mu     sync.Mutex
	first  *Request // in order of arrival
	last   *Request
	timer  *time.Timer
	start  time.Time
	closed bool
	asleep bool // no timer is running
}

func newWatch(deadline time.Duration) *watch {
	return &watch{deadline: deadline, start: time.Now(), asleep: true}
}

// add begins to watch a request that has been accepted.
func (w *watch) add(r *Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ru := &r.run
	ru.ctx.late.Store(false)
	ru.answered, ru.answering, ru.finished, ru.listed = false, false, false, true
	ru.since = int64(time.Since(w.start))
	ru.prev, ru.next = w.last, nil
	if w.last == nil {
		w.first = r
	} else {
		w.last.run.next = r
	}
	w.last = r
	if !w.asleep {
		return
	}
	w.asleep = false
	if w.timer == nil {
		w.timer = time.AfterFunc(w.deadline, w.tick)
	} else {
		w.timer.Reset(w.deadline)
	}
}

func (w *watch) removeLocked(r *Request) {
	ru := &r.run
	if !ru.listed {
		return
	}
	ru.listed = false
	if ru.prev == nil {
		w.first = ru.next
	} else {
		ru.prev.run.next = ru.next
	}
	if ru.next == nil {
		w.last = ru.prev
	} else {
		ru.next.run.prev = ru.prev
	}
	ru.prev, ru.next = nil, nil
}

// finish ends a request: nobody uses its buffers any more.
func (w *watch) finish(r *Request, err error) {
	w.mu.Lock()
	w.removeLocked(r)
	answered, answering := r.run.answered, r.run.answering
	r.run.finished = true
	w.mu.Unlock()
	if answering {
		return // tick releases it
	}
	if !answered {
		r.Done.Answered(r, err)
	}
	r.Done.Released(r)
}

// tick answers the requests that are overdue.
func (w *watch) tick() {
	var overdue []*Request
	w.mu.Lock()
	now := int64(time.Since(w.start))
	for r := w.first; r != nil && now-r.run.since >= int64(w.deadline); r = w.first {
		w.removeLocked(r)
		r.run.answering = true
		r.run.ctx.late.Store(true)
		overdue = append(overdue, r)
	}
	w.mu.Unlock()
	for _, r := range overdue {
		r.Done.Answered(r, fmt.Errorf("no answer within %v: %w", w.deadline, drivers.ErrUnavailable))
		w.mu.Lock()
		r.run.answered, r.run.answering = true, false
		finished := r.run.finished
		w.mu.Unlock()
		if finished {
			r.Done.Released(r)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first == nil || w.closed {
		w.asleep = true
		return
	}
	next := time.Duration(w.first.run.since) + w.deadline - time.Since(w.start)
	w.timer.Reset(max(next, time.Millisecond))
}

// close stops the timer. No request may be left.
func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
}
