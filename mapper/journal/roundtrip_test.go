package journal

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"skerry/chunk"
)

func TestEntriesReadBackAsAppended(t *testing.T) {
	s := newMemStore()
	w := create(t, s, 1<<20)
	start := w.Head()
	a := Object{Chunk: 1 << 60, Serial: chunk.MakeSerial(testGeneration, 1)}
	c := Object{Chunk: 5, Serial: chunk.MakeSerial(2, 1<<31)}

	var b Batch
	b.Touch(a)
	b.Delta(a, 0, chunk.MaxBlocks, false, false)
	b.Delta(c, 3, 4, true, false)
	b.Delta(c, 4, 5, true, true)
	first := add(t, w, &b)
	b.Reset()
	b.AsOf(first)
	b.Data(c, 8190, fill(3, 2))
	b.Supersede(a, 1, 2)
	b.AsOf(0)
	b.Data(a, 0, fill(4, 1))
	b.Flush(first)
	if err := w.Sync(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second := add(t, w, &b)

	got, end, err := readAll(t, s, start)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]Entry{{
		{Kind: KindTouch, Object: a},
		{Kind: KindDelta, Object: a, End: chunk.MaxBlocks},
		{Kind: KindDelta, Object: c, First: 3, End: 4, Zero: true},
		{Kind: KindDelta, Object: c, First: 4, End: 5, Zero: true, Durable: true},
	}, {
		{Kind: KindData, Object: c, First: 8190, End: 8192, Before: first + 1, Data: fill(3, 2)},
		{Kind: KindSupersede, Object: a, First: 1, End: 2, Before: first + 1},
		{Kind: KindData, Object: a, First: 0, End: 1, Before: 1, Data: fill(4, 1)},
		{Kind: KindFlush, Covers: first},
	}}
	if len(got) != 2 {
		t.Fatalf("%d frames, want 2", len(got))
	}
	for i, f := range got {
		if !reflect.DeepEqual(f.entries, want[i]) {
			t.Errorf("frame %d: read %+v, want %+v", i, f.entries, want[i])
		}
		if f.Seq != []uint64{first, second}[i] || f.Boot != testBoot || f.Generation != testGeneration || f.Synced != []uint64{0, first}[i] {
			t.Errorf("frame %d: seq %d, synced %d, boot %x, generation %d", i, f.Seq, f.Synced, f.Boot, f.Generation)
		}
	}
	if end != w.Head() {
		t.Errorf("ends at %+v, head is %+v", end, w.Head())
	}
	if w.Last() != second || w.Err() != nil || w.Size() != 1<<20 {
		t.Errorf("last %d, err %v, size %d", w.Last(), w.Err(), w.Size())
	}
}

func TestCreateLeavesADurableJournalOfZeros(t *testing.T) {
	s := newMemStore()
	w := create(t, s, 0)
	if w.Size() != DefaultSize || len(s.durable[testName]) != DefaultSize {
		t.Fatalf("size %d, durable %d bytes", w.Size(), len(s.durable[testName]))
	}
	if !slices.Equal(s.groups, []string{chunk.GroupName(testVolume, chunk.Journals)}) {
		t.Fatalf("synced groups %v", s.groups)
	}
	if s.writes == 0 || slices.ContainsFunc(s.durable[testName], func(b byte) bool { return b != 0 }) {
		t.Fatal("not filled with zeros")
	}
	frames, end, err := readAll(t, s, w.Head())
	if len(frames) != 0 || err != nil || end != w.Head() {
		t.Fatalf("a new journal has %d frames, ends at %+v: %v", len(frames), end, err)
	}
}

func TestCreateRefusesSizesAndTakenNames(t *testing.T) {
	for _, size := range []int64{-1, 1, MinSize - Align, MinSize + 1, MaxSize + Align} {
		s := newMemStore()
		if _, err := Create(t.Context(), Config{Store: s, Volume: testVolume, Object: testObject, Size: size}); !errors.Is(err, ErrInvalid) {
			t.Errorf("size %d: %v", size, err)
		}
		if len(s.content) != 0 {
			t.Errorf("size %d made an object", size)
		}
	}
	s := newMemStore()
	create(t, s, MinSize)
	if _, err := Create(t.Context(), Config{Store: s, Volume: testVolume, Object: testObject}); err == nil {
		t.Error("made a journal twice")
	}
}

func TestFirstSequenceContinuesAnotherJournal(t *testing.T) {
	s := newMemStore()
	w, err := Create(t.Context(), Config{Store: s, Volume: testVolume, Generation: testGeneration, Object: testObject, FirstSeq: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if w.Last() != 999 {
		t.Fatalf("last is %d", w.Last())
	}
	if err := w.Sync(t.Context(), 999); err != nil || s.syncs != 1 {
		t.Fatalf("sync of what came before: %v, %d syncs", err, s.syncs)
	}
	start := w.Head()
	var b Batch
	b.Flush(999)
	if seq := add(t, w, &b); seq != 1000 {
		t.Fatalf("first sequence is %d", seq)
	}
	if frames, _, err := readAll(t, s, start); err != nil || len(frames) != 1 || frames[0].Seq != 1000 {
		t.Fatalf("%d frames: %v", len(frames), err)
	}
}

func TestBatchRefusesWhatHasNoMeaning(t *testing.T) {
	o := Object{Chunk: 1, Serial: 1}
	cases := map[string]struct {
		make func(b *Batch)
		want error
	}{
		"empty range":         {func(b *Batch) { b.Delta(o, 3, 3, false, false) }, ErrInvalid},
		"negative":            {func(b *Batch) { b.Supersede(o, -1, 3) }, ErrInvalid},
		"past a chunk's end":  {func(b *Batch) { b.Delta(o, 0, chunk.MaxBlocks+1, false, false) }, ErrInvalid},
		"part of a block":     {func(b *Batch) { b.Data(o, 0, make([]byte, 4095)) }, ErrInvalid},
		"no block":            {func(b *Batch) { b.Data(o, 0, nil) }, ErrInvalid},
		"overflow":            {func(b *Batch) { b.DataFill(o, 1<<62, 1<<62) }, ErrInvalid},
		"covers itself":       {func(b *Batch) { b.Flush(1) }, ErrInvalid},
		"as of itself":        {func(b *Batch) { b.AsOf(1); b.Supersede(o, 0, 1) }, ErrInvalid},
		"more than a frame":   {func(b *Batch) { b.Data(o, 0, make([]byte, MaxFrame)) }, ErrTooLarge},
		"more than a journal": {func(b *Batch) { b.Data(o, 0, make([]byte, 1<<20)) }, ErrTooLarge},
	}
	for name, c := range cases {
		s := newMemStore()
		w := create(t, s, 1<<20)
		before := s.writes
		var b Batch
		c.make(&b)
		if _, err := w.Append(t.Context(), &b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if s.writes != before || w.Last() != 0 || w.Err() != nil {
			t.Errorf("%s: something was appended", name)
		}
		b.Reset()
		if _, err := w.Append(t.Context(), &b); err != nil {
			t.Errorf("%s: after Reset: %v", name, err)
		}
	}
}

func TestRoomIsExact(t *testing.T) {
	var b Batch
	if !b.Empty() || b.Room() != MaxFrame {
		t.Fatalf("room of an empty batch is %d", b.Room())
	}
	o := Object{Chunk: 1, Serial: 1}
	for b.Room() >= MaxEntry+chunk.BlockSize {
		if b.DataFill(o, 0, 1) == nil {
			t.Fatalf("no room with %d bytes left", b.Room())
		}
	}
	for b.Room() >= flushSize {
		b.Flush(0)
	}
	if b.Room()+b.Len() != MaxFrame || b.Empty() {
		t.Fatalf("len %d, room %d", b.Len(), b.Room())
	}
	w := create(t, newMemStore(), 4<<20)
	add(t, w, &b)
	b.Flush(0)
	if _, err := w.Append(t.Context(), &b); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("past the bound: %v", err)
	}
}
