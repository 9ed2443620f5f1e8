package volume

import (
	"context"
	"runtime"
)

// Grow does what a full journal asks for: it goes on with a larger one, or cuts.
func (d *Device) Grow(ctx context.Context) error { return d.makeRoom(ctx) }

// Merge does what the background does for a chunk that a change found to have many layers.
func (d *Device) Merge(ctx context.Context, index uint64) error { return d.mergeChunk(ctx, index) }

// Depth returns the number of layers of a chunk.
func (d *Device) Depth(ctx context.Context, index uint64) (int, error) {
	if err := d.ready(ctx, index); err != nil {
		return 0, err
	}
	plan, _ := d.m.Plan(index, 0, d.geom.Blocks())
	return plan.Depth, nil
}

// The numbers of layers at which they are merged.
const (
	MergeDepth = mergeDepth
	MaxDepth   = maxDepth
)

// AwaitClosedGate returns when changes of the volume are held up.
func (d *Device) AwaitClosedGate() {
	for d.gate.tryEnter() {
		d.gate.leave()
		runtime.Gosched()
	}
}
