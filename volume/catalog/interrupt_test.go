package catalog_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/catalog"
)

// TestInterruptedSnapshotIsNoCleanEnd interrupts a snapshot when the root is to be switched. The device that took it gives up with requests that
// may still be under way, so the lease must not be released as if nothing were.
func TestInterruptedSnapshotIsNoCleanEnd(t *testing.T) {
	for range 16 { // what ends first is not the same each time
		b := faulty.Wrap(mem.New(mem.Options{}))
		p := initialize(t, b)
		made := p.create("vm1", gib)
		p.write("vm1", 0, mib, 1)
		before, err := p.Inspect(t.Context(), made.ID)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		b.SetHook(func(c faulty.Call) faulty.Action {
			if c.Kind == drivers.OpReplace && strings.HasPrefix(c.Name, chunk.GroupName(made.ID, chunk.Snapshots)) {
				cancel()
			}
			return faulty.Pass()
		})
		_, err = p.Snapshot(ctx, catalog.Ref{Volume: "vm1", Snapshot: "s1"})
		b.SetHook(nil)
		if err == nil {
			t.Fatal("it succeeded")
		}
		root, err := p.Inspect(t.Context(), made.ID)
		if err != nil || root.Generation == before.Generation || !root.Held || root.State != mapper.Live {
			t.Fatalf("root %+v, %v", root, err)
		}
		cancel()
	}
}

// hung is a creation with a write that the storage does not end.
type hung struct {
	*process
	creation *catalog.Creation
	storage  drivers.Backend
	release  func()        // the storage ends it
	written  chan error    // then
	early    *atomic.Int64 // counts objects that were removed before
}

func newHung(t *testing.T) hung {
	b := faulty.Wrap(mem.New(mem.Options{}))
	p := initialize(t, b)
	c, err := p.Begin(t.Context(), "new", catalog.CreateOptions{Size: gib, Keep: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	reached, gate := make(chan struct{}), make(chan struct{})
	h := hung{process: p, creation: c, written: make(chan error, 1), storage: b, early: new(atomic.Int64)}
	h.release = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(h.release)
	b.SetHook(func(call faulty.Call) faulty.Action {
		switch {
		case call.Kind == drivers.OpWrite && strings.Contains(call.Name, "/data/"):
			close(reached)
			return faulty.Delay(gate)
		case call.Kind == drivers.OpUnlink:
			select {
			case <-gate:
			default:
				h.early.Add(1)
			}
		}
		return faulty.Pass()
	})
	go func() { h.written <- c.Device().WriteAt(context.Background(), make([]byte, 4096), 0) }()
	<-reached
	return h
}

// ended returns a context that has ended.
func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// resume goes on with the creation once the storage has ended what it had under way.
func (h hung) resume() *catalog.Creation {
	h.t.Helper()
	h.release()
	<-h.written // fails if the lease was lost
	for {
		c, err := h.Resume(h.t.Context(), "new", time.Hour, func([]byte) error { return nil })
		if err == nil {
			return c
		}
		if !errors.Is(err, catalog.ErrExists) {
			h.t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// TestSuspendLeavesTheLeaseToWhatIsUnderWay: a creation is not resumed beside a write that the storage has not ended.
func TestSuspendLeavesTheLeaseToWhatIsUnderWay(t *testing.T) {
	h := newHung(t)
	if err := h.creation.Suspend(ended(t)); err == nil {
		t.Fatal("it succeeded")
	}
	_, err := h.Resume(t.Context(), "new", time.Hour, func([]byte) error { return nil })
	if !errors.Is(err, catalog.ErrExists) {
		t.Fatalf("it is resumed beside a write: %v", err)
	}
	if _, err := h.Remove(t.Context(), catalog.Ref{Volume: "new"}, catalog.RemoveOptions{}); err == nil {
		t.Fatal("it is removed beside a write")
	}
	if err := h.resume().Abort(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAbortRemovesNothingBesideAWrite: what the storage has not ended could bring an object back.
func TestAbortRemovesNothingBesideAWrite(t *testing.T) {
	h := newHung(t)
	if err := h.creation.Abort(ended(t)); err == nil || !strings.Contains(err.Error(), "gc removes it") {
		t.Fatal(err)
	}
	if err := h.resume().Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if n := h.early.Load(); n > 0 {
		t.Errorf("%d objects were removed beside a write", n)
	}
}

// TestInterruptedCommitLeavesNothing: it removes what there is once the storage lets it.
func TestInterruptedCommitLeavesNothing(t *testing.T) {
	h := newHung(t)
	committed := make(chan error, 1)
	go func() {
		_, err := h.creation.Commit(ended(t))
		committed <- err
	}()
	for !errors.Is(h.creation.Device().ReadAt(t.Context(), make([]byte, 1), mib), volume.ErrClosed) { // the device is being closed
		runtime.Gosched()
	}
	h.release()
	if err := <-committed; err == nil {
		t.Fatal("it succeeded")
	}
	if n := h.early.Load(); n > 0 {
		t.Errorf("%d objects were removed beside a write", n)
	}
	if left := objects(t, h.storage); len(left) > 0 {
		t.Errorf("%s is left", left)
	}
}
