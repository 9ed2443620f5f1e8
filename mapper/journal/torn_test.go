package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"testing"

	"skerry/chunk"
)

var someObject = Object{Chunk: 4, Serial: 5}

// filled returns a journal of three frames of several sectors, after laps of others if laps are asked for, and where each begins. synced
// says up to which of the three each knew of a sync.
func filled(t *testing.T, laps int, sync bool) (*memStore, []Position) {
	t.Helper()
	s := newMemStore()
	w := create(t, s, 24<<10)
	var b Batch
	for w.Head().Lap < uint32(firstLap+laps) {
		b.Reset()
		b.Data(someObject, 7, fill(byte(w.Last()), 1))
		add(t, w, &b)
		w.Release(w.Head())
	}
	at := []Position{w.Head()}
	for i := range 3 {
		b.Reset()
		b.Touch(someObject)
		b.Data(someObject, i, fill(byte(100+i), 1))
		b.Flush(0)
		seq := add(t, w, &b)
		if sync {
			if err := w.Sync(t.Context(), seq); err != nil {
				t.Fatal(err)
			}
		}
		at = append(at, w.Head())
	}
	return s, at
}

func TestTornLastFrameIsTheEnd(t *testing.T) {
	for _, laps := range []int{0, 2} {
		s, at := filled(t, laps, true)
		from, to := at[2].Offset, at[3].Offset
		whole := slices.Clone(s.content[testName])
		old := make([]byte, len(whole))
		if laps > 0 {
			// What an earlier lap left there: one of its frames, whole and where frames begin.
			copy(old[from:], whole[at[1].Offset:at[2].Offset])
		}
		for cut := from; cut <= to; cut++ {
			torn := slices.Clone(whole)
			copy(torn[cut:to], old[cut:to])
			s.content[testName] = torn
			want, end := 2, at[2]
			if bytes.Equal(torn, whole) {
				want, end = 3, at[3]
			}
			frames, got, err := readAll(t, s, at[0])
			if err != nil || len(frames) != want || got != end {
				t.Fatalf("laps %d, torn at byte %d: %d frames, end %+v: %v", laps, cut-from, len(frames), got, err)
			}
		}
	}
}

func TestLastFrameWithSomeSectorsMissingIsTheEnd(t *testing.T) {
	r := random(t)
	s, at := filled(t, 0, true)
	whole := slices.Clone(s.content[testName])
	for range 2000 {
		torn := slices.Clone(whole)
		for off := at[2].Offset; off < at[3].Offset; off += Align {
			if r.IntN(4) == 0 {
				clear(torn[off : off+Align])
			}
		}
		s.content[testName] = torn
		want := 2
		if bytes.Equal(torn, whole) {
			want = 3
		}
		if frames, _, err := readAll(t, s, at[0]); err != nil || len(frames) != want {
			t.Fatalf("%d frames, want %d: %v", len(frames), want, err)
		}
	}
}

func TestFlippedByteOfASyncedFrameIsDamage(t *testing.T) {
	r := random(t)
	s, at := filled(t, 1, true)
	whole := slices.Clone(s.content[testName])
	for i := range 2 {
		for off := at[i].Offset; off < at[i+1].Offset; off++ {
			s.content[testName] = slices.Clone(whole)
			s.content[testName][off] ^= 1 << r.IntN(8)
			frames, end, err := readAll(t, s, at[0])
			if !errors.Is(err, ErrDamaged) || len(frames) != i || end != at[i] {
				t.Fatalf("frame %d, byte %d: %d frames, end %+v: %v", i, off-at[i].Offset, len(frames), end, err)
			}
		}
	}
}

func TestFlippedByteOfAnUnsyncedFrameIsTheEnd(t *testing.T) {
	r := random(t)
	s, at := filled(t, 1, false)
	whole := slices.Clone(s.content[testName])
	for i := range 3 {
		for off := at[i].Offset; off < at[i+1].Offset; off++ {
			s.content[testName] = slices.Clone(whole)
			s.content[testName][off] ^= 1 << r.IntN(8)
			frames, end, err := readAll(t, s, at[0])
			if err != nil || len(frames) != i || end != at[i] {
				t.Fatalf("frame %d, byte %d: %d frames, end %+v: %v", i, off-at[i].Offset, len(frames), end, err)
			}
		}
	}
}

func TestDamageIsSeenAcrossTheEndOfALap(t *testing.T) {
	s := newMemStore()
	w := create(t, s, MinSize)
	var b Batch
	for range 7 { // one sector of the lap is left
		b.Reset()
		b.Flush(0)
		add(t, w, &b)
	}
	start := w.Head()
	w.Release(start)
	b.Reset()
	for range 30 { // two sectors: offset 0 of the next lap
		b.Touch(someObject)
	}
	first := add(t, w, &b)
	if w.Live() != 2*Align || w.Head().Offset != 2*Align {
		t.Fatalf("live %d, head %+v", w.Live(), w.Head())
	}
	if err := w.Sync(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	for w.Head().Offset != start.Offset { // past the start's offset, one lap on
		b.Reset()
		b.Flush(0)
		add(t, w, &b)
	}
	if frames, _, err := readAll(t, s, start); err != nil || len(frames) != 6 {
		t.Fatalf("%d frames: %v", len(frames), err)
	}
	s.content[testName][700] ^= 1
	if frames, _, err := readAll(t, s, start); !errors.Is(err, ErrDamaged) || len(frames) != 0 {
		t.Fatalf("%d frames: %v", len(frames), err)
	}
}

// reseal changes the first frame at p in place and makes its checksum right again.
func reseal(s *memStore, p, next Position, change func(f []byte)) {
	f := s.content[testName][p.Offset:next.Offset]
	change(f)
	binary.LittleEndian.PutUint32(f[checkOffset:], checksum(f))
}

func TestFramesOfOthersAreNotRead(t *testing.T) {
	changes := map[string]func(f []byte){
		"magic":      func(f []byte) { f[0]++ },
		"generation": func(f []byte) { f[12]++ },
		"volume":     func(f []byte) { f[16]++ },
		"object":     func(f []byte) { f[48]++ },
		"sequence":   func(f []byte) { f[56]++ },
		"lap":        func(f []byte) { f[72]++ },
		"previous":   func(f []byte) { f[80]++ },
		"length":     func(f []byte) { binary.LittleEndian.PutUint32(f[76:], 1<<31) },
	}
	for name, change := range changes {
		s, at := filled(t, 1, false)
		reseal(s, at[1], at[2], change)
		if frames, end, err := readAll(t, s, at[0]); err != nil || len(frames) != 1 || end != at[1] {
			t.Errorf("%s: %d frames, end %+v: %v", name, len(frames), end, err)
		}
	}
}

func TestWholeFrameWithoutMeaningIsAnError(t *testing.T) {
	cases := map[string]struct {
		change func(f []byte)
		want   error
	}{
		"version":       {func(f []byte) { f[8]++ }, ErrVersion},
		"kind":          {func(f []byte) { f[headerSize] = 77 }, ErrDamaged},
		"kind 0":        {func(f []byte) { f[headerSize] = 0 }, ErrDamaged},
		"flag":          {func(f []byte) { f[headerSize+1] = 1 }, ErrDamaged},
		"reserved":      {func(f []byte) { f[headerSize+6] = 1 }, ErrDamaged},
		"touch's range": {func(f []byte) { f[headerSize+4] = 1 }, ErrDamaged},
		"data's range":  {func(f []byte) { f[headerSize+objectSize+5] = 0x20 }, ErrDamaged},
		"as of":         {func(f []byte) { f[headerSize+objectSize+24+7] = 1 }, ErrDamaged},
		"covers":        {func(f []byte) { f[headerSize+objectSize+rangeSize+chunk.BlockSize+8+7] = 1 }, ErrDamaged},
		"cut short":     {func(f []byte) { f[76]-- }, ErrDamaged},
		"synced":        {func(f []byte) { f[64+7] = 1 }, ErrDamaged},
	}
	for name, c := range cases {
		s, at := filled(t, 0, false)
		reseal(s, at[2], at[3], c.change)
		if frames, _, err := readAll(t, s, at[0]); !errors.Is(err, c.want) || len(frames) != 2 {
			t.Errorf("%s: %d frames: %v", name, len(frames), err)
		}
	}
}

func TestLyingLengthAllocatesLittle(t *testing.T) {
	s, at := filled(t, 0, false)
	reseal(s, at[0], at[1], func(f []byte) { binary.LittleEndian.PutUint32(f[76:], MaxFrame) })
	start := at[0]
	start.Size = MaxSize
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if frames, _, err := readAll(t, s, start); err != nil || len(frames) != 0 {
		t.Fatalf("%d frames: %v", len(frames), err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Fatalf("%d bytes allocated", n)
	}
}

func TestReadPassesErrorsOn(t *testing.T) {
	s, at := filled(t, 0, true)
	stop := errors.New("stop")
	n := 0
	end, err := Read(t.Context(), s, testVolume, testGeneration, at[0], func(Frame) error {
		if n++; n == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || end != at[1] {
		t.Errorf("end %+v: %v", end, err)
	}
	if _, err := Read(t.Context(), newMemStore(), testVolume, testGeneration, at[0], nil); !errors.Is(err, errMissing) {
		t.Errorf("missing object: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fold(ctx, failing{s}, testVolume, ProcessDied, Source{testGeneration, at[0]}); !errors.Is(err, context.Canceled) {
		t.Errorf("fold: %v", err)
	}
}

// failing is a store whose reads end with their context.
type failing struct{ *memStore }

func (failing) ReadAt(ctx context.Context, _ string, _ []byte, _ int64) error { return ctx.Err() }
