package volume

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/mapper/journal"
)

// ensureJournal makes the volume's journal before the first change. The caller is inside the gate.
func (d *Device) ensureJournal(ctx context.Context) error {
	if d.journal.Load() != nil {
		return nil
	}
	d.making.Lock()
	defer d.making.Unlock()
	if d.journal.Load() != nil {
		return nil
	}
	w, err := d.newJournal(ctx, d.o.JournalSize, 1)
	if err != nil {
		return err
	}
	d.journal.Store(w)
	return nil
}

// newJournal makes a journal and lets the root name it, after those that it names already.
func (d *Device) newJournal(ctx context.Context, size int64, firstSeq uint64) (*journal.Writer, error) {
	s, err := d.lease.NextSerial()
	if err != nil {
		return nil, err
	}
	generation := d.lease.Root().Generation
	w, err := journal.Create(ctx, journal.Config{
		Store: d.guest, Volume: d.id, Generation: generation, Boot: d.o.Boot, Object: s, Size: size, FirstSeq: firstSeq, Lease: context.Background(),
	})
	name := chunk.SerialName(d.id, chunk.Journals, s)
	remove := func() {
		if err := d.guest.Unlink(context.WithoutCancel(ctx), name); err != nil && !errors.Is(err, drivers.ErrNotFound) {
			d.garbage.add(name)
		}
	}
	if err != nil {
		remove()
		return nil, fmt.Errorf("make a journal: %w", err)
	}
	var vain []mapper.JournalRef
	err = d.lease.Switch(ctx, func(r *mapper.Root) {
		if d.journal.Load() == nil {
			// Nothing was appended to those that an earlier try left.
			vain, r.Journals = r.Journals, nil
			r.Failed = d.Err() != nil
		}
		r.Journals = append(r.Journals, mapper.JournalRef{Generation: generation, Boot: d.o.Boot, Start: w.Head()})
	})
	if err != nil {
		if !isUnknown(err) {
			remove() // the next try makes another, and where the storage is full there would soon be no room for it
		}
		return nil, fmt.Errorf("make a journal: %w", err)
	}
	for _, j := range vain {
		d.garbage.add(chunk.SerialName(d.id, chunk.Journals, j.Start.Object))
	}
	return w, nil
}

// seqGap is more than the frames that a journal can hold: one that begins so far above another continues it, whatever
// is appended to that one until it is followed.
const seqGap = journal.MaxSize / journal.Align * 2

// mostJournals is how many journals are in use at once: each is so much larger than the one before it that
// the last one makes most of the time that replay takes.
const mostJournals = 3

// grow goes on with a larger journal, if the one in use is not large enough: then fewer cuts are needed, and each syncs an
// object once however often it was changed. What the journals before it say is part of the redo log until the next cut. It returns
// false if it has changed nothing.
func (d *Device) grow(ctx context.Context) (grown bool, err error) {
	c := &d.cutter
	if err := c.begin(ctx); err != nil {
		return false, err
	}
	defer c.end()
	w := d.journal.Load()
	if d.Err() != nil || w == nil || w.Size() >= d.o.JournalLimit {
		return false, nil
	}
	named := d.lease.Root().Journals
	if n := len(named); n == 0 || n >= mostJournals || named[n-1].Start.Object != w.Head().Object {
		return false, nil // one that an earlier try made follows w: another need not come after that one
	}
	next, err := d.newJournal(ctx, min(4*w.Size(), d.o.JournalLimit), w.Last()+seqGap)
	if err != nil {
		return false, err
	}
	if err := d.gate.close(ctx); err != nil {
		d.log.Debug("a larger journal is not used", "err", err)
		return false, nil // the cut removes it
	}
	defer d.gate.open()
	if err := d.follow(ctx, w, next); err != nil {
		return false, err
	}
	c.tell(nil)
	return true, nil
}

// follow makes next the journal. No change is under way. What w holds is made durable first, since flushes
// that next will record cover it.
func (d *Device) follow(ctx context.Context, w, next *journal.Writer) error {
	if err := w.Sync(ctx, w.Last()); err != nil {
		if ctx.Err() != nil && w.Err() == nil {
			return err // it is only slow; w goes on
		}
		return d.fail(fmt.Errorf("sync the journal: %w", err))
	}
	d.journal.Store(next)
	return nil
}
