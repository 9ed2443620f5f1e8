package volume_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/volume"
)

// TestFreezeThatIsGivenUp: the volume goes on, whatever the flush that belongs to it was about to do.
func TestFreezeThatIsGivenUp(t *testing.T) {
	for _, kind := range []drivers.Kind{drivers.OpWrite, drivers.OpSync} {
		t.Run(kind.String(), func(t *testing.T) {
			w := newWorld(t, 256<<10, 64<<10)
			want := pattern(4096, 1)
			must(t, w.dev.WriteAt(t.Context(), make([]byte, 8192), 0))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			flushes := 0
			w.faults.SetHook(func(c faulty.Call) faulty.Action {
				if !strings.Contains(c.Name, "/journal/") {
					return faulty.Pass()
				}
				switch {
				case c.Kind == drivers.OpSync && flushes == 0:
					flushes++
					must(t, w.dev.WriteAt(context.Background(), want, 0)) // while the first flush is under way
				case c.Kind == kind && flushes == 1:
					cancel()
				}
				return faulty.Pass()
			})
			if err := w.dev.Freeze(ctx); err == nil {
				w.dev.Thaw()
			}
			w.faults.SetHook(nil)
			if err := w.dev.Err(); err != nil {
				t.Fatalf("the volume failed: %v", err)
			}
			must(t, w.dev.Flush(t.Context()))
			must(t, w.close())
		})
	}
}

// TestCloseThatGivesUpLeavesNoGoroutines: when the storage answers at last all of the device ends.
func TestCloseThatGivesUpLeavesNoGoroutines(t *testing.T) {
	giveUp := func(t *testing.T, w *world, dev *volume.Device) {
		release := make(chan struct{})
		w.faults.SetHook(faulty.OnKind(faulty.Delay(release), drivers.OpRead))
		read := &volume.Request{Kind: volume.Read, Length: 4096, Data: make([]byte, 4096)}
		end := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
		read.Done = end
		if dev.Submit(read) {
			t.Fatal("done at once")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := dev.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("close: %v", err)
		}
		close(release)
		<-end.released
	}
	t.Run("volume", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 256<<10, 64<<10)
			must(t, w.dev.WriteAt(t.Context(), make([]byte, 8192), 0))
			giveUp(t, w, w.dev)
			w.dev = nil
		})
	})
	t.Run("snapshot", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 256<<10, 64<<10)
			must(t, w.dev.WriteAt(t.Context(), make([]byte, 8192), 0))
			s, err := w.dev.Snapshot(t.Context(), "s")
			must(t, err)
			must(t, w.close())
			w.start()
			dev, err := volume.OpenSnapshot(t.Context(), volume.Config{Engine: w.engine}, s)
			must(t, err)
			giveUp(t, w, dev)
		})
	})
}

// TestCloseGivesUpInTime: also while the background waits for the same requests, to remove what they may read.
func TestCloseGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 256<<10, 64<<10)
		must(t, w.dev.WriteAt(t.Context(), make([]byte, 64<<10), 0))
		_, err := w.dev.Cut(t.Context())
		must(t, err)
		release := make(chan struct{})
		var stuck atomic.Bool
		w.faults.SetHook(faulty.On(func(c faulty.Call) bool { return c.Kind == drivers.OpRead && !stuck.Swap(true) }, faulty.Delay(release)))
		read := &volume.Request{Kind: volume.Read, Length: 4096, Data: make([]byte, 4096)}
		read.Done = waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
		if w.dev.Submit(read) {
			t.Fatal("done at once")
		}
		synctest.Wait()
		must(t, w.dev.Discard(t.Context(), 0, 64<<10))
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := w.dev.Cut(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cut: %v", err)
		}
		for range 100 { // the journal fills up, and when it is made larger the background tries again to remove what the cut could not
			must(t, w.dev.WriteAt(t.Context(), make([]byte, 4096), 64<<10))
			must(t, w.dev.Flush(t.Context()))
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := w.dev.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("close, after %v: %v", time.Since(began), err)
		}
		w.dev = nil
		close(release)
		<-read.Done.(waiter).released
	})
}

// TestDiscardThatIsGivenUp: the storage says too late that it does not know whether it gave space back. The volume goes on.
func TestDiscardThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 256<<10, 64<<10)
		must(t, w.dev.WriteAt(t.Context(), pattern(64<<10, 1), 0))
		release := make(chan struct{})
		late := faulty.Late()
		late.Wait = release
		w.faults.SetHook(faulty.OnKind(late, drivers.OpPunch))
		discard := &volume.Request{Kind: volume.Discard, Length: 8192}
		end := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
		discard.Done = end
		if w.dev.Submit(discard) {
			t.Fatal("done at once")
		}
		if err := <-end.answered; !errors.Is(err, drivers.ErrUnavailable) {
			t.Errorf("discard: %v", err)
		}
		want := pattern(64<<10, 2)
		written := make(chan error)
		go func() { written <- w.dev.WriteAt(t.Context(), want, 0) }()
		synctest.Wait() // it waits for the discard, which has been answered
		close(release)
		<-end.released
		must(t, <-written)
		w.faults.SetHook(nil)
		if err := w.dev.Err(); err != nil {
			t.Fatalf("the volume failed: %v", err)
		}
		if got := content(t, w.dev)[:64<<10]; !bytes.Equal(got, want) {
			t.Error("what was written after the discard was answered is gone")
		}
		must(t, w.faults.Deliver(t.Context()))
		if got := content(t, w.dev)[:64<<10]; !bytes.Equal(got, want) {
			t.Error("the content is wrong after the storage has given the space back")
		}
		must(t, w.close())
	})
}
