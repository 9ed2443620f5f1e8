package volume

import (
	"sync"
	"sync/atomic"
)

// order keeps the changes that are not done inline in the order in which they came, as far as they overlap: one begins when all before it that it
// overlaps have ended, and not when they were answered. A client whose request takes too long, or whose connection is gone, sends the same again
// and then what is newer; what came first must not be done last.
type order struct {
	count atomic.Int64 // of those in it

	mu          sync.Mutex
	first, last *Request // those that have come and not ended
}

// add takes r in. It reports whether r may begin; if not, end will return it.
func (o *order) add(r *Request) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	ru := &r.run
	o.count.Add(1)
	ru.before = 0
	for q := o.first; q != nil; q = q.run.later {
		if overlap(q, r) {
			ru.before++
		}
	}
	ru.earlier, ru.later = o.last, nil
	if o.last == nil {
		o.first = r
	} else {
		o.last.run.later = r
	}
	o.last = r
	return ru.before == 0
}

// end takes r out and calls begin for those that waited for it alone.
func (o *order) end(r *Request, begin func(*Request)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ru := &r.run
	for q := ru.later; q != nil; q = q.run.later {
		if !overlap(q, r) {
			continue
		}
		if q.run.before--; q.run.before == 0 {
			begin(q)
		}
	}
	if ru.earlier == nil {
		o.first = ru.later
	} else {
		ru.earlier.run.later = ru.later
	}
	if ru.later == nil {
		o.last = ru.earlier
	} else {
		ru.later.run.earlier = ru.earlier
	}
	ru.earlier, ru.later = nil, nil
	o.count.Add(-1)
}

// meets reports whether r overlaps one that has not ended.
func (o *order) meets(r *Request) bool {
	if o.count.Load() == 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for q := o.first; q != nil; q = q.run.later {
		if overlap(q, r) {
			return true
		}
	}
	return false
}

func overlap(a, b *Request) bool {
	return a.Offset < b.Offset+b.Length && b.Offset < a.Offset+a.Length
}
