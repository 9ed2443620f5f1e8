package volume_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/volume"
)

// TestChangesAreDoneInTheOrderInWhichTheyCame has a client that sends a change again because its connection has gone, and then newer data: what was sent first
// may have to wait, but it is not done last.
func TestChangesAreDoneInTheOrderInWhichTheyCame(t *testing.T) {
	old, newer := pattern(8192, 1), pattern(8192, 2)
	for name, first := range map[string]func() *volume.Request{
		"write":       func() *volume.Request { return &volume.Request{Kind: volume.Write, Data: old} },
		"zeroes":      func() *volume.Request { return &volume.Request{Kind: volume.WriteZeroes} },
		"data zeroes": func() *volume.Request { return &volume.Request{Kind: volume.WriteZeroes, Flags: volume.NoHole} },
		"discard":     func() *volume.Request { return &volume.Request{Kind: volume.Discard} },
	} {
		for _, late := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1<<20, 64<<10)
				must(t, w.close())
				w.options.Workers = 1
				w.start()
				must(t, w.open())
				must(t, w.dev.WriteAt(t.Context(), make([]byte, 256<<10), 0))
				submit := func(r *volume.Request) (wt waiter, done bool) {
					wt = waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
					r.Length, r.Done = 8192, wt
					done = w.dev.Submit(r)
					must(t, r.Err)
					return wt, done
				}
				release := make(chan struct{})
				w.faults.SetHook(func(c faulty.Call) faulty.Action {
					if c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/") {
						return faulty.Delay(release)
					}
					return faulty.Pass()
				})
				busy, _ := submit(&volume.Request{Kind: volume.Write, Offset: 128 << 10, Data: old})
				synctest.Wait()
				a, _ := submit(first()) // no worker is free for it
				w.faults.SetHook(nil)
				w.faults.SetInline(true)
				if late {
					time.Sleep(2 * w.options.Deadline)
					if err := <-a.answered; err == nil {
						t.Error("the first was answered as done")
					}
				}
				b, bDone := submit(&volume.Request{Kind: volume.Write, Data: old})
				if bDone {
					// It has been acknowledged: the client goes on.
					must(t, w.dev.WriteAt(t.Context(), newer, 0))
				}
				close(release)
				<-busy.released
				<-a.released
				if !bDone {
					must(t, <-b.answered)
					<-b.released
					must(t, w.dev.WriteAt(t.Context(), newer, 0))
				}
				synctest.Wait()
				got := content(t, w.dev)
				if !bytes.Equal(got[:8192], newer) {
					t.Errorf("%s, late %v: an older change was done after a newer one", name, late)
				}
				must(t, w.close())
			})
		}
	}
}

// TestChangesThatOverlapInAPart: a change waits for the earlier one also where that has not come to the part that both have.
func TestChangesThatOverlapInAPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1<<20, 64<<10)
		must(t, w.dev.WriteAt(t.Context(), make([]byte, 256<<10), 0))
		release := make(chan struct{})
		w.faults.SetHook(func(c faulty.Call) faulty.Action {
			if c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/") {
				return faulty.Delay(release)
			}
			return faulty.Pass()
		})
		var all [4]waiter
		offsets := [len(all)]int64{60 << 10, 64 << 10, 66 << 10, 160 << 10} // the first reaches into the next chunk, the last stands alone
		for i, off := range offsets {
			all[i] = waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
			r := &volume.Request{Kind: volume.Write, Offset: off, Data: pattern(8192, uint64(i)), Length: 8192, Done: all[i]}
			if w.dev.Submit(r) {
				all[i].Answered(r, r.Err)
				all[i].Released(r)
			}
			synctest.Wait()
			w.faults.SetHook(nil) // it holds up the first alone
		}
		for i, wt := range all {
			if ended := len(wt.answered) > 0; ended != (i == 3) {
				t.Errorf("write %d has ended: %v", i, ended)
			}
		}
		close(release)
		want := make([]byte, 256<<10)
		for i, wt := range all {
			must(t, <-wt.answered)
			<-wt.released
			copy(want[offsets[i]:], pattern(8192, uint64(i)))
		}
		if got := content(t, w.dev); !bytes.Equal(got[:len(want)], want) {
			t.Error("the writes were not done in the order in which they came")
		}
		must(t, w.close())
	})
}
