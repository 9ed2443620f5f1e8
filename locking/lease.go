package locking

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// Lease is the right to write one volume, under one grant. Its methods may be called concurrently.
type Lease struct {
	instance   *Instance
	client     drivers.Client // guarded by the lease itself
	volume     chunk.VolumeID
	generation uint32
	name       string // of the root
	counter    atomic.Uint64
	claimed    atomic.Bool

	ctx context.Context // ends with the lease
	end context.CancelCauseFunc

	turn     chan struct{} // has room for the one who switches
	pending  [][]byte      // with the turn: roots that may have become, or may yet become, the present one
	sequence uint64        // with the turn: of the last try

	mu   sync.Mutex
	root *mapper.Root
	err  error
}

func newLease(i *Instance, root *mapper.Root) *Lease {
	l := &Lease{
		instance: i, volume: root.Volume, generation: root.Generation, root: root,
		name: chunk.RootName(root.Volume, root.Generation), turn: make(chan struct{}, 1), sequence: root.Sequence,
	}
	l.client = i.engine.Client(drivers.LaneLease, 0, l)
	l.ctx, l.end = context.WithCancelCause(context.Background())
	return l
}

// Volume returns the id of the volume.
func (l *Lease) Volume() chunk.VolumeID { return l.volume }

// Generation returns the number of the grant.
func (l *Lease) Generation() uint32 { return l.generation }

// Claim lets one device use the lease; a second call fails with a [HeldError]. The instance gets the same lease again
// as long as it holds the volume, and a device that was closed may have left operations that the storage has not ended.
func (l *Lease) Claim() error {
	if !l.claimed.CompareAndSwap(false, true) {
		return heldError(l.Root())
	}
	return nil
}

// Claimed reports whether a device has had the lease.
func (l *Lease) Claimed() bool { return l.claimed.Load() }

// Context returns a context that ends with the lease; its cause is what Err says then.
func (l *Lease) Context() context.Context { return l.ctx }

// Err returns nil while the lease holds, then for ever why it ended: ErrLost or ErrReleased. A lease is a [drivers.Guard].
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Root returns a copy of the root in force: the one that was granted, or the last that Switch made.
func (l *Lease) Root() *mapper.Root {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.root.Clone()
}

// NextSerial returns a serial that was never used: the counter begins at 1 with the grant and only grows.
func (l *Lease) NextSerial() (chunk.Serial, error) {
	n := l.counter.Add(1)
	if n > math.MaxUint32 {
		return 0, fmt.Errorf("volume %v: serials of generation %d are used up: open the volume again", l.volume, l.generation)
	}
	return chunk.MakeSerial(l.generation, uint32(n)), nil
}

// Switch replaces the root by a copy that change has changed. What identifies the grant is not change's to set. When it
// returns nil the new root is in force and durable. When it fails the old one is in force, unless the error matches
// [drivers.ErrUnknownOutcome]: then either may be, and nothing may be removed that either reaches, until a later switch
// has succeeded. It fails with ErrLost, for ever, if the root was changed by another.
func (l *Lease) Switch(ctx context.Context, change func(*mapper.Root)) error {
	if err := l.take(ctx); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	defer l.yield()
	if err := l.switchRoot(ctx, func(r *mapper.Root) {
		change(r)
		r.Held = true
	}); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	return nil
}

// Release switches the root for the last time, to a copy that change (which may be nil) has changed and that is not held, and
// ends the lease. If the switch fails the lease goes on, unless it is lost: try again, or abandon it. If its outcome is
// unknown the lease ends all the same, since others may take the volume. Releasing a lease twice fails
// with ErrReleased.
func (l *Lease) Release(ctx context.Context, change func(*mapper.Root)) error {
	if err := l.take(ctx); err != nil {
		return fmt.Errorf("release volume: %w", err)
	}
	defer l.yield()
	err := l.switchRoot(ctx, func(r *mapper.Root) {
		if change != nil {
			change(r)
		}
		r.Held = false
	})
	if err == nil || errors.Is(err, drivers.ErrUnknownOutcome) {
		l.finish(ErrReleased)
		l.instance.forget(l, err != nil)
	}
	if err != nil {
		return fmt.Errorf("release volume: %w", err)
	}
	return nil
}

// Destroy removes the roots of a volume that is deleted, in ascending order, and ends the lease: nothing is left
// of the volume. All else of it must have been removed durably before. If it fails the lease goes on, unless it is lost.
func (l *Lease) Destroy(ctx context.Context) error {
	if err := l.take(ctx); err != nil {
		return fmt.Errorf("remove roots: %w", err)
	}
	defer l.yield()
	if state := l.Root().State; state != mapper.Deleted {
		return fmt.Errorf("remove roots of a volume that is %v: %w", state, drivers.ErrInvalid)
	}
	generations, err := listRoots(ctx, l.client, l.volume)
	if err != nil {
		return fmt.Errorf("remove roots: %w", err)
	}
	if n := len(generations); n > 0 && generations[n-1] > l.generation {
		return fmt.Errorf("remove roots: %w", l.lose())
	}
	// Were the last to go the first to be gone, an older root would be in force.
	last := slices.Index(generations, l.generation)
	if last < 0 {
		last = len(generations)
	}
	for _, some := range [][]uint32{generations[:last], generations[last:]} {
		for _, g := range some {
			if err := l.client.Unlink(ctx, chunk.RootName(l.volume, g)); err != nil && !errors.Is(err, drivers.ErrNotFound) {
				return fmt.Errorf("remove root %d: %w", g, err)
			}
		}
		if err := l.client.SyncGroup(ctx, chunk.GroupName(l.volume, chunk.Roots)); err != nil {
			return fmt.Errorf("remove roots: %w", err)
		}
	}
	l.finish(ErrReleased)
	l.instance.forget(l, false)
	return nil
}

// Abandon ends the lease without a word on the storage: the next grant finds an unclean end. No
// operation under the lease may be outstanding, since its instance may take the volume again.
func (l *Lease) Abandon() {
	l.finish(ErrReleased)
	l.instance.forget(l, true)
}

// take waits for the turn to switch. It fails if the lease has ended.
func (l *Lease) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := l.Err(); err != nil {
		l.yield()
		return err
	}
	return nil
}

func (l *Lease) yield() { <-l.turn }

// settled waits for a switch that is under way and reports whether the lease still holds.
func (l *Lease) settled(ctx context.Context) (bool, error) {
	err := l.take(ctx)
	if err == nil {
		l.yield()
		return true, nil
	}
	if l.Err() != nil {
		return false, nil
	}
	return false, err
}

// finish ends the lease; the first reason stays.
func (l *Lease) finish(why error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = why
	}
	why = l.err
	l.mu.Unlock()
	l.end(why)
}

// lose ends the lease because the present root is another's.
func (l *Lease) lose() error {
	l.finish(fmt.Errorf("%w: root %d of volume %v is another's", ErrLost, l.generation, l.volume))
	l.instance.forget(l, true)
	return l.Err()
}

// switchRoot replaces the root. The caller has the turn.
func (l *Lease) switchRoot(ctx context.Context, change func(*mapper.Root)) error {
	if err := l.settle(ctx); err != nil {
		return err
	}
	present := l.Root()
	next := present.Clone()
	change(next)
	l.sequence++
	next.Volume, next.Generation, next.Nonce = present.Volume, present.Generation, present.Nonce
	next.Holder, next.Sequence = present.Holder, l.sequence
	b := next.Encode()
	err := l.client.Replace(ctx, l.name, b, drivers.Condition{Prefix: present.Encode()[:mapper.RootPrefix]})
	if err == nil {
		l.setRoot(next)
		l.pending = nil
		return nil
	}
	if ended := l.Err(); ended != nil {
		return errors.Join(ended, err)
	}
	return l.doubt(context.WithoutCancel(ctx), err, b)
}

// doubt looks at what a failed switch did. A new root that is there counts for nothing yet, as nobody said that
// it is durable; the next switch replaces it.
func (l *Lease) doubt(ctx context.Context, failure error, failed []byte) error {
	l.pending = append(l.pending, failed)
	err := l.settle(ctx)
	switch {
	case errors.Is(err, ErrLost):
		return errors.Join(err, failure)
	case err != nil, bytes.Equal(failed, l.Root().Encode()):
		return fmt.Errorf("%w: %w", drivers.ErrUnknownOutcome, failure)
	case !errors.Is(failure, drivers.ErrUnknownOutcome):
		l.pending = l.pending[:len(l.pending)-1] // it did nothing
	}
	return failure
}

// settle finds out which of the switches that failed has become the present root. They stay in
// doubt until one has succeeded. The caller has the turn.
func (l *Lease) settle(ctx context.Context) error {
	if len(l.pending) == 0 {
		return nil
	}
	there, err := l.client.Load(ctx, l.name)
	switch {
	case errors.Is(err, drivers.ErrNotFound):
		return l.lose()
	case err != nil:
		return fmt.Errorf("settle an earlier switch: %w", err)
	case bytes.Equal(there, l.Root().Encode()):
		return nil
	case !slices.ContainsFunc(l.pending, func(p []byte) bool { return bytes.Equal(p, there) }):
		return l.lose()
	}
	root, err := mapper.DecodeRoot(there)
	if err != nil {
		return fmt.Errorf("settle an earlier switch: %w", err)
	}
	l.setRoot(root)
	return nil
}

func (l *Lease) setRoot(root *mapper.Root) {
	l.mu.Lock()
	l.root = root
	l.mu.Unlock()
}
