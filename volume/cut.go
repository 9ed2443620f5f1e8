package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/mapper/journal"
)

// cutter does cuts in the background, one at a time.
type cutter struct {
	running chan struct{} // has room for the one who cuts
	over    bool          // with running: the last cut was done
	wake    chan struct{}
	quit    chan struct{}
	done    sync.WaitGroup
	stopped sync.Once

	mu       sync.Mutex
	ended    uint64 // cuts, and changes to a larger journal
	lastErr  error
	finished chan struct{} // closed and replaced whenever a cut ends
}

func (c *cutter) init() {
	c.running = make(chan struct{}, 1)
	c.wake = make(chan struct{}, 1)
	c.quit = make(chan struct{})
	c.finished = make(chan struct{})
}

// begin waits until no other cut runs. It fails after the last one.
func (c *cutter) begin(ctx context.Context) error {
	select {
	case c.running <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for a cut: %w: %w", drivers.ErrUnavailable, context.Cause(ctx))
	}
	if c.over {
		c.end()
		return ErrClosed
	}
	return nil
}

// end ends what begin began.
func (c *cutter) end() { <-c.running }

// tell wakes those who wait for room.
func (c *cutter) tell(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended, c.lastErr = c.ended+1, err
	close(c.finished)
	c.finished = make(chan struct{})
}

// kick asks for a cut soon.
func (c *cutter) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// stop ends the background work and waits for it, at longest until ctx ends.
func (c *cutter) stop(ctx context.Context) error {
	c.stopped.Do(func() { close(c.quit) })
	ended := make(chan struct{})
	go func() {
		c.done.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cutLoop does the cuts that are asked for.
func (d *Device) cutLoop() {
	for {
		select {
		case <-d.cutter.quit:
			return
		case <-d.cutter.wake:
		}
		ctx, cancel := context.WithTimeout(context.Background(), d.o.Deadline)
		if err := d.makeRoom(ctx); err != nil {
			d.log.Warn("the journal could not be cut; it is tried again when it is needed", "err", err)
		}
		cancel()
		d.garbage.kick()
	}
}

// makeRoom goes on with a larger journal while that is allowed, else it cuts.
func (d *Device) makeRoom(ctx context.Context) error {
	grown, err := d.grow(ctx)
	if err != nil {
		d.log.Warn("no larger journal", "err", err)
	}
	if grown {
		return nil
	}
	_, err = d.cut(ctx, cutOptions{behind: true})
	return err
}

// room waits until a cut has ended, which makes room in the journal. The caller is not inside the gate.
func (c *cutter) room(ctx context.Context, d *Device) error {
	c.mu.Lock()
	want := c.ended + 1
	c.mu.Unlock()
	for {
		c.kick()
		c.mu.Lock()
		ended, err, finished := c.ended, c.lastErr, c.finished
		c.mu.Unlock()
		if ended >= want {
			return err
		}
		select {
		case <-finished:
		case <-c.quit:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := d.Err(); err != nil {
			return err
		}
	}
}

// throttle holds a change up while the journal is so full that there may be no room for it.
func (d *Device) throttle(ctx context.Context) error {
	w := d.journal.Load()
	if w == nil || !full(w) {
		return nil
	}
	return d.cutter.room(ctx, d)
}

// full reports whether a journal is so full that changes wait for a cut.
func full(w *journal.Writer) bool { return w.Live() >= w.Size()/8*7 }

// cutOptions say what a cut does besides.
type cutOptions struct {
	barrier bool  // raise the mark
	last    bool  // no change comes after it: the journal ends
	behind  bool  // nobody waits for it
	size    int64 // 0, or bytes that the volume has from now on
	sole    bool  // nothing of other owners is shown: they leave the root, and so does the source
}

// cutResult is what a cut left behind.
type cutResult struct {
	bound  chunk.Serial // the root in force reaches every living object of a serial up to here
	owners []chunk.VolumeID
	pages  []mapper.PageRef
	size   int64 // bytes of the volume
}

// Cut brings all that the journal says into the map's pages and a new root. After it the root
// in force reaches every object that is in use and has a serial up to bound; what the device itself made
// superfluous before is removed, and all requests that had begun before have ended.
func (d *Device) Cut(ctx context.Context) (bound chunk.Serial, err error) {
	r, err := d.cut(ctx, cutOptions{})
	if err == nil {
		err = errors.Join(d.grace.pass(ctx), d.sweep(ctx))
	}
	return r.bound, err
}

func (d *Device) cut(ctx context.Context, o cutOptions) (r cutResult, err error) {
	c := &d.cutter
	if err := c.begin(ctx); err != nil {
		return r, err
	}
	defer c.end()
	r, err = d.cutNow(ctx, o)
	c.over = c.over || err == nil && o.last && d.closing.Load()
	c.tell(err)
	d.stats.cuts.Add(1)
	return r, err
}

// cutNow does a cut: captures a moment in which no change is under way, then syncs objects, groups, pages, and switches the root.
func (d *Device) cutNow(ctx context.Context, o cutOptions) (r cutResult, err error) {
	if err := d.Err(); err != nil {
		return r, err
	}
	if err := d.gate.close(ctx); err != nil {
		return r, fmt.Errorf("wait for requests under way: %w: %w", drivers.ErrUnavailable, err)
	}
	r.size = d.end.Load()
	smaller := o.size != 0 && o.size < r.size
	if o.size != 0 {
		if err := d.prepareSize(ctx, r.size, o.size); err != nil {
			d.gate.open()
			return r, err
		}
		defer func(old int64) { d.sized(old, o.size, err) }(r.size)
		r.size = o.size
	}
	if (o.barrier || smaller) && d.retired.exposed.Load() > 0 {
		d.gate.open()
		return r, fmt.Errorf("%w: a write of unknown outcome is not hidden yet", drivers.ErrUnavailable)
	}
	if r.bound, err = d.lease.NextSerial(); err != nil {
		d.gate.open()
		return r, err
	}
	if o.barrier || smaller {
		d.m.SetMark(r.bound)
	}
	w := d.journal.Load()
	var start journal.Position
	if w != nil {
		start = w.Head()
	}
	state, capture := d.dirty.cut(), d.capture(r.size, smaller)
	state.dropped = slices.DeleteFunc(state.dropped, func(o journal.Object) bool {
		return d.m.Shows(o.Chunk, o.Serial) // a write beside the discard of all else brought it back
	})
	mark := d.m.Mark()
	d.gate.open()

	parallel := syncParallel
	if o.behind {
		parallel = syncBehind
	}
	r.owners, r.pages, err = d.store(ctx, &state, capture, parallel)
	if err == nil && o.sole {
		r.owners, err = soleOwner(r.owners, r.pages)
	}
	stored := err == nil
	var named []mapper.JournalRef
	image := ""
	if stored {
		err = d.lease.Switch(ctx, func(root *mapper.Root) {
			named = root.Journals
			root.Owners, root.Pages, root.Mark = r.owners, r.pages, mark
			if o.sole {
				image = sourceObject(root)
				root.Source = nil
			}
			if o.size != 0 {
				root.Size = o.size
			}
			switch {
			case o.last:
				root.Journals = nil
				root.Failed = d.Err() != nil
			case w != nil:
				root.Journals = []mapper.JournalRef{{Generation: root.Generation, Boot: d.o.Boot, Start: start}}
			}
		})
	}
	if smaller && stored && isUnknown(err) {
		err = d.settleSize(ctx, mark, err)
	}
	if err != nil {
		capture.Abort()
		// If the new root may be in force the journal has to name again what changes after it; until then all is synced.
		d.dirty.cutFailed(state, stored && isUnknown(err))
		if !stored || !isUnknown(err) {
			d.discardPages(state.pages)
		}
		return r, err
	}
	replaced := capture.Commit()
	if o.sole {
		d.m.Sole()
	}
	if image != "" {
		d.garbage.add(image)
	}
	d.dirty.cutDone(state)
	if w != nil {
		w.Release(start)
		d.flusher.cover(start.Seq - 1)
	}
	d.discardable(state.dropped, replaced)
	for _, j := range named {
		if w == nil && !o.last || w != nil && !o.last && j.Start.Object == start.Object {
			continue
		}
		d.garbage.add(chunk.SerialName(d.id, chunk.Journals, j.Start.Object))
	}
	if o.barrier {
		// A snapshot will name the pages that were just written, too.
		d.shared, err = d.lease.NextSerial()
	}
	return r, err
}

// sourceObject returns the name of the object that the volume's source lies in; empty if it lies elsewhere, or there is none.
func sourceObject(root *mapper.Root) string {
	if len(root.Source) == 0 {
		return ""
	}
	s, err := mapper.DecodeSource(root.Source)
	if err != nil || s.Object == 0 {
		return "" // where it cannot be read the collector finds what is left
	}
	return chunk.SerialName(root.Volume, chunk.Images, s.Object)
}

// soleOwner returns the volume alone as the owner of its pages.
func soleOwner(owners []chunk.VolumeID, pages []mapper.PageRef) ([]chunk.VolumeID, error) {
	for _, ref := range pages {
		if ref.Owner != 0 {
			return nil, fmt.Errorf("%w: map page %d is of volume %v and shows nothing", ErrDamaged, ref.Number, owners[ref.Owner])
		}
	}
	return owners[:1], nil
}

// store syncs what a cut captured and writes the pages.
func (d *Device) store(ctx context.Context, state *cutState, capture *mapper.Capture, parallel int) ([]chunk.VolumeID, []mapper.PageRef, error) {
	names := make([]string, len(state.objects))
	for i, o := range state.objects {
		names[i] = chunk.DataName(d.id, o.Chunk, o.Serial)
	}
	if err := d.syncAll(ctx, d.back, names, state.fans, parallel); err != nil {
		if ctx.Err() != nil {
			return nil, nil, err
		}
		return nil, nil, d.fail(err)
	}
	if !capture.Empty() {
		err := capture.Store(d.lease.NextSerial, func(name string, b []byte) error {
			state.pages = append(state.pages, name)
			if err := d.back.Create(ctx, name); err != nil {
				return err
			}
			return d.back.WriteAt(ctx, name, b, 0)
		})
		if err != nil {
			return nil, nil, err
		}
		if err := d.syncAll(ctx, d.back, state.pages, []fan{{group: chunk.GroupName(d.id, chunk.Pages)}}, parallel); err != nil {
			if ctx.Err() != nil {
				return nil, nil, err
			}
			return nil, nil, d.fail(err)
		}
	}
	owners, refs := capture.Refs()
	return owners, refs, nil
}

// Snapshot takes a snapshot of the volume as it is now, while it is in use: all that was answered before the call
// is in it, and it is durable when Snapshot returns. An empty name makes a hidden one. That the name is free is the caller's matter.
func (d *Device) Snapshot(ctx context.Context, name string) (*mapper.Snapshot, error) {
	if d.lease == nil {
		return nil, ErrReadOnly
	}
	slot := d.grace.enter() // Close waits
	defer d.grace.leave(slot)
	if d.closing.Load() {
		return nil, ErrClosed
	}
	r, err := d.cut(ctx, cutOptions{barrier: true})
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	root := d.lease.Root()
	s := &mapper.Snapshot{
		Volume: d.id, Serial: r.bound, Name: name, Size: r.size, Geometry: d.geom, Created: d.o.Now().UTC(), Parent: root.Parent,
		Owners: r.owners, Pages: r.pages,
	}
	if err := d.storeSnapshot(ctx, s); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return s, nil
}

// storeSnapshot makes the record. One whose outcome is unknown is made again: whichever comes first, it is the same. A record that could still
// appear when its pages are thought to be nobody's would be a broken snapshot.
func (d *Device) storeSnapshot(ctx context.Context, s *mapper.Snapshot) error {
	doubt := false
	var err error
	for range writeTries {
		err = d.meta.Replace(ctx, chunk.SerialName(d.id, chunk.Snapshots, s.Serial), s.Encode(), drivers.Condition{Absent: true})
		if err == nil || doubt && errors.Is(err, drivers.ErrExists) {
			return nil
		}
		if !isUnknown(err) {
			break
		}
		doubt = true
	}
	if doubt {
		return d.fail(err)
	}
	return err
}

// Freeze makes all that was answered durable and holds all further changes up until Thaw. It fails if those under way do not end
// before ctx does.
func (d *Device) Freeze(ctx context.Context) error {
	if d.lease == nil {
		return nil
	}
	slot := d.grace.enter() // what it flushes must not be removed
	defer d.grace.leave(slot)
	if d.closing.Load() {
		return ErrClosed
	}
	for {
		// Most of the work is done while changes go on.
		if err := d.flush(ctx); err != nil {
			return err
		}
		err := d.hold(ctx)
		if !errors.Is(err, journal.ErrFull) {
			return err
		}
		if err := d.cutter.room(ctx, d); err != nil {
			return err
		}
	}
}

// hold closes the gate, and flushes what was answered until then. The order of the locks is that of flushes, which may wait for a cut.
func (d *Device) hold(ctx context.Context) error {
	select {
	case d.flusher.token <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-d.flusher.token }()
	if err := d.cutter.begin(ctx); err != nil {
		return err
	}
	err := d.gate.close(ctx)
	if err != nil {
		err = fmt.Errorf("freeze: %w: %w", drivers.ErrUnavailable, err)
	} else if err = d.flushInside(context.WithoutCancel(ctx), func() {}); err != nil { // one that ends halfway has failed for good
		d.gate.open()
	}
	if err != nil {
		d.cutter.end()
	}
	return err
}

// Thaw ends what Freeze began.
func (d *Device) Thaw() {
	if d.lease == nil {
		return
	}
	d.gate.open()
	d.cutter.end()
}
