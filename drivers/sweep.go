package drivers

import (
	"fmt"
	"time"
)

// sweep fails operations that waited past their deadlines, even where all workers hang, and ends
// idle workers. It runs until the engine's poke channel is closed.
func (e *Engine) sweep() {
	defer close(e.swept)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		var next time.Time
		for _, l := range e.lanes {
			if at := l.sweep(now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
		var fire <-chan time.Time
		if !next.IsZero() {
			timer.Reset(time.Until(next))
			fire = timer.C
		}
		select {
		case <-fire:
		case _, ok := <-e.poke:
			if !ok {
				return
			}
		}
	}
}

// sweepAtLocked has the sweeper look at this lane at the time at, or before.
func (l *lane) sweepAtLocked(at time.Time) {
	if !l.wakeAt.IsZero() && !at.Before(l.wakeAt) {
		return
	}
	l.wakeAt = at
	select {
	case l.e.poke <- struct{}{}:
	default:
	}
}

// sweep does what is due now and returns when to come back.
func (l *lane) sweep(now time.Time) time.Time {
	l.mu.Lock()
	if l.wakeAt.IsZero() || now.Before(l.wakeAt) {
		defer l.mu.Unlock()
		return l.wakeAt
	}
	var next time.Time
	expired := func(at time.Time) bool {
		if !at.After(now) {
			return true
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
		return false
	}
	late := l.filterLocked(func(op *Op) bool { return expired(op.due) })
	var prev *waiter
	for w := l.blocked.first; w != nil; w = w.next {
		if !expired(w.op.due) {
			prev = w
			continue
		}
		if prev == nil {
			l.blocked.first = w.next
		} else {
			prev.next = w.next
		}
		if l.blocked.last == w {
			l.blocked.last = prev
		}
		w.admitted <- errLate
	}
	kept := 0
	for i, w := range l.idle {
		if !l.closed && expired(w.since.Add(idleTime)) {
			w.quit = true
			l.workers--
			w.wake <- struct{}{}
		} else {
			l.idle[kept] = l.idle[i]
			kept++
		}
	}
	clear(l.idle[kept:])
	l.idle = l.idle[:kept]
	l.wakeAt = next
	l.admitLocked()
	l.mu.Unlock()
	for late != nil {
		op := late
		late, op.next = op.next, nil
		op.Err = opError(op, errLate)
		l.e.finish(op)
	}
	return next
}

// errLate is the error of what was not handed to the backend before its deadline.
var errLate = fmt.Errorf("%w: deadline passed while waiting", ErrUnavailable)
