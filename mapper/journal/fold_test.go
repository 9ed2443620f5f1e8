package journal

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"skerry/chunk"
)

// fold folds the journal from start.
func fold(t testing.TB, s Store, start Position, mode Mode) *State {
	t.Helper()
	st, err := Fold(t.Context(), s, testVolume, mode, Source{testGeneration, start})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestFoldCounts shows each rule in a small journal: one batch a frame, and what is left of block 0 of an object.
func TestFoldCounts(t *testing.T) {
	o := someObject
	data := func(n byte) func(b *Batch) { return func(b *Batch) { b.Data(o, 0, fill(n, 1)) } }
	dataAsOf := func(n byte, seq uint64) func(b *Batch) {
		return func(b *Batch) { b.AsOf(seq); b.Data(o, 0, fill(n, 1)) }
	}
	void := func(b *Batch) { b.Supersede(o, 0, 1) }
	voidAsOf := func(seq uint64) func(b *Batch) { return func(b *Batch) { b.AsOf(seq); b.Supersede(o, 0, 1) } }
	zeros := func(durable bool) func(b *Batch) { return func(b *Batch) { b.Delta(o, 0, 2, true, durable) } }
	bits := func(durable bool) func(b *Batch) { return func(b *Batch) { b.Delta(o, 0, 1, false, durable) } }
	flush := func(covers uint64) func(b *Batch) { return func(b *Batch) { b.Flush(covers) } }
	both := func(f, g func(b *Batch)) func(b *Batch) { return func(b *Batch) { f(b); g(b) } }

	cases := map[string]struct {
		frames []func(b *Batch)
		deltas int
		data   byte // 0: none
	}{
		"delta alone":                       {[]func(*Batch){bits(false)}, 0, 0},
		"delta that is durable":             {[]func(*Batch){bits(true)}, 1, 0},
		"delta that is covered":             {[]func(*Batch){bits(false), flush(1)}, 1, 0},
		"delta after what is covered":       {[]func(*Batch){bits(false), bits(false), flush(1)}, 1, 0},
		"delta in the flush's frame":        {[]func(*Batch){bits(false), both(bits(false), flush(1))}, 1, 0},
		"lower covers come later":           {[]func(*Batch){bits(false), bits(false), flush(2), flush(0)}, 2, 0},
		"data without a flush":              {[]func(*Batch){data(1)}, 0, 0},
		"data with a flush":                 {[]func(*Batch){both(data(1), flush(0))}, 0, 1},
		"data of a flush of two frames":     {[]func(*Batch){data(1), flush(0)}, 0, 1},
		"data after the flush":              {[]func(*Batch){both(data(1), flush(0)), data(2)}, 0, 1},
		"last data":                         {[]func(*Batch){both(data(1), flush(0)), both(data(2), flush(0))}, 0, 2},
		"last data of one frame":            {[]func(*Batch){both(both(data(1), data(2)), flush(0))}, 0, 2},
		"superseded":                        {[]func(*Batch){both(data(1), flush(0)), both(void, flush(1))}, 0, 0},
		"superseded, the flush is missing":  {[]func(*Batch){both(data(1), flush(0)), void}, 0, 1},
		"superseded before":                 {[]func(*Batch){void, both(data(1), flush(0))}, 0, 1},
		"superseded as of before":           {[]func(*Batch){flush(0), both(data(2), flush(0)), both(voidAsOf(1), flush(1))}, 0, 2},
		"superseded as of the data":         {[]func(*Batch){both(data(1), flush(0)), flush(0), both(voidAsOf(1), flush(2))}, 0, 0},
		"older data comes later":            {[]func(*Batch){flush(0), both(data(2), flush(0)), both(dataAsOf(1, 1), flush(1))}, 0, 2},
		"older than all frames":             {[]func(*Batch){both(data(2), flush(0)), both(both(dataAsOf(1, 0), voidAsOf(0)), flush(0))}, 0, 2},
		"newer data comes later":            {[]func(*Batch){both(data(1), flush(0)), both(dataAsOf(2, 1), flush(1))}, 0, 2},
		"zeros that are covered":            {[]func(*Batch){both(data(1), flush(0)), zeros(false), flush(2)}, 1, 0},
		"zeros that are not covered":        {[]func(*Batch){both(data(1), flush(0)), zeros(false), flush(1)}, 0, 1},
		"zeros that are durable":            {[]func(*Batch){both(data(1), flush(0)), zeros(true)}, 1, 0},
		"zeros before":                      {[]func(*Batch){zeros(true), both(data(1), flush(0))}, 1, 1},
		"zeros after the capture, covered":  {[]func(*Batch){flush(0), zeros(false), both(dataAsOf(1, 1), flush(1)), flush(2)}, 1, 0},
		"zeros before the capture, covered": {[]func(*Batch){zeros(false), both(dataAsOf(1, 1), flush(1))}, 1, 1},
	}
	for name, c := range cases {
		s := newMemStore()
		w := create(t, s, 64<<10)
		start := w.Head()
		for _, frame := range c.frames {
			var b Batch
			frame(&b)
			add(t, w, &b)
		}
		st := fold(t, s, start, PowerLost)
		var want []Block
		if c.data != 0 {
			want = []Block{{Object: o, Block: 0, Data: fill(c.data, 1)}}
		}
		if len(st.Deltas) != c.deltas || !reflect.DeepEqual(st.Blocks, want) {
			t.Errorf("%s: %d deltas, want %d; %d blocks, want %d (or another content)", name, len(st.Deltas), c.deltas, len(st.Blocks), len(want))
		}
		if st.Frames != len(c.frames) || st.End != w.Head() || st.Boot != testBoot {
			t.Errorf("%s: %d frames, end %+v, boot %x", name, st.Frames, st.End, st.Boot)
		}
	}
}

func TestFoldOfAnEmptyJournal(t *testing.T) {
	s := newMemStore()
	w := create(t, s, MinSize)
	for _, mode := range []Mode{ProcessDied, PowerLost, PowerLostDurable} {
		st := fold(t, s, w.Head(), mode)
		if !reflect.DeepEqual(st, &State{End: w.Head()}) {
			t.Errorf("mode %d: %+v", mode, st)
		}
	}
}

func TestFoldNamesEachObjectOnce(t *testing.T) {
	s := newMemStore()
	w := create(t, s, 1<<20)
	start := w.Head()
	var b Batch
	for range 20 {
		b.Reset()
		for i := range uint64(300) {
			b.Touch(Object{Chunk: 1000 - i, Serial: chunk.Serial(i % 2)})
			b.Delta(Object{Chunk: i % 7, Serial: 9}, 0, 1, false, false)
			b.Supersede(Object{Chunk: 5000}, 0, 1)
		}
		add(t, w, &b)
	}
	st := fold(t, s, start, PowerLost)
	if len(st.Objects) != 307 || !slices.IsSortedFunc(st.Objects, Object.compare) {
		t.Fatalf("%d objects", len(st.Objects))
	}
}

// record is an entry with its place, for the model.
type record struct {
	Entry
	seq   uint64
	place int
}

// modelFold is Fold by the words of the package's documentation, without regard to speed.
func modelFold(records []record, mode Mode) (deltas []Delta, blocks []Block) {
	covered, lastFlush := uint64(0), -1
	for _, r := range records {
		if r.Kind == KindFlush {
			covered, lastFlush = max(covered, r.Covers), r.place
		}
	}
	counts := func(r record) bool {
		if r.Kind == KindDelta {
			return mode != PowerLost || r.Durable || r.seq <= covered
		}
		return mode == PowerLost && r.place < lastFlush
	}
	newer := func(a, b record) bool {
		as, bs := a.seq, b.seq
		if a.Before != 0 {
			as = a.Before - 1
		}
		if b.Before != 0 {
			bs = b.Before - 1
		}
		return as > bs || as == bs && a.place > b.place
	}
	for _, r := range records {
		if r.Kind == KindDelta && counts(r) {
			deltas = append(deltas, Delta{Object: r.Object, First: r.First, End: r.End, Zero: r.Zero, Durable: r.Durable, Seq: r.seq})
		}
		if r.Kind != KindData || !counts(r) {
			continue
		}
		for i := r.First; i < r.End; i++ {
			beaten := slices.ContainsFunc(records, func(o record) bool {
				sets := o.Kind == KindData || o.Kind == KindSupersede || o.Kind == KindDelta && o.Zero
				return sets && counts(o) && o.Object == r.Object && o.First <= i && i < o.End && newer(o, r)
			})
			if !beaten {
				off := (i - r.First) * chunk.BlockSize
				blocks = append(blocks, Block{Object: r.Object, Block: i, Data: r.Data[off : off+chunk.BlockSize]})
			}
		}
	}
	slices.SortFunc(blocks, func(a, b Block) int {
		if c := a.Object.compare(b.Object); c != 0 {
			return c
		}
		return a.Block - b.Block
	})
	return deltas, blocks
}

// randomEntry adds an entry to b and returns what a reader must make of it. last is the last frame.
func randomEntry(r *rand.Rand, b *Batch, last uint64) Entry {
	e := Entry{Object: Object{Chunk: r.Uint64N(2), Serial: chunk.Serial(r.Uint64N(2))}, First: r.IntN(4)}
	e.End = e.First + 1 + r.IntN(4)
	older, before := last-min(r.Uint64N(4), last), uint64(0)
	b.before = 0
	if r.IntN(2) == 0 {
		b.AsOf(older)
		before = older + 1
	}
	switch e.Kind = Kind(1 + r.IntN(int(kinds)-1)); e.Kind {
	case KindTouch:
		b.Touch(e.Object)
	case KindDelta:
		e.Zero, e.Durable = r.IntN(2) == 0, r.IntN(4) == 0
		b.Delta(e.Object, e.First, e.End, e.Zero, e.Durable)
	case KindData:
		e.Before, e.Data = before, fill(byte(r.Uint32()), e.End-e.First)
		b.Data(e.Object, e.First, e.Data)
	case KindSupersede:
		e.Before = before
		b.Supersede(e.Object, e.First, e.End)
	case KindFlush:
		e = Entry{Kind: KindFlush, Covers: older}
		b.Flush(older)
	}
	return e
}

func TestFoldAgreesWithItsWords(t *testing.T) {
	r := random(t)
	for range 120 {
		s := newMemStore()
		w := create(t, s, 256<<10)
		start := w.Head()
		var records []record
		ends := []int{0}
		at := []Position{start}
		for range 1 + r.IntN(12) {
			var b Batch
			var entries []Entry
			for range r.IntN(5) {
				entries = append(entries, randomEntry(r, &b, w.Last()))
			}
			seq := add(t, w, &b)
			for _, e := range entries {
				records = append(records, record{Entry: e, seq: seq, place: len(records)})
			}
			ends, at = append(ends, len(records)), append(at, w.Head())
		}
		for frames := len(ends) - 1; frames >= 0; frames-- { // the storage lost what comes later
			clear(s.content[testName][at[frames].Offset:])
			for _, mode := range []Mode{ProcessDied, PowerLost, PowerLostDurable} {
				st := fold(t, s, start, mode)
				deltas, blocks := modelFold(records[:ends[frames]], mode)
				if st.Frames != frames || st.End != at[frames] {
					t.Fatalf("%d frames, want %d", st.Frames, frames)
				}
				if len(st.Deltas) != len(deltas) || len(deltas) > 0 && !reflect.DeepEqual(st.Deltas, deltas) {
					t.Fatalf("mode %d: deltas %+v, want %+v", mode, st.Deltas, deltas)
				}
				if !slices.EqualFunc(st.Blocks, blocks, func(a, b Block) bool {
					return a.Object == b.Object && a.Block == b.Block && bytes.Equal(a.Data, b.Data)
				}) {
					t.Fatalf("mode %d: %d blocks, want %d, or their content differs", mode, len(st.Blocks), len(blocks))
				}
			}
		}
	}
}
