package journal

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"skerry/chunk"
)

// The contract test runs a small volume over a journal: two objects, a few blocks, writes that are numbered. Steps of a flush
// lie between other operations in every order that the locks of a volume allow. Then the power goes, and
// what the journal gives back must hold all that a flush or a FUA write promised.

const contractBlocks = 5

// hole is the content of a block of the object that was never written: it must never show.
const hole = ^uint64(0)

// volumeModel is the volume. The content of a block is the number of its last write, 0 for zeros.
type volumeModel struct {
	t *testing.T
	r *rand.Rand
	s *memStore
	w *Writer

	start     Position
	base      [contractBlocks]blockState // the map as of start
	state     [contractBlocks]blockState // the map now
	cached    [contractBlocks][]uint64   // contents of its object since that was synced, oldest first: after a crash any of them
	dirty     [contractBlocks]bool
	journaled [contractBlocks]bool     // the journal holds data of the block
	history   [contractBlocks][]uint64 // all that the block held, oldest first
	promised  [contractBlocks]int      // index into history
	answered  [contractBlocks]int      // index into history: the last write that was answered
	number    uint64
	writes    [contractBlocks]writeModel
	flush     *flushModel
}

// writeModel is a write that runs and holds its block's lock until it was appended; step 0: none.
type writeModel struct {
	step    int
	fua     bool
	number  uint64
	history int
	seq     uint64
}

// locked reports whether a write holds the lock of block i.
func (v *volumeModel) locked(i int) bool { return v.writes[i].step > 0 && v.writes[i].step < 3 }

type blockState uint8

const (
	absent blockState = iota
	zero
	present
)

// flushModel is a flush that runs.
type flushModel struct {
	step     int
	promises [contractBlocks]int
	covers   uint64
	asOf     uint64
	set      [contractBlocks]bool
	batch    Batch
}

func newVolumeModel(t *testing.T, r *rand.Rand) *volumeModel {
	v := &volumeModel{t: t, r: r, s: newMemStore()}
	v.w = create(t, v.s, 512<<10)
	v.start = v.w.Head()
	for i := range contractBlocks {
		v.cached[i] = []uint64{hole}
		v.history[i] = []uint64{0}
	}
	return v
}

// content returns a block that holds n.
func content(n uint64) []byte {
	p := make([]byte, chunk.BlockSize)
	binary.LittleEndian.PutUint64(p, n)
	return p
}

func (v *volumeModel) append(b *Batch) uint64 { return add(v.t, v.w, b) }

// now returns the object's present content of block i.
func (v *volumeModel) now(i int) uint64 { return v.cached[i][len(v.cached[i])-1] }

// stepWrite does the next step of the write that holds block i's lock, or begins one; fua makes it durable.
func (v *volumeModel) stepWrite(i int, fua bool) {
	wr := &v.writes[i]
	switch wr.step++; wr.step {
	case 1:
		v.number++
		wr.fua, wr.number = fua, v.number
		v.cached[i] = append(v.cached[i], wr.number)
		v.history[i] = append(v.history[i], wr.number) // from now on the block may hold it
		wr.history = len(v.history[i]) - 1
	case 2:
		v.dirty[i] = true
	case 3:
		var b Batch
		if wr.fua || v.state[i] != present { // also over a delta that no flush covers yet
			b.Delta(objectOf(i), i, i+1, false, wr.fua)
		}
		if wr.fua {
			v.journaled[i] = true // in one step with the append: a cut between them would forget it
			b.Data(objectOf(i), i, content(wr.number))
			b.Flush(0)
		}
		if !b.Empty() {
			wr.seq = v.append(&b)
		}
		v.state[i] = present
		v.answered[i] = wr.history
		if !wr.fua {
			*wr = writeModel{}
		}
	case 4:
		v.sync(wr.seq)
		v.promised[i] = max(v.promised[i], wr.history)
		*wr = writeModel{}
	}
}

// zero discards block i under its lock.
func (v *volumeModel) zero(i int, fua bool) {
	var b Batch
	b.Delta(objectOf(i), i, i+1, true, fua)
	seq := v.append(&b)
	v.state[i] = zero
	v.history[i] = append(v.history[i], 0)
	v.answered[i] = len(v.history[i]) - 1
	if fua {
		v.sync(seq)
		v.promised[i] = v.answered[i]
	}
}

func (v *volumeModel) sync(seq uint64) {
	if err := v.w.Sync(v.t.Context(), seq); err != nil {
		v.t.Fatal(err)
	}
}

// objectOf returns the object of block i: there are two.
func objectOf(i int) Object {
	return Object{Chunk: someObject.Chunk, Serial: someObject.Serial + chunk.Serial(i%2)}
}

// syncObjects makes the present contents the only ones of the objects that have blocks in set.
func (v *volumeModel) syncObjects(set [contractBlocks]bool) {
	for i, in := range set {
		for k := i % 2; in && k < contractBlocks; k += 2 {
			v.cached[k] = []uint64{v.now(k)}
		}
	}
}

// stepFlush does the next step of the flush, or begins one.
func (v *volumeModel) stepFlush() {
	f := v.flush
	if f == nil {
		f = &flushModel{}
		for i := range contractBlocks {
			f.promises[i] = v.answered[i]
		}
		v.flush = f
		return
	}
	switch f.step++; f.step {
	case 1:
		f.covers = v.w.Last()
	case 2:
		f.set, v.dirty = v.dirty, [contractBlocks]bool{}
	case 3:
		f.asOf = v.w.Last()
		f.batch.AsOf(f.asOf)
	case 4: // some blocks go into the journal, the rest is synced
		for i := range contractBlocks {
			if f.set[i] && !v.locked(i) && v.r.IntN(2) == 0 {
				f.set[i] = false
				v.journaled[i] = true
				f.batch.Data(objectOf(i), i, content(v.now(i)))
			}
		}
		if v.r.IntN(3) == 0 { // the batch is full
			v.append(&f.batch)
			f.batch.Reset()
			f.batch.AsOf(f.asOf)
		}
	case 5:
		v.syncObjects(f.set)
	case 6:
		for i := range contractBlocks {
			if f.set[i] && v.journaled[i] {
				f.batch.Supersede(objectOf(i), i, i+1)
			}
		}
	case 7:
		f.batch.Flush(f.covers)
		v.append(&f.batch)
	case 8:
		v.sync(v.w.Last())
		for i := range contractBlocks {
			v.promised[i] = max(v.promised[i], f.promises[i])
		}
		v.flush = nil
	}
}

// cut writes the map and moves the start.
func (v *volumeModel) cut() {
	if v.flush != nil {
		return
	}
	v.syncObjects([contractBlocks]bool{true, true})
	v.base, v.start = v.state, v.w.Head()
	v.w.Release(v.start)
	v.dirty, v.journaled = [contractBlocks]bool{}, [contractBlocks]bool{}
	for i := range contractBlocks {
		v.promised[i] = v.answered[i]
	}
}

// recovered returns what the blocks hold after frames of the journal and the object were lost as the mode allows.
func (v *volumeModel) recovered(mode Mode) [contractBlocks]uint64 {
	var object [contractBlocks]uint64
	for i := range contractBlocks {
		object[i] = v.now(i)
		if mode == PowerLost {
			object[i] = v.cached[i][v.r.IntN(len(v.cached[i]))]
		}
	}
	s := newMemStore()
	s.content[testName] = append([]byte(nil), v.s.content[testName]...)
	if mode == PowerLost { // each sector that was not synced may be there or not
		durable := v.s.durable[testName]
		keep := v.r.IntN(3)
		for off := 0; off < len(durable); off += Align {
			if keep == 0 || keep == 1 && v.r.IntN(20) == 0 {
				copy(s.content[testName][off:off+Align], durable[off:])
			}
		}
	}
	st := fold(v.t, s, v.start, mode)
	state := v.base
	for _, d := range st.Deltas {
		for i := d.First; i < d.End; i++ {
			state[i] = present
			if d.Zero {
				state[i] = zero
			}
		}
	}
	for _, b := range st.Blocks {
		object[b.Block] = binary.LittleEndian.Uint64(b.Data)
	}
	for i := range contractBlocks {
		if state[i] != present {
			object[i] = 0
		}
	}
	return object
}

// check crashes and compares.
func (v *volumeModel) check() {
	got := v.recovered(ProcessDied)
	for i := range contractBlocks {
		if want := v.history[i][v.answered[i]:]; !slices.Contains(want, got[i]) {
			v.t.Fatalf("the process died: block %d holds %d, want one of %d", i, got[i], want)
		}
	}
	got = v.recovered(PowerLost)
	for i := range contractBlocks {
		if want := v.history[i][v.promised[i]:]; !slices.Contains(want, got[i]) {
			v.t.Fatalf("the power was lost: block %d holds %d, want one of %d", i, got[i], want)
		}
	}
}

func TestFoldKeepsTheContract(t *testing.T) {
	r := random(t)
	for range 120 {
		v := newVolumeModel(t, r)
		blocks, burst := 1+r.IntN(contractBlocks), 1+r.IntN(12)
		for range r.IntN(120) {
			i := r.IntN(blocks)
			switch n := r.IntN(20); {
			case n == 0:
				v.cut()
			case n < 10:
				v.stepFlush()
			case n < 12:
				if v.writes[i].step == 0 {
					v.zero(i, n == 11)
				}
			default: // many writes between two steps of a flush meet in other ways than few
				for range 1 + r.IntN(burst) {
					v.stepWrite(i, r.IntN(3) == 0)
				}
			}
			if r.IntN(12) == 0 {
				v.check()
			}
		}
		v.check()
	}
}
