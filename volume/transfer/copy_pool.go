package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/hash"
)

// CopyKeep is how long a copy that was interrupted is kept, with what it is a copy of.
const CopyKeep = 7 * 24 * time.Hour

const (
	// pinTime is how long a new pin waits for the copy.
	pinTime = 10 * time.Minute
	// defaultCheckpoint is how many bytes are read between two checkpoints: so much is read again after an interruption.
	defaultCheckpoint = 1 << 30
)

// ErrOtherCopy says that a name is taken by an interrupted copy of something else.
var ErrOtherCopy = fmt.Errorf("an interrupted copy of something else: %w", catalog.ErrExists)

// Work is a part of a copy.
type Work struct {
	Verify   bool   // contents are compared, else copied
	Snapshot string // that is copied or compared; "": what the volume is in the end
	Done     int64  // bytes of it that were dealt with
	Total    int64  // bytes
}

// CopyOptions are the choices of [Copy]. The zero value means the defaults.
type CopyOptions struct {
	Snapshots bool  // all named snapshots, not only the last state
	ChunkSize int64 // bytes, of the copy; 0: that of the original
	NoVerify  bool
	Workers   int // parts that are copied at once, each with 512 KiB of memory; 0: 4
	// Checkpoint is how many bytes are read between two moments from which an interrupted copy goes on; 0: 1 GiB.
	Checkpoint int64
	// Pin makes the pin on what is copied, as [catalog.Pool.Pin] does, and returns its id; it may have another process do it that holds the
	// volume. nil: the pool makes it.
	Pin func(ctx context.Context, keep time.Duration) (chunk.VolumeID, error)
	// Progress, if not nil, is called by one goroutine at a time.
	Progress func(Work)
}

// Copied is what [Copy] did.
type Copied struct {
	Info       catalog.Info // of the copy
	Snapshots  []string     // that the copy has, the oldest first
	Written    int64        // bytes that were written now; what an earlier, interrupted try wrote does not count
	Resumed    bool         // an interrupted copy was finished
	Unverified []string     // snapshots that were removed from the original before they could be compared
	Kept       bool         // with an error: there is something that the same call goes on with
}

// Copy makes the volume name in the pool to a copy of a volume or snapshot in the pool from, which may be the same pool: by content, whatever
// the two pools, chunk sizes and parents are. The copy appears under its name when all of it is there, durable, and equal to the original by its
// hash; until then the name is reserved. When Copy fails, but for a mismatch, or is cut off in any way, what was copied is kept for CopyKeep: the
// same call goes on with it, Pool.Remove gives it up. A volume is copied as it was when the copy was begun.
//
// It fails with [hash.ErrMismatch] if the copy is not what the original is; then nothing is left of it. It fails with ErrOtherCopy if
// the name belongs to an interrupted copy of something else, and with [catalog.ErrNotFound] if what an interrupted copy is of is gone.
func Copy(ctx context.Context, from *catalog.Pool, r catalog.Ref, to *catalog.Pool, name string, o CopyOptions) (Copied, error) {
	if o.Workers <= 0 {
		o.Workers = defaultWorkers
	}
	if o.Checkpoint <= 0 {
		o.Checkpoint = defaultCheckpoint
	}
	if o.Progress == nil {
		o.Progress = func(Work) {}
	}
	if o.Pin == nil {
		o.Pin = func(ctx context.Context, keep time.Duration) (chunk.VolumeID, error) {
			info, err := from.Pin(ctx, r, keep)
			return info.ID, err
		}
	}
	c := copier{o: o, from: from, ref: r, to: to, name: name}
	if err := c.run(ctx); err != nil {
		return Copied{Kept: c.result.Kept}, fmt.Errorf("copy %v to %s: %w", r, name, err)
	}
	return c.result, nil
}

// copier is one run of Copy.
type copier struct {
	o        CopyOptions
	from, to *catalog.Pool
	ref      catalog.Ref
	name     string

	pin    *catalog.HeldPin
	target *catalog.Creation
	origin catalog.Origin // as the target says it
	result Copied
}

func (c *copier) run(ctx context.Context) (err error) {
	if err := c.begin(ctx); err != nil {
		return err
	}
	err = c.fill(ctx)
	cleanup := context.WithoutCancel(ctx)
	switch {
	case err == nil:
		// A commit that fails leaves nothing of the copy, so it is not interrupted: little is left to do. Either way nothing is to be gone on
		// with, and a pin that is left ends by itself.
		c.result.Info, err = c.target.Commit(cleanup)
		return errors.Join(err, c.pin.End(cleanup))
	case errors.Is(err, hash.ErrMismatch):
		return errors.Join(err, c.target.Abort(cleanup), c.pin.End(cleanup))
	}
	c.result.Kept = true
	return errors.Join(err, c.target.Suspend(cleanup), c.pin.Release(cleanup))
}

// begin goes on with an interrupted copy, or begins one.
func (c *copier) begin(ctx context.Context) error {
	id, err := c.from.Lookup(ctx, c.ref.Volume)
	if err != nil {
		return err
	}
	all, err := c.from.Snapshots(ctx, id)
	if err != nil {
		return err
	}
	c.target, err = c.to.Resume(ctx, c.name, CopyKeep, func(source []byte) error {
		origin, err := catalog.DecodeOrigin(source)
		if err != nil || !c.is(origin, id, all) {
			return fmt.Errorf("volume %s: %w: go on with that, or give it up with: skerry rm %s", c.name, ErrOtherCopy, c.name)
		}
		return nil
	})
	switch {
	case err == nil:
		return c.resume(ctx)
	case !errors.Is(err, catalog.ErrNotFound):
		return err
	}
	if _, err := c.to.Lookup(ctx, c.name); err == nil {
		return fmt.Errorf("volume %s: %w; choose another name", c.name, catalog.ErrExists)
	} else if !errors.Is(err, catalog.ErrNotFound) {
		return err
	}
	return c.start(ctx)
}

// is reports whether an interrupted copy is that of what is to be copied now. id is the volume's, all are its snapshots.
func (c *copier) is(o catalog.Origin, id chunk.VolumeID, all []*mapper.Snapshot) bool {
	if o.Pool != c.from.ID() || o.Volume != id || o.All != c.o.Snapshots || o.Hidden != (c.ref.Snapshot == "") {
		return false
	}
	return o.Hidden || slices.ContainsFunc(all, func(s *mapper.Snapshot) bool { return s.Serial == o.Snapshot && s.Name == c.ref.Snapshot })
}

// resume holds again what an interrupted copy is of.
func (c *copier) resume(ctx context.Context) error {
	var err error
	c.origin, err = catalog.DecodeOrigin(c.target.Source())
	if err == nil {
		c.pin, err = c.from.OpenPin(ctx, c.origin.Pin, CopyKeep)
	}
	if errors.Is(err, catalog.ErrNotFound) {
		err = fmt.Errorf("what the interrupted copy is of is gone: give it up with skerry rm %s, and begin anew: %w", c.name, catalog.ErrNotFound)
	}
	if err != nil {
		return errors.Join(err, c.target.Suspend(context.WithoutCancel(ctx)))
	}
	if c.o.ChunkSize != 0 && c.o.ChunkSize != c.target.Device().ChunkSize() {
		return errors.Join(fmt.Errorf("volume %s: %w: one with chunks of %d bytes", c.name, ErrOtherCopy, c.target.Device().ChunkSize()),
			c.target.Suspend(context.WithoutCancel(ctx)), c.pin.Release(context.WithoutCancel(ctx)))
	}
	c.result.Resumed = true
	return nil
}

// start begins a copy.
func (c *copier) start(ctx context.Context) error {
	id, err := c.o.Pin(ctx, pinTime)
	if err != nil {
		return err
	}
	if c.pin, err = c.from.OpenPin(ctx, id, CopyKeep); err != nil {
		return errors.Join(err, c.from.EndPin(context.WithoutCancel(ctx), id))
	}
	info := c.pin.Info()
	c.origin = catalog.Origin{
		Pool: c.from.ID(), Volume: info.Volume, Snapshot: info.Snapshot, Pin: info.ID, Hidden: c.ref.Snapshot == "", All: c.o.Snapshots,
	}
	o := catalog.CreateOptions{ChunkSize: c.o.ChunkSize, Keep: CopyKeep, Source: c.origin.Encode()}
	if o.ChunkSize == 0 {
		o.ChunkSize = c.pin.Snapshot().Geometry.Size()
	}
	stages, err := c.stages(ctx)
	if err == nil {
		o.Size = stages[0].Size
		c.target, err = c.to.Begin(ctx, c.name, o)
	}
	if err != nil {
		return errors.Join(err, c.pin.End(context.WithoutCancel(ctx)))
	}
	return nil
}

// stages returns the snapshots to be copied, one after the other. The last one is what the copy is in the end.
func (c *copier) stages(ctx context.Context) ([]*mapper.Snapshot, error) {
	last := c.pin.Snapshot()
	if !c.o.Snapshots {
		return []*mapper.Snapshot{last}, nil
	}
	all, err := c.from.Snapshots(ctx, last.Volume)
	all = slices.DeleteFunc(all, func(s *mapper.Snapshot) bool { return s.Serial >= last.Serial || s.Hidden() || s.Deleting })
	return append(all, last), err
}

// snapshotName returns the name that the copy of a snapshot has; "": it has none.
func (c *copier) snapshotName(s *mapper.Snapshot) string {
	if !c.o.Snapshots {
		return ""
	}
	return s.Name
}

// fill copies what is missing and compares all.
func (c *copier) fill(ctx context.Context) error {
	stages, err := c.stages(ctx)
	if err != nil {
		return err
	}
	there, err := c.target.Snapshots(ctx)
	if err != nil {
		return err
	}
	copied := func(s *mapper.Snapshot) bool {
		name := c.snapshotName(s)
		return name != "" && slices.ContainsFunc(there, func(t *mapper.Snapshot) bool { return t.Name == name })
	}
	var base *mapper.Snapshot // what the copy has
	for _, s := range stages {
		if copied(s) {
			base = s
			continue
		}
		if err := c.stage(ctx, base, s, len(there) > 0); err != nil {
			return fmt.Errorf("%s: %w", c.describe(s), err)
		}
		base = s
	}
	for _, s := range there {
		if !slices.ContainsFunc(stages, func(t *mapper.Snapshot) bool { return t.Name == s.Name }) {
			c.result.Unverified = append(c.result.Unverified, s.Name)
		}
	}
	if there, err = c.target.Snapshots(ctx); err != nil {
		return err
	}
	for _, s := range there {
		c.result.Snapshots = append(c.result.Snapshots, s.Name)
	}
	if c.o.NoVerify {
		return nil
	}
	return c.verify(ctx, stages, there)
}

func (c *copier) describe(s *mapper.Snapshot) string {
	if s.Name == "" {
		return "volume " + c.ref.Volume
	}
	return "snapshot " + s.Name
}

// stage makes the copy equal to one snapshot. base is the one that it equals, if it is known.
func (c *copier) stage(ctx context.Context, base, s *mapper.Snapshot, begun bool) error {
	m := matching{workers: c.o.Workers, every: c.o.Checkpoint}
	at := c.origin.Stage
	switch {
	case at == s.Serial:
		m.start = c.origin.Done
	case base != nil && at != base.Serial:
		base = nil // of a snapshot that was removed meanwhile a part was copied
	}
	if base == nil && begun {
		m.start = 0
	}
	dev, err := c.from.OpenSerial(ctx, s.Volume, s.Serial)
	if err != nil {
		return c.missing(ctx, s, err)
	}
	defer func() { _ = dev.Close(context.WithoutCancel(ctx)) }() // it was only read
	mark := func(ctx context.Context, done int64) error {
		c.origin.Stage, c.origin.Done = s.Serial, done
		return c.target.Checkpoint(ctx, c.origin.Encode())
	}
	if at != s.Serial {
		if err := mark(ctx, 0); err != nil {
			return err
		}
	}
	if c.target.Device().Size() != s.Size {
		if err := c.target.Device().Resize(ctx, s.Size); err != nil {
			return err
		}
	}
	if base != nil {
		m.changes = func(ctx context.Context, fn func(volume.Extent) error) error { return c.from.Changes(ctx, base, s, fn) }
	}
	name := c.snapshotName(s)
	m.from, m.to, m.mark = dev, c.target.Device(), mark
	m.report = func(done int64) { c.o.Progress(Work{Snapshot: name, Done: done, Total: s.Size}) }
	n, err := m.match(ctx)
	c.result.Written += n
	if err != nil {
		return c.missing(ctx, s, err)
	}
	if name != "" {
		_, err = c.target.Device().Snapshot(ctx, name)
	}
	return err
}

// missing tells of a snapshot that was removed while it was read, which is no damage.
func (c *copier) missing(ctx context.Context, s *mapper.Snapshot, err error) error {
	if !errors.Is(err, drivers.ErrNotFound) {
		return err
	}
	all, again := c.from.Snapshots(context.WithoutCancel(ctx), s.Volume)
	if again != nil || slices.ContainsFunc(all, func(t *mapper.Snapshot) bool { return t.Serial == s.Serial && !t.Deleting }) {
		return err
	}
	return fmt.Errorf("it was removed meanwhile; the same command goes on without it: %w", catalog.ErrNotFound)
}

// verify compares the snapshots of the copy, and what it is now, with the originals.
func (c *copier) verify(ctx context.Context, stages, there []*mapper.Snapshot) error {
	for i, s := range stages {
		dev, err := c.from.OpenSerial(ctx, s.Volume, s.Serial)
		if err != nil {
			return c.missing(ctx, s, err)
		}
		err = c.compare(ctx, s, dev, i == len(stages)-1, there)
		_ = dev.Close(context.WithoutCancel(ctx)) // it was only read
		if err != nil {
			return fmt.Errorf("%s: %w", c.describe(s), err)
		}
	}
	return nil
}

// compare compares one snapshot with its copies.
func (c *copier) compare(ctx context.Context, s *mapper.Snapshot, dev *volume.Device, last bool, there []*mapper.Snapshot) error {
	name := c.snapshotName(s)
	progress := hash.Options{Workers: c.o.Workers, Progress: func(done, total int64) {
		c.o.Progress(Work{Verify: true, Snapshot: name, Done: done, Total: total})
	}}
	want, err := hash.Of(ctx, dev, progress)
	if err != nil {
		return c.missing(ctx, s, err)
	}
	check := func(of hash.Origin) error {
		got, err := hash.Of(ctx, of, progress)
		if err == nil && got != want {
			err = fmt.Errorf("the copy is not equal to it: %w", hash.ErrMismatch)
		}
		return err
	}
	if last {
		if err := check(c.target.Device()); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(there, func(t *mapper.Snapshot) bool { return t.Name == name })
	if name == "" || i < 0 {
		return nil
	}
	copied, err := c.to.OpenSerial(ctx, there[i].Volume, there[i].Serial)
	if err != nil {
		return err
	}
	err = check(copied)
	return errors.Join(err, copied.Close(context.WithoutCancel(ctx)))
}
