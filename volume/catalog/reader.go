package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
)

// reading makes it known that this process reads a snapshot, and then makes sure that the snapshot is still there: its
// remover flags it first, and looks for readers then. The result ends that; it is called once. Where the pool cannot be written nobody
// knows of it, and nobody can remove the snapshot from there.
func (p *Pool) reading(ctx context.Context, s *mapper.Snapshot, r Ref) (end func(context.Context), err error) {
	name := ""
	err = p.WithReserve(ctx, func() (err error) {
		name, err = p.makeReader(ctx, s)
		return err
	})
	switch {
	case err == nil:
	case errors.Is(err, drivers.ErrReadOnly):
		p.log.Debug("the snapshot is read without anybody knowing, since the pool cannot be written", "err", err)
	case errors.Is(err, drivers.ErrNoSpace):
		p.log.Warn("the snapshot is read without anybody knowing: nothing keeps others from removing it", "volume", s.Volume.String(), "err", err)
	default:
		return nil, err
	}
	end = func(ctx context.Context) { p.endReader(ctx, name) }
	again, err := p.loadSnapshot(ctx, s.Volume, s.Serial)
	switch {
	case errors.Is(err, drivers.ErrNotFound):
		err = notFound(r)
	case err == nil && again.Deleting:
		err = removing(r)
	}
	if err != nil {
		end(ctx)
		return nil, err
	}
	return end, nil
}

// makeReader makes the record that says that this process reads a snapshot, and returns its name.
func (p *Pool) makeReader(ctx context.Context, s *mapper.Snapshot) (string, error) {
	holder, err := p.instance.Appear(ctx)
	if err != nil {
		return "", fmt.Errorf("make it known that the snapshot is read: %w", err)
	}
	name := chunk.ReaderName(s.Volume, s.Serial, holder.Instance, p.reads.Add(1))
	p.mu.Lock()
	p.readers[name] = true
	p.mu.Unlock()
	record := mapper.ReaderRecord{Volume: s.Volume, Snapshot: s.Serial, Process: holder}
	if err := p.client.Replace(ctx, name, record.Encode(), drivers.Condition{Absent: true}); err != nil {
		p.endReader(ctx, name)
		return "", fmt.Errorf("make it known that the snapshot is read: %w", err)
	}
	return name, nil
}

// endReader removes such a record. One that stays counts for nobody once this process has ended, and at once in this process.
func (p *Pool) endReader(ctx context.Context, name string) {
	if name == "" {
		return
	}
	err := p.client.Unlink(context.WithoutCancel(ctx), name)
	p.mu.Lock()
	delete(p.readers, name)
	p.mu.Unlock()
	if err != nil && !errors.Is(err, drivers.ErrNotFound) && !errors.Is(err, drivers.ErrReadOnly) {
		p.log.Debug("record of a reader is left for gc", "object", name, "err", err)
	}
}

// Reader is a process that reads a snapshot.
type Reader struct {
	Record   string // name of the object that says so
	Snapshot chunk.Serial
	Process  locking.Holder
	Alive    bool // the process lives, or nobody can tell
}

// Readers returns who reads snapshots of a volume, also processes that have died since.
func (p *Pool) Readers(ctx context.Context, id chunk.VolumeID) ([]Reader, error) {
	var all []Reader
	err := p.client.List(ctx, chunk.GroupName(id, chunk.Readers), func(info drivers.Info) error {
		if snap, instance, _, ok := chunk.ParseReaderName(info.Name); ok {
			all = append(all, Reader{Record: info.Name, Snapshot: snap, Process: locking.Holder{Instance: instance}})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list readers of snapshots of volume %v: %w", id, err)
	}
	for i := range all {
		if err := p.ask(ctx, &all[i]); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(all, func(r Reader) bool { return r.Record == "" }), nil
}

// ask finds out who a reader is and whether it lives. One that is gone meanwhile loses its record.
func (p *Pool) ask(ctx context.Context, reader *Reader) error {
	b, err := p.client.Load(ctx, reader.Record)
	if errors.Is(err, drivers.ErrNotFound) {
		reader.Record = ""
		return nil
	}
	if err != nil {
		return fmt.Errorf("reader of a snapshot: %w", err)
	}
	// The object's name says which process it is, the content only what people call it.
	if r, err := mapper.DecodeReaderRecord(b); err == nil && r.Process.Instance == reader.Process.Instance {
		reader.Process = r.Process
	}
	if reader.Process.Instance == p.instance.Nonce() {
		p.mu.Lock()
		reader.Alive = p.readers[reader.Record]
		p.mu.Unlock()
		return nil
	}
	reader.Alive, err = p.instance.Alive(ctx, reader.Process)
	if errors.Is(err, errors.ErrUnsupported) {
		// Nobody can tell, but a host that was started anew has no process of before.
		me := p.o.Identity
		reader.Alive, err = reader.Process.HostID != me.HostID || reader.Process.Boot == me.Boot, nil
	}
	return err
}

// readers returns who reads snapshots of the held volume, by a fresh list of their records. Those of dead processes are removed.
func (h *Held) readers(ctx context.Context, serials map[chunk.Serial]bool) ([]string, error) {
	all, err := h.pool.Readers(ctx, h.id)
	if err != nil {
		return nil, err
	}
	var readers []string
	for _, reader := range all {
		switch {
		case !reader.Alive:
			if err := h.Client(drivers.LaneMeta).Unlink(ctx, reader.Record); err != nil && !errors.Is(err, drivers.ErrNotFound) {
				return nil, fmt.Errorf("remove record of a dead reader: %w", err)
			}
		case serials[reader.Snapshot]:
			readers = append(readers, readerText(reader.Process))
		}
	}
	slices.Sort(readers)
	return slices.Compact(readers), nil
}

func readerText(r locking.Holder) string {
	if r.Host == "" {
		return fmt.Sprintf("instance %x", r.Instance)
	}
	return fmt.Sprintf("process %d on host %s", r.PID, r.Host)
}

func hasReaders(r Ref, readers []string) error {
	if len(readers) == 0 {
		return nil
	}
	return tell(ErrInUse, "%s: in use: it is being read by %s; end that first", r.thing(), strings.Join(readers, ", "))
}
