package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/mapper/journal"
)

// Device is a volume that is open for reading and writing, or a snapshot that is open for reading. All
// methods may be called concurrently.
type Device struct {
	engine *drivers.Engine
	guest  drivers.Client // requests and the journal
	meta   drivers.Client // pages
	back   drivers.Client // cuts, removal
	lease  Lease          // nil: a snapshot
	verify func() error   // of the source; nil: there is none
	tenant uint64
	o      Options
	closed func(context.Context) // nil: nobody wants to know
	log    *slog.Logger

	id           chunk.VolumeID
	geom         chunk.Geometry
	size         atomic.Int64 // bytes that requests may reach
	end          atomic.Int64 // bytes of the volume as it is stored; more while it is made larger or smaller
	group        string       // of all the volume's objects, with a slash
	failedBefore []string     // objects whose sync failed before the device was opened
	m            *mapper.Map
	journal      atomic.Pointer[journal.Writer]
	making       sync.Mutex    // of the journal
	recorded     atomic.Uint64 // the last frame with a change

	locks      *locks
	order      order
	gate       gate
	grace      grace
	dirty      *dirty
	retired    retired
	garbage    garbage
	merger     merger
	flattening chan struct{} // has room for the one who flattens
	resizing   chan struct{} // has room for the one who resizes
	flusher    flusher
	cutter     cutter
	shared     chunk.Serial // pages up to here may be a snapshot's; under cutter.running
	readers    *queue
	queue      *queue // of the rest, which may have to wait at the gate
	watch      *watch

	closing atomic.Bool
	failure atomic.Pointer[failure]
	stats   counters
}

// failure is why a device failed for good.
type failure struct{ err error }

// Defaults of Options.
const (
	defaultDeadline = 30 * time.Second
	defaultJournal  = 4 << 20
	defaultLimit    = 64 << 20
	defaultMemory   = 32 << 20
	defaultWorkers  = 256
)

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Deadline == 0 {
		o.Deadline = defaultDeadline
	}
	if o.JournalSize == 0 {
		o.JournalSize = defaultJournal
	}
	if o.JournalLimit == 0 {
		o.JournalLimit = defaultLimit
	}
	if o.MapMemory == 0 {
		o.MapMemory = defaultMemory
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	return o
}

// Open returns the device of a leased volume. If its last holder did not end cleanly, what its journal says is
// applied first. The device owns the lease from then on; when Open fails the lease is
// abandoned.
func Open(ctx context.Context, c Config, lease Lease) (*Device, error) {
	if err := lease.Claim(); err != nil {
		return nil, err
	}
	root := lease.Root()
	d := newDevice(c, lease, root.Volume, root.Geometry, root.Size)
	d.m = mapper.New(d.meta, root.Volume, root.Geometry, root.Size, root.Owners, root.Pages, root.Mark, d.o.MapMemory)
	d.shared = chunk.MakeSerial(root.Generation, 0)
	if len(root.Journals) > 0 {
		if err := d.replay(ctx, root); err != nil {
			lease.Abandon()
			return nil, fmt.Errorf("open volume %s after an unclean end: %w", root.Name, err)
		}
	}
	d.failedBefore = c.Engine.FailedSyncs() // of earlier grants: what is left of them is as the journal said
	d.start()
	return d, nil
}

// OpenSnapshot returns a device that reads a snapshot. It needs no lease.
func OpenSnapshot(_ context.Context, c Config, s *mapper.Snapshot) (*Device, error) {
	d := newDevice(c, nil, s.Volume, s.Geometry, s.Size)
	d.closed = c.Closed
	d.m = mapper.New(d.meta, s.Volume, s.Geometry, s.Size, s.Owners, s.Pages, ^chunk.Serial(0), d.o.MapMemory)
	d.start()
	return d, nil
}

func newDevice(c Config, lease Lease, id chunk.VolumeID, geom chunk.Geometry, size int64) *Device {
	o := c.Options.withDefaults()
	d := &Device{engine: c.Engine, lease: lease, verify: c.Verify, tenant: c.Tenant, o: o, id: id, geom: geom}
	d.size.Store(size)
	d.end.Store(size)
	d.log = o.Logger.With("volume", id)
	var guard drivers.Guard
	if lease != nil {
		guard = lease
	}
	d.guest = c.Engine.Client(drivers.LaneGuest, c.Tenant, guard)
	d.meta = c.Engine.Client(drivers.LaneMeta, c.Tenant, guard)
	d.back = c.Engine.Client(drivers.LaneBackground, c.Tenant, guard)
	d.group = chunk.VolumeGroup(id) + "/"
	d.locks = newLocks()
	d.dirty = newDirty(geom.Blocks())
	d.flusher.token = make(chan struct{}, 1)
	d.cutter.init()
	d.merger.init()
	d.flattening = make(chan struct{}, 1)
	d.resizing = make(chan struct{}, 1)
	d.garbage.wake, d.garbage.sweeping = make(chan struct{}, 1), make(chan struct{}, 1)
	d.grace.wait = make(chan struct{}, 1)
	d.readers = newQueue(o.Workers, d.perform)
	d.queue = newQueue(o.Workers, d.perform)
	d.watch = newWatch(o.Deadline)
	return d
}

func (d *Device) start() {
	if d.lease != nil {
		d.cutter.done.Go(d.cutLoop)
		d.cutter.done.Go(d.sweepLoop)
		d.cutter.done.Go(d.mergeLoop)
	}
}

// Size returns the device's size in bytes. Resize changes it.
func (d *Device) Size() int64 { return d.size.Load() }

// ReadOnly reports whether the device is a snapshot.
func (d *Device) ReadOnly() bool { return d.lease == nil }

// ChunkSize returns the volume's chunk size in bytes: requests of that size and alignment suit it best.
func (d *Device) ChunkSize() int64 { return d.geom.Size() }

// Root returns a copy of the volume's root in force, nil for a snapshot.
func (d *Device) Root() *mapper.Root {
	if d.lease == nil {
		return nil
	}
	return d.lease.Root()
}

// Err returns why the device failed for good, or nil.
func (d *Device) Err() error {
	if f := d.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

// fail makes the device fail for good: something that should be durable may not be. The root says so, if that can
// still be written, so that the next open trusts only what was flushed.
func (d *Device) fail(err error) error {
	f := &failure{fmt.Errorf("%w: %w", ErrFailed, err)}
	if !d.failure.CompareAndSwap(nil, f) {
		return d.Err()
	}
	d.log.Error("volume failed; close it, and open it again to go on with what was flushed", "err", err)
	ctx, cancel := context.WithTimeout(context.Background(), d.o.Deadline)
	defer cancel()
	if err := d.lease.Switch(ctx, func(r *mapper.Root) { r.Failed = true }); err != nil {
		d.log.Error("the failure could not be noted in the root", "err", err)
	}
	return f.err
}

// Close waits for all requests, stores all that is not stored yet, and releases the lease. If that
// fails the lease is abandoned, the next open goes on from the journal, and Close says why. At the end of ctx it gives up likewise, and
// returns while the storage may still hold buffers of requests that never ended.
func (d *Device) Close(ctx context.Context) error {
	if d.closing.Swap(true) {
		return ErrClosed
	}
	drained := errors.Join(d.grace.pass(ctx), d.cutter.stop(ctx))
	if drained == nil {
		d.endWorkers()
	}
	if d.lease == nil {
		switch {
		case drained != nil:
			go func() {
				_ = d.grace.pass(context.Background()) // this context has no end
				d.endWorkers()
			}()
		case d.closed != nil:
			d.closed(ctx)
		}
		return drained
	}
	err := errors.Join(drained, d.Err())
	if err == nil {
		err = d.release(ctx)
	}
	switch {
	case err == nil:
		return nil
	case drained == nil:
		d.lease.Abandon()
	default:
		// What the storage still holds must end under this lease, whoever asks for the next. This outlives Close, as the requests do.
		go func() {
			// These contexts have no end.
			_ = d.grace.pass(context.Background())
			_ = d.cutter.stop(context.Background())
			d.lease.Abandon()
			d.endWorkers()
		}()
	}
	return fmt.Errorf("close volume: %w", err)
}

// endWorkers ends what waits for requests. None is left, and none comes.
func (d *Device) endWorkers() {
	d.readers.close()
	d.queue.close()
	d.watch.close()
}

// release does the last cut and gives the lease back.
func (d *Device) release(ctx context.Context) error {
	if w := d.journal.Load(); w != nil || d.m.Changed() > 0 {
		if _, err := d.cut(ctx, cutOptions{last: true}); err != nil {
			return err
		}
		if w != nil {
			w.Close()
		}
	}
	if err := d.sweep(ctx); err != nil {
		d.log.Warn("left to the collector", "err", err)
	}
	return d.lease.Release(ctx, func(*mapper.Root) {})
}

// Stats are counts since the device was opened.
type Stats struct {
	Reads, Writes, Zeroes, Flushes int64 // requests
	ReadBytes, WrittenBytes        int64
	JournalFlushes, ObjectFlushes  int64 // flushes by the way they took
	Cuts                           int64
	Merges                         int64
}

type counters struct {
	reads, writes, zeroes, flushes, readBytes, writtenBytes, journalFlushes, objectFlushes, cuts, merges atomic.Int64
}

// Stats returns the device's counts.
func (d *Device) Stats() Stats {
	s := &d.stats
	return Stats{
		Reads: s.reads.Load(), Writes: s.writes.Load(), Zeroes: s.zeroes.Load(), Flushes: s.flushes.Load(),
		ReadBytes: s.readBytes.Load(), WrittenBytes: s.writtenBytes.Load(),
		JournalFlushes: s.journalFlushes.Load(), ObjectFlushes: s.objectFlushes.Load(),
		Cuts: s.cuts.Load(), Merges: s.merges.Load(),
	}
}
