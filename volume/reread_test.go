package volume_test

import (
	"bytes"
	"testing"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
)

// TestFlushedContentAfterEveryKindOfChange: a flush that takes content from memory takes what the blocks hold now, however they were changed since
// they were written. After the loss of power all data is the journal's.
func TestFlushedContentAfterEveryKindOfChange(t *testing.T) {
	const size = 256 << 10
	first, second := pattern(8192, 1), pattern(8192, 2)
	for name, change := range map[string]func(w *world, want []byte){
		"none": func(*world, []byte) {},
		"written again": func(w *world, want []byte) {
			must(t, w.dev.WriteAt(t.Context(), second, 4096))
			copy(want[4096:], second)
		},
		"written again inline": func(w *world, want []byte) {
			w.faults.SetInline(true)
			if inline, err := w.blockWrite(1, second[:4096]); !inline || err != nil {
				t.Errorf("inline %v, %v", inline, err)
			}
			copy(want[4096:], second[:4096])
		},
		"part of a block": func(w *world, want []byte) {
			must(t, w.dev.WriteAt(t.Context(), second[:512], 4096+1024))
			copy(want[4096+1024:], second[:512])
		},
		"across blocks": func(w *world, want []byte) {
			must(t, w.dev.WriteAt(t.Context(), second[:4096], 4096+512))
			copy(want[4096+512:], second[:4096])
		},
		"many blocks": func(w *world, want []byte) {
			many := pattern(128<<10, 3)
			must(t, w.dev.WriteAt(t.Context(), many, 4096))
			copy(want[4096:], many)
		},
		"discarded": func(w *world, want []byte) {
			must(t, w.dev.Discard(t.Context(), 4096, 4096))
			clear(want[4096:8192])
		},
		"discarded and written": func(w *world, want []byte) {
			must(t, w.dev.Discard(t.Context(), 4096, 8192))
			must(t, w.dev.WriteAt(t.Context(), second[:4096], 4096))
			copy(want[4096:], second[:4096])
			clear(want[8192:12288])
		},
		"zeros": func(w *world, want []byte) {
			must(t, w.dev.WriteZeroes(t.Context(), 4096+512, 4096))
			clear(want[4096+512:][:4096])
		},
		"snapshot between": func(w *world, want []byte) {
			if _, err := w.dev.Snapshot(t.Context(), "s"); err != nil {
				t.Fatal(err)
			}
			must(t, w.dev.WriteAt(t.Context(), second[:4096], 4096))
			copy(want[4096:], second[:4096])
		},
		"no space for a part": func(w *world, want []byte) {
			w.faults.SetHook(faulty.OnKind(faulty.Tear(1, drivers.ErrNoSpace), drivers.OpWrite))
			if err := w.dev.WriteAt(t.Context(), second, 4096); err == nil {
				t.Error("the write did not fail")
			}
			w.faults.SetHook(nil)
			copy(want[4096:], second[:512])
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, size, 64<<10)
			want := make([]byte, size)
			must(t, w.dev.WriteAt(t.Context(), pattern(size/2, 9), 0))
			must(t, w.dev.WriteZeroes(t.Context(), 0, 4096))
			copy(want, pattern(size/2, 9))
			clear(want[:4096])
			must(t, w.dev.Flush(t.Context())) // what comes from now on is kept in memory
			must(t, w.dev.WriteAt(t.Context(), first, 4096))
			copy(want[4096:], first)
			change(w, want)
			must(t, w.dev.Flush(t.Context()))
			w.crash(mem.KeepNone)
			if got := content(t, w.dev); !bytes.Equal(got, want) {
				at := 0
				for got[at] == want[at] {
					at++
				}
				t.Errorf("from byte %d on it is not what was flushed", at)
			}
			must(t, w.close())
		})
	}
}

// TestFlushOfFewBlocksReadsNothingBack: what was written since the last flush goes into the journal from memory.
func TestFlushOfFewBlocksReadsNothingBack(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	must(t, w.dev.WriteAt(t.Context(), pattern(1<<20, 1), 0))
	must(t, w.dev.Flush(t.Context()))
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpRead {
			t.Errorf("%v", c)
		}
		return faulty.Pass()
	})
	for round := range 3 {
		for b := range 12 {
			must(t, w.dev.WriteAt(t.Context(), pattern(4096, uint64(round*12+b)), int64(b)*3*4096))
		}
		must(t, w.dev.Flush(t.Context()))
	}
	if n := w.dev.Stats().JournalFlushes; n < 3 {
		t.Errorf("%d flushes went into the journal, want 3", n)
	}
	w.faults.SetHook(nil)
	must(t, w.close())
}
