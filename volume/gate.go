package volume

import (
	"context"
	"sync"
)

// gate lets changes of the volume pass. A barrier closes it, which waits until those inside have left.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside int
	empty  chan struct{} // closed when the last one leaves a closed gate
	opened chan struct{} // closed when the gate opens again
}

// tryEnter passes if the gate is open.
func (g *gate) tryEnter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside++
	return true
}

// enter passes as soon as the gate is open.
func (g *gate) enter() {
	for {
		g.mu.Lock()
		if !g.closed {
			g.inside++
			g.mu.Unlock()
			return
		}
		opened := g.opened
		g.mu.Unlock()
		<-opened
	}
}

// leave ends what enter or tryEnter began.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.closed && g.inside == 0 {
		close(g.empty)
	}
}

// close lets nobody pass any more and waits until nobody is inside. At ctx's end it gives up
// and opens the gate again. Only one may close it at a time.
func (g *gate) close(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	g.empty, g.opened = make(chan struct{}), make(chan struct{})
	empty := g.empty
	if g.inside == 0 {
		close(empty)
	}
	g.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		g.open()
		return context.Cause(ctx)
	}
}

// open ends what close began.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
	close(g.opened)
}

// grace tells when all requests that were under way at some moment have ended, so that
// what they may still read can be removed.
type grace struct {
	mu     sync.Mutex
	epoch  uint64
	inside [2]int        // by the lowest bit of the epoch in which they entered
	ended  chan struct{} // closed when nobody is left inside of slot, while someone waits for that
	slot   uint64
	wait   chan struct{} // has room for the one in pass
}

// enter registers a request; leave takes what it returns.
func (g *grace) enter() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	slot := g.epoch & 1
	g.inside[slot]++
	return slot
}

func (g *grace) leave(slot uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside[slot]--
	if g.inside[slot] == 0 && g.ended != nil && g.slot == slot {
		close(g.ended)
		g.ended = nil
	}
}

// pass waits until all requests that had entered before the call have left.
func (g *grace) pass(ctx context.Context) error {
	select {
	case g.wait <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-g.wait }()
	// The other slot is not empty if an earlier wait was given up.
	if err := g.drain(ctx, false); err != nil {
		return err
	}
	return g.drain(ctx, true)
}

// drain waits until the slot that is not in use is empty, after changing slots if flip is set.
func (g *grace) drain(ctx context.Context, flip bool) error {
	g.mu.Lock()
	if flip {
		g.epoch++
	}
	g.slot = (g.epoch + 1) & 1
	if g.inside[g.slot] == 0 {
		g.mu.Unlock()
		return nil
	}
	ended := make(chan struct{})
	g.ended = ended
	g.mu.Unlock()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
