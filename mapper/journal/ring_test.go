package journal

import (
	"errors"
	"testing"
)

// fitsModel says whether a frame of n bytes fits into the ring, by looking at where things lie.
func fitsModel(start, head Position, live, n int64) bool {
	switch {
	case live == 0:
		return n <= head.Size
	case start.Lap == head.Lap: // live space does not cross the end
		return head.Offset+n <= head.Size || n <= start.Offset
	default:
		return head.Offset+n <= start.Offset
	}
}

func TestRingOverManyLaps(t *testing.T) {
	r := random(t)
	for _, size := range []int64{MinSize, 9 * Align, 64 << 10} {
		s := newMemStore()
		w := create(t, s, size)
		type written struct {
			at      Position
			seq     uint64
			touches []uint64
		}
		var live []written // from the start on
		start := w.Head()
		space := start // where live space begins: the start, or after an unused end of a lap
		var b Batch
		full, wraps := 0, 0
		for i := range uint64(6000) {
			b.Reset()
			var touches []uint64
			for range r.IntN(1 << r.IntN(7)) {
				touches = append(touches, i)
				b.Touch(Object{Chunk: i})
			}
			n := int64(frameLen(b.Len()))
			head, liveBytes := w.Head(), w.Live()
			want := fitsModel(space, head, liveBytes, n)
			seq, err := w.Append(t.Context(), &b)
			switch {
			case err == nil && want:
				if len(live) == 0 && head.Offset+n > size {
					space = Position{Lap: head.Lap + 1}
				}
				live = append(live, written{at: head, seq: seq, touches: touches})
				if w.Head().Lap != head.Lap {
					wraps++
				}
			case errors.Is(err, ErrFull) && !want:
				full++
				if w.Head() != head || w.Live() != liveBytes {
					t.Fatal("a full journal changed")
				}
			case errors.Is(err, ErrTooLarge) && n > size:
			default:
				t.Fatalf("append of %d bytes at %+v, start %+v: %v, want it to fit: %v", n, head, start, err, want)
			}
			if w.Live() > size || w.Live() < 0 {
				t.Fatalf("live %d of %d", w.Live(), size)
			}
			if len(live) > 0 && (r.IntN(int(size>>10)) == 0 || err != nil) {
				k := r.IntN(len(live) + 1)
				start = w.Head()
				if k < len(live) {
					start = live[k].at
				}
				live = live[k:]
				w.Release(start)
				if k > 0 {
					space = start
				}
			}
			if r.IntN(8) != 0 {
				continue
			}
			frames, end, err := readAll(t, s, start)
			if err != nil || len(frames) != len(live) || end != w.Head() {
				t.Fatalf("%d frames of %d, end %+v, head %+v: %v", len(frames), len(live), end, w.Head(), err)
			}
			for j, f := range frames {
				if f.Seq != live[j].seq || len(f.entries) != len(live[j].touches) {
					t.Fatalf("frame %d has %d entries, want frame %d with %d", f.Seq, len(f.entries), live[j].seq, len(live[j].touches))
				}
				for k, e := range f.entries {
					if e.Object.Chunk != live[j].touches[k] {
						t.Fatalf("frame %d names %d, want %d", f.Seq, e.Object.Chunk, live[j].touches[k])
					}
				}
			}
		}
		if full == 0 || wraps < 50 {
			t.Fatalf("size %d: full %d times, %d laps: the test tests too little", size, full, wraps)
		}
	}
}

func TestStaleFramesOfAnEarlierLapAreNotRead(t *testing.T) {
	s := newMemStore()
	w := create(t, s, MinSize)
	var b Batch
	b.Flush(0)
	for i := range 200 {
		if err := w.Sync(t.Context(), add(t, w, &b)); err != nil {
			t.Fatal(err)
		}
		w.Release(w.Head())
		// From every place of the object, only what begins at the head can be read: nothing.
		if frames, end, err := readAll(t, s, w.Head()); len(frames) != 0 || err != nil || end != w.Head() {
			t.Fatalf("after %d frames: %d read at the head: %v", i+1, len(frames), err)
		}
	}
}

func TestFullIsExact(t *testing.T) {
	w := create(t, newMemStore(), MinSize)
	start := w.Head()
	var b Batch
	b.Flush(0)
	for range MinSize / Align {
		add(t, w, &b)
	}
	if w.Live() != MinSize || w.Head().Offset != 0 || w.Head().Lap != firstLap+1 {
		t.Fatalf("live %d, head %+v", w.Live(), w.Head())
	}
	last := w.Last()
	for range 2 {
		if seq, err := w.Append(t.Context(), &b); !errors.Is(err, ErrFull) || seq != 0 || w.Last() != last || w.Err() != nil {
			t.Fatalf("a full journal took frame %d: %v", seq, err)
		}
	}
	w.Release(start) // changes nothing
	if w.Live() != MinSize {
		t.Fatalf("live %d", w.Live())
	}
	start.Offset, start.Seq = Align, 2
	w.Release(start)
	add(t, w, &b)
	if _, err := w.Append(t.Context(), &b); !errors.Is(err, ErrFull) {
		t.Fatalf("one frame too many: %v", err)
	}
	w.Release(w.Head())
	if w.Live() != 0 {
		t.Fatalf("live %d after all was released", w.Live())
	}
	b.Reset()
	for b.Len()+objectSize <= MinSize-headerSize { // the whole ring, though the head is not at its begin
		b.Touch(someObject)
	}
	add(t, w, &b)
	if w.Live() != MinSize || w.Head().Offset != 0 {
		t.Fatalf("live %d, head %+v", w.Live(), w.Head())
	}
}

func TestReleaseOfAForeignPositionIsFinal(t *testing.T) {
	for name, change := range map[string]func(p *Position){
		"object":        func(p *Position) { p.Object++ },
		"size":          func(p *Position) { p.Size += Align },
		"past the head": func(p *Position) { p.Offset += Align },
		"sequence":      func(p *Position) { p.Seq++ },
	} {
		w := create(t, newMemStore(), MinSize)
		var b Batch
		add(t, w, &b)
		p := w.Head()
		change(&p)
		w.Release(p)
		if _, err := w.Append(t.Context(), &b); !errors.Is(err, ErrInvalid) || !errors.Is(w.Err(), ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
