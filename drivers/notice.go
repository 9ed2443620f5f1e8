package drivers

import (
	"sync"
	"sync/atomic"
	"time"
)

// wait waits until ch is closed and reports whether that was before due.
func wait(ch <-chan struct{}, due time.Time) bool {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-ch:
		return true
	case <-timer.C:
		return false
	}
}

// notice wakes all who wait for a change. Waking costs one load if nobody waits.
type notice struct {
	waiters atomic.Int32
	mu      sync.Mutex
	ch      chan struct{}
}

// wait returns a channel that is closed at the next change. Each call needs an unwait.
func (n *notice) wait() <-chan struct{} {
	n.waiters.Add(1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *notice) unwait() { n.waiters.Add(-1) }

func (n *notice) wake() {
	if n.waiters.Load() == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}
