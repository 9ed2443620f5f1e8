package journal

import (
	"cmp"
	"context"
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
	// PowerLost: only what was synced is sure to be there. Deltas count that a flush covers or that count by
	// themselves, and the last data of each block.
	PowerLost
	// PowerLostDurable is PowerLost on storage whose completed writes are durable. Objects were
	// written before the journal, so that all deltas count and no data is needed.
	PowerLostDurable
)

// Change is a delta that counts.
type Change struct {
	Object     Object
	First, End int // blocks
	Zero       bool
	Durable    bool
	Seq        uint64 // of its frame
}

// Block is the data of one block that must be written to its object.
type Block struct {
	Object Object
	Block  int
	Data   []byte
}

// State is what a journal adds to the map and the objects.
type State struct {
	Deltas  []Change // in the order of the journal
	Blocks  []Block  // only with PowerLost; by object and block, each once
	Objects []Object // all that touches, deltas and data name, also if they do not count; sorted, each once
	End     Position
	Frames  int
	Boot    [16]byte // of the last frame
}

// Fold reads a journal from start and returns what counts of it. It needs memory in
// proportion to the journal's size. Errors are those of [Read].
func Fold(ctx context.Context, store Store, vol chunk.VolumeID, generation uint32, start Position, mode Mode) (*State, error) {
	f := folder{mode: mode}
	end, err := Read(ctx, store, vol, generation, start, f.frame)
	if err != nil {
		return nil, err
	}
	f.state.End = end
	f.finish()
	return &f.state, nil
}

// event is what sets or voids the journal's data of some blocks.
type event struct {
	object     Object
	first, end int
	at         uint64 // sequence of the last frame that is older, or its own
	order      int    // place in the journal
	data       []byte // nil: void
}

// folder collects the entries of a journal.
type folder struct {
	mode    Mode
	state   State
	events  []event
	counted int    // events that a flush entry follows
	covered uint64 // the highest frame that a flush covers
	entries int
}

// frame takes one frame.
func (f *folder) frame(fr Frame) error {
	f.state.Frames++
	f.state.Boot = fr.Boot
	for e := range fr.Entries() {
		f.entries++
		f.entry(e, fr.Seq)
	}
	return nil
}

// entry takes one entry of frame seq.
func (f *folder) entry(e Entry, seq uint64) {
	at := e.AsOf
	if at == 0 {
		at = seq
	}
	switch e.Kind {
	case Touch:
		f.name(e.Object)
	case Delta:
		f.name(e.Object)
		f.state.Deltas = append(f.state.Deltas, Change{
			Object: e.Object, First: e.First, End: e.End, Zero: e.Zero, Durable: e.Durable, Seq: seq,
		})
		if e.Zero && f.mode == PowerLost {
			f.zeros = append(f.zeros, event{object: e.Object, first: e.First, end: e.End, at: seq, order: f.entries})
		}
	}
	_ = at
	_ = cmp.Compare[int]
	_ = slices.Max[[]int]
}
