package journal

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"skerry/chunk"
)

// Mode says what happened to the storage since the journal was written, and so what
// [Fold] lets count.
type Mode uint8

// The modes of Fold.
const (
	// ProcessDied: all that was written is still there, and objects are newer than the
	// journal's data. All deltas count, no data does.
	ProcessDied Mode = iota
	// PowerLost: only what was synced is sure to be there. Deltas count that a flush covers or that
	// are durable by themselves, and the last data of each block.
	PowerLost
	// PowerLostDurable is PowerLost on storage whose completed writes are durable. Objects were
	// written before the journal, so all deltas count and no data is needed.
	PowerLostDurable
)

// Delta is a change of the map that counts.
type Delta struct {
	Object     Object
	First, End int    // blocks
	Zero       bool   // the blocks hold zeros
	Durable    bool   // it counts by itself
	Seq        uint64 // of its frame
}

// Block is the content that a block of an object must have.
type Block struct {
	Object Object
	Block  int
	Data   []byte // chunk.BlockSize bytes
}

// State is what a journal adds to the map and to the objects.
type State struct {
	Deltas  []Delta  // in the order of the journal
	Blocks  []Block  // only with PowerLost; sorted by object and block, each once
	Objects []Object // all that touches, deltas and data name, also where they do not count; sorted, each once
	End     Position
	Frames  int
	Boot    [16]byte // of the last frame
}

// Source is one of the journals of a volume, from Start on.
type Source struct {
	Generation uint32 // of the grant that wrote it
	Start      Position
}

// Fold reads journals that continue one another, each with sequences above those of the one before, and returns what of them
// counts. It needs memory in proportion to their size. Its errors are those of [Read].
func Fold(ctx context.Context, store Store, vol chunk.VolumeID, mode Mode, sources ...Source) (*State, error) {
	f := folder{mode: mode}
	for _, s := range sources {
		if s.Start.Seq <= f.state.End.Seq && !f.state.End.IsZero() {
			return nil, fmt.Errorf("fold journal %v: sequence %d comes after %d: %w", s.Start.Object, s.Start.Seq, f.state.End.Seq, ErrDamaged)
		}
		end, err := Read(ctx, store, vol, s.Generation, s.Start, f.frame)
		if err != nil {
			return nil, err
		}
		f.state.End = end
	}
	f.finish()
	return &f.state, nil
}

// event sets the data of some blocks of an object, or makes older data void.
type event struct {
	object     Object
	first, end int
	at         uint64 // sequence of the last frame that is older than this, or is its own
	order      int    // its place among all entries
	durable    bool   // zeros: the delta counts by itself
	data       []byte // nil: older data is void
}

// compare orders events by object, then from the oldest.
func (e event) compare(o event) int {
	return cmp.Or(e.object.compare(o.object), cmp.Compare(e.at, o.at), cmp.Compare(e.order, o.order))
}

// compare orders objects by chunk, then serial.
func (o Object) compare(p Object) int {
	return cmp.Or(cmp.Compare(o.Chunk, p.Chunk), cmp.Compare(o.Serial, p.Serial))
}

// folder collects what the frames of a journal say.
type folder struct {
	mode    Mode
	state   State
	events  []event
	counted int     // how many of events a flush entry follows
	zeros   []event // of the deltas with zeros
	covered uint64  // the last frame that a flush covers
	order   int
}

// frame takes one frame.
func (f *folder) frame(fr Frame) error {
	f.state.Frames++
	f.state.Boot = fr.Boot
	for e := range fr.Entries() {
		f.order++
		f.entry(e, fr.Seq)
	}
	return nil
}

// entry takes one entry of frame seq.
func (f *folder) entry(e Entry, seq uint64) {
	if e.Kind == KindTouch || e.Kind == KindDelta || e.Kind == KindData {
		f.object(e.Object)
	}
	if e.Kind == KindDelta {
		f.state.Deltas = append(f.state.Deltas, Delta{
			Object: e.Object, First: e.First, End: e.End, Zero: e.Zero, Durable: e.Durable, Seq: seq,
		})
	}
	if f.mode != PowerLost {
		return
	}
	ev := event{object: e.Object, first: e.First, end: e.End, at: seq, order: f.order}
	if e.Before != 0 {
		ev.at = e.Before - 1
	}
	switch e.Kind {
	case KindDelta:
		if e.Zero {
			ev.durable = e.Durable
			f.zeros = append(f.zeros, ev)
		}
	case KindData:
		ev.data = slices.Clone(e.Data)
		f.events = append(f.events, ev)
	case KindSupersede:
		f.events = append(f.events, ev)
	case KindFlush:
		f.counted = len(f.events)
		f.covered = max(f.covered, e.Covers)
	}
}

// object notes that o was named. Whenever the memory is full, what is there twice goes.
func (f *folder) object(o Object) {
	objects := f.state.Objects
	if n := len(objects); n > 0 && objects[n-1] == o {
		return
	}
	if len(objects) == cap(objects) {
		objects = unique(objects)
		if len(objects) > cap(objects)/2 {
			objects = slices.Grow(objects, max(len(objects), 64))
		}
	}
	f.state.Objects = append(objects, o)
}

// unique sorts objects in place and removes doubles.
func unique(objects []Object) []Object {
	slices.SortFunc(objects, Object.compare)
	return slices.Compact(objects)
}

// finish decides what counts.
func (f *folder) finish() {
	f.state.Objects = unique(f.state.Objects)
	if f.mode != PowerLost {
		return
	}
	f.state.Deltas = slices.DeleteFunc(f.state.Deltas, func(d Delta) bool {
		return d.Seq > f.covered && !d.Durable
	})
	events := f.events[:f.counted]
	for _, z := range f.zeros {
		if z.at <= f.covered || z.durable {
			events = append(events, z)
		}
	}
	slices.SortFunc(events, event.compare)
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].object == events[0].object {
			n++
		}
		f.state.Blocks = appendBlocks(f.state.Blocks, events[:n])
		events = events[n:]
	}
}

// appendBlocks appends the data that is left of one object's events, given from the oldest.
func appendBlocks(blocks []Block, events []event) []Block {
	if !slices.ContainsFunc(events, func(e event) bool { return e.data != nil }) {
		return blocks
	}
	set := chunk.NewBitmap(chunk.MaxBlocks)
	data := make(map[int][]byte)
	for _, e := range events {
		if e.data == nil {
			set.Clear(e.first, e.end)
			continue
		}
		set.Set(e.first, e.end)
		for i := e.first; i < e.end; i++ {
			off := (i - e.first) * chunk.BlockSize
			data[i] = e.data[off : off+chunk.BlockSize : off+chunk.BlockSize]
		}
	}
	for first, end := set.Run(0, chunk.MaxBlocks); first < end; first, end = set.Run(end, chunk.MaxBlocks) {
		for i := first; i < end; i++ {
			blocks = append(blocks, Block{Object: events[0].object, Block: i, Data: data[i]})
		}
	}
	return blocks
}
