package volume_test

import (
	"bytes"
	"sync/atomic"
	"testing"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume"
)

// blockWrite submits a write of a whole block and waits for its end. It reports whether that came inline.
func (w *world) blockWrite(block int, data []byte) (inline bool, err error) {
	wt := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
	r := &volume.Request{Kind: volume.Write, Offset: int64(block) * 4096, Length: 4096, Data: data, Done: wt}
	if w.dev.Submit(r) {
		return true, r.Err
	}
	err = <-wt.answered
	<-wt.released
	return false, err
}

// TestInlineWritesToNewBlocks: a write of blocks that the layer of a chunk lacks is done inline, and what fails to write
// data, or dies at any call, loses and shows nothing.
func TestInlineWritesToNewBlocks(t *testing.T) {
	blocks := []int{3, 5, 4, 9, 15}
	for name, act := range map[string]func() faulty.Action{
		"":         faulty.Pass,
		"no space": func() faulty.Action { return faulty.Fail(drivers.ErrNoSpace) },
		"torn":     func() faulty.Action { return faulty.Tear(3, drivers.ErrUnavailable) },
		"late":     faulty.Late,
		"killed":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			for k := int64(1); k <= int64(2*len(blocks)); k++ {
				if act != nil && k%2 == 0 {
					continue // an append that fails is final for the device
				}
				w := newWorld(t, 1<<20, 64<<10)
				want := make([]byte, 64<<10)
				copy(want, pattern(4096, 1))
				must(t, w.dev.WriteAt(t.Context(), want[:4096], 0))
				var calls atomic.Int64
				var left atomic.Pointer[mem.Backend]
				w.faults.SetInline(true)
				w.faults.SetHook(func(faulty.Call) faulty.Action {
					switch n := calls.Add(1); {
					case n < k || n > k && act != nil:
						return faulty.Pass()
					case act != nil:
						return act()
					}
					left.CompareAndSwap(nil, w.storage.Kill())
					return faulty.Fail(errDead)
				})
				failed := -1
				for i, b := range blocks {
					data := pattern(4096, uint64(10+i))
					inline, err := w.blockWrite(b, data)
					if name == "" && !inline {
						t.Errorf("write %d was not inline", i)
					}
					if err != nil {
						failed = b
						break
					}
					copy(want[b*4096:], data)
				}
				w.faults.SetHook(nil)
				if name == "" && calls.Load() != int64(2*len(blocks)) {
					t.Fatalf("%d calls of the storage for %d writes", calls.Load(), len(blocks))
				}
				storage := left.Load()
				if storage == nil {
					storage = w.storage.Kill()
				}
				w.die()
				w.storage = storage
				w.reopen()
				got := content(t, w.dev)[:len(want)]
				if failed >= 0 {
					copy(got[failed*4096:][:4096], want[failed*4096:])
				}
				if !bytes.Equal(got, want) {
					t.Errorf("call %d: what was answered is not there after the end of the process", k)
				}
				must(t, w.close())
			}
		})
	}
}
