package drivers_test

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"skerry/drivers"
	"skerry/drivers/faulty"
)

// one is a worker in each lane.
var one = drivers.Options{Workers: [drivers.LaneCount]int{1, 1, 1, 1}}

func TestCallersThatWaitDoTheirOperationsThemselves(t *testing.T) {
	b := newBed(t, drivers.Options{})
	b.must(b.guest.Create(b.ctx, "o"))
	var stack string
	b.faulty.SetHook(func(c faulty.Call) faulty.Action {
		buf := make([]byte, 64<<10)
		stack = string(buf[:runtime.Stack(buf, false)])
		return faulty.Pass()
	})
	b.must(b.guest.WriteAt(b.ctx, "o", []byte("x"), 0))
	if strings.Contains(stack, "(*lane).work") {
		t.Errorf("the write ran elsewhere:\n%s", stack)
	}
	b.must(b.guest.Sync(b.ctx, "o"))
	if strings.Contains(stack, "(*lane).work") {
		t.Errorf("the sync ran elsewhere:\n%s", stack)
	}
	// Whoever may stop waiting leaves it to a worker.
	b.must(b.guest.Sync(t.Context(), "o"))
	if !strings.Contains(stack, "(*lane).work") {
		t.Errorf("a sync that can be given up ran on the caller's goroutine:\n%s", stack)
	}
	b.faulty.SetHook(nil)
	b.must(b.engine.Close())
}

func TestCallersThatDoTheirOperationsCountAsWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, one)
		b.must(b.guest.Create(b.ctx, "o"))
		release := b.stick(drivers.OpRead, drivers.OpWrite)
		ended := make(chan error)
		go func() { ended <- b.guest.WriteAt(b.ctx, "o", []byte("x"), 0) }()
		synctest.Wait()
		r := newResults(2)
		for range 2 {
			b.engine.Submit(opOf(drivers.OpRead, drivers.LaneGuest, "o", r))
		}
		go func() { ended <- b.guest.WriteAt(b.ctx, "o", []byte("y"), 1) }()
		synctest.Wait()
		if s := b.engine.Stats().Lanes[drivers.LaneGuest]; s.Running != 1 || s.Queued != 3 {
			t.Errorf("%d are running and %d wait, want 1 and 3", s.Running, s.Queued)
		}
		release()
		b.must(<-ended)
		b.must(<-ended)
		<-r.done
		b.must(b.engine.Close())
	})
}

func TestCloseWaitsForCallersThatDoTheirOperations(t *testing.T) {
	for _, queued := range []int{0, 1, 3} {
		synctest.Test(t, func(t *testing.T) {
			b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{2, 2, 2, 2}})
			b.must(b.guest.Create(b.ctx, "o"))
			release := b.stick(drivers.OpRead, drivers.OpWrite)
			ended := make(chan error, 2)
			for range 2 {
				go func() { ended <- b.guest.WriteAt(b.ctx, "o", []byte("x"), 0) }()
			}
			synctest.Wait()
			r := newResults(queued)
			for range queued {
				b.engine.Submit(opOf(drivers.OpRead, drivers.LaneGuest, "o", r))
			}
			synctest.Wait()
			closed := make(chan error, 1)
			go func() { closed <- b.engine.Close() }()
			synctest.Wait()
			select {
			case <-closed:
				t.Error("Close returned while operations run")
			default:
			}
			b.is(b.guest.WriteAt(b.ctx, "o", []byte("x"), 0), drivers.ErrClosed)
			release()
			b.must(<-closed)
			b.must(<-ended)
			b.must(<-ended)
			if got := r.count(); got != queued {
				t.Errorf("%d of %d queued operations were done", got, queued)
			}
		})
	}
}

// TestCallersThatDoTheirOperationsKeepToTheBounds: they take no bytes beyond the lane's, nor those that another waits for.
func TestCallersThatDoTheirOperationsKeepToTheBounds(t *testing.T) {
	for _, c := range []struct{ waits, n int }{{0, 8}, {8, 1}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBed(t, drivers.Options{MaxBytes: 10})
			b.must(b.guest.Create(b.ctx, "o"))
			release := b.stick(drivers.OpRead, drivers.OpWrite)
			ended := make(chan error, 3)
			write := func(n int) {
				go func() { ended <- b.guest.WriteAt(b.ctx, "o", make([]byte, n), 0) }()
				synctest.Wait()
			}
			write(8)
			writes := 2
			if c.waits > 0 {
				write(c.waits)
				writes++
			}
			write(c.n)
			if s := b.engine.Stats().Lanes[drivers.LaneGuest]; s.Running != 1 {
				t.Errorf("%d bytes, with %d that wait: %d operations are running, want 1", c.n, c.waits, s.Running)
			}
			release()
			for range writes {
				b.must(<-ended)
			}
			b.must(b.engine.Close())
		})
	}
}
