package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/hash"
)

// ErrNoBase says that a volume has no snapshot that a delta could be applied to.
var ErrNoBase = fmt.Errorf("no snapshot with the content that the delta begins with: %w", catalog.ErrNotFound)

// ApplyOptions are the choices of [ApplyDelta].
type ApplyOptions struct {
	Rollback bool // what was written to the volume since the snapshot that the delta begins with is lost
	// Progress, if not nil, is called by one goroutine at a time: with what is hashed, and how far the content is that the delta makes.
	Progress func(Work)
}

// Applied says what applying a delta did.
type Applied struct {
	Base     string // name of the snapshot of the volume that the delta was applied to
	Snapshot catalog.SnapshotInfo
	Data     int64 // bytes that were written
	Zero     int64 // bytes that became zeros
	Present  bool  // the volume had the snapshot already: nothing was applied
}

// OpenDeltaFile opens the delta that f reads, from where f stands. ctx ends also a read that waits for a pipe.
func OpenDeltaFile(ctx context.Context, f *os.File) (*Delta, error) {
	d, err := OpenDelta((&pipe{f: f}).reader(ctx))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return d, nil
}

// ApplyDelta makes a volume that has a snapshot with the content that the delta begins with, under whatever name, to what the delta ends with, and takes the
// snapshot of that, under the name that it had: both or nothing. The result is compared with the content hash of the delta before it shows. It can be repeated after any
// interruption; a volume that has the snapshot already is left as it is. It fails with ErrNoBase without such a snapshot, with
// [catalog.ErrChanged] if the volume was written since, with [catalog.ErrExists] if it has another snapshot of that name, with ErrDamaged and ErrShort
// if the delta is not whole, and with [catalog.ErrInUse] if a process holds the volume.
func ApplyDelta(ctx context.Context, p *catalog.Pool, name string, d *Delta, o ApplyOptions) (Applied, error) {
	if o.Progress == nil {
		o.Progress = func(Work) {}
	}
	a := applier{p: p, name: name, d: d, o: o}
	if err := a.apply(ctx); err != nil {
		return Applied{}, fmt.Errorf("apply delta %s to %s onto %s: %w", d.Header.From, d.Header.To, name, err)
	}
	return a.result, nil
}

type applier struct {
	p      *catalog.Pool
	name   string
	d      *Delta
	o      ApplyOptions
	result Applied
}

func (a *applier) apply(ctx context.Context) error {
	h := a.d.Header
	id, err := a.p.Lookup(ctx, a.name)
	if err != nil {
		return err
	}
	all, err := a.p.Snapshots(ctx, id)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(s *mapper.Snapshot) bool { return s.Hidden() || s.Deleting })
	target := catalog.Ref{Volume: a.name, Snapshot: h.To}
	if i := slices.IndexFunc(all, func(s *mapper.Snapshot) bool { return s.Name == h.To }); i >= 0 {
		is, err := a.is(ctx, all[i], h.ToSize, h.ToSum)
		if err != nil {
			return err
		}
		if !is {
			return fmt.Errorf("volume %s has another snapshot %s: %w; rename or remove it", a.name, h.To, catalog.ErrExists)
		}
		return a.finish(ctx, all, all[i], target)
	}
	base, err := a.base(ctx, all)
	if err != nil {
		return err
	}
	if base == nil {
		return fmt.Errorf("volume %s: %w", a.name, ErrNoBase)
	}
	a.result.Base = base.Name
	a.result.Snapshot, err = a.p.Update(ctx, target, catalog.UpdateOptions{Base: base.Serial, Rollback: a.o.Rollback}, func(dev *volume.Device) error {
		return a.fill(ctx, dev)
	})
	if errors.Is(err, catalog.ErrChanged) {
		err = fmt.Errorf("%w; --rollback gives up what was written", err)
	}
	return err
}

// is reports whether a snapshot has a content.
func (a *applier) is(ctx context.Context, s *mapper.Snapshot, size int64, sum hash.Sum) (bool, error) {
	if s.Size != size {
		return false, nil
	}
	dev, err := a.p.OpenSerial(ctx, s.Volume, s.Serial)
	if err != nil {
		return false, err
	}
	defer closeReader(ctx, dev)
	got, err := sumOf(ctx, dev, s.Name, a.o.Progress)
	return got == sum, err
}

// base returns the snapshot that the delta begins with, nil if there is none. One of the right name is looked at first, then the newest.
func (a *applier) base(ctx context.Context, all []*mapper.Snapshot) (*mapper.Snapshot, error) {
	h := a.d.Header
	all = slices.Clone(all)
	slices.Reverse(all)
	slices.SortStableFunc(all, func(s, t *mapper.Snapshot) int {
		switch {
		case s.Name == h.From && t.Name != h.From:
			return -1
		case t.Name == h.From && s.Name != h.From:
			return 1
		}
		return 0
	})
	for _, s := range all {
		if is, err := a.is(ctx, s, h.FromSize, h.FromSum); is || err != nil {
			return s, err
		}
	}
	return nil, nil
}

// finish brings a volume that has the snapshot to it, if it is still what it was before that: then an earlier try was cut off there.
func (a *applier) finish(ctx context.Context, all []*mapper.Snapshot, s *mapper.Snapshot, target catalog.Ref) error {
	var err error
	a.result.Present = true
	if a.result.Snapshot, err = a.p.SnapshotInfo(ctx, target); err != nil {
		return err
	}
	if all[len(all)-1] != s {
		return nil // the volume went on from there
	}
	base, err := a.base(ctx, all)
	if base == nil || err != nil {
		return err
	}
	unchanged, err := a.p.Unchanged(ctx, a.name, base)
	if errors.Is(err, catalog.ErrInUse) {
		return nil // somebody goes on from there
	}
	if err != nil || !unchanged {
		return err
	}
	return a.p.Rollback(ctx, target)
}

// fill makes dev, which has the content that the delta begins with, to what it ends with.
func (a *applier) fill(ctx context.Context, dev *volume.Device) error {
	h := a.d.Header
	if h.ToSize != dev.Size() {
		if err := dev.Resize(ctx, h.ToSize); err != nil {
			return err
		}
	}
	w := matcher{m: &matching{to: dev}}
	err := a.d.each(ctx, func(off, n int64, data []byte) error {
		a.o.Progress(Work{Snapshot: h.To, Done: off, Total: h.ToSize})
		if data == nil {
			a.result.Zero += n
			return w.zero(ctx, off, n)
		}
		a.result.Data += n
		return dev.WriteAt(ctx, data, off)
	})
	if err != nil {
		return err
	}
	got, err := sumOf(ctx, dev, h.To, a.o.Progress)
	if err == nil && got != h.ToSum {
		err = fmt.Errorf("the result is not what the delta ends with: %w", hash.ErrMismatch)
	}
	return err
}
