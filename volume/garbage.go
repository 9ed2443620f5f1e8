package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper/journal"
)

// garbage is what the root no longer reaches. It is removed once no request can still read it; not by
// a cut, for which requests may be waiting.
type garbage struct {
	wake chan struct{}

	sweeping chan struct{} // has room for the one who removes names
	mu       sync.Mutex
	names    []string
}

func (g *garbage) kick() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// add notes a name that nothing reaches.
func (g *garbage) add(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.names = append(g.names, name)
}

// discardable notes what a cut made superfluous: objects that left the map and that no snapshot ever
// had, and pages likewise. The cut is stored; cutter.running is held.
func (d *Device) discardable(dropped []journal.Object, replaced []chunk.Serial) {
	for _, x := range dropped {
		d.garbage.add(chunk.DataName(d.id, x.Chunk, x.Serial))
	}
	for _, s := range replaced {
		if s > d.shared {
			d.garbage.add(chunk.SerialName(d.id, chunk.Pages, s))
		}
	}
}

// discardPages notes map pages of a cut that has failed: no root names them, and none will.
func (d *Device) discardPages(names []string) {
	for _, name := range names {
		d.garbage.add(name)
	}
	d.garbage.kick()
}

// sweepLoop removes garbage in the background.
func (d *Device) sweepLoop() {
	for {
		select {
		case <-d.cutter.quit:
			return
		case <-d.garbage.wake:
		}
		ctx, cancel := context.WithTimeout(context.Background(), d.o.Deadline)
		if err := d.sweep(ctx); err != nil {
			d.log.Warn("what is no longer needed could not be removed; it is tried again", "err", err)
		}
		cancel()
	}
}

// sweep removes the garbage that there is now. What it cannot remove is tried again by the next sweep, or found by the collector.
func (d *Device) sweep(ctx context.Context) error {
	g := &d.garbage
	select {
	case g.sweeping <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("remove objects: %w", context.Cause(ctx))
	}
	defer func() { <-g.sweeping }()
	g.mu.Lock()
	names := g.names
	g.names = nil
	g.mu.Unlock()
	if len(names) == 0 {
		return nil
	}
	err := d.grace.pass(ctx)
	for err == nil && len(names) > 0 {
		if err = d.back.Unlink(ctx, names[0]); errors.Is(err, drivers.ErrNotFound) {
			err = nil
		}
		if err == nil {
			names = names[1:]
		}
	}
	if err != nil {
		g.mu.Lock()
		g.names = append(g.names, names...)
		g.mu.Unlock()
		return fmt.Errorf("remove %d objects: %w", len(names), err)
	}
	return nil
}
