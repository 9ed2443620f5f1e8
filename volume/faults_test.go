package volume_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/volume"
)

func pattern(n int, seed uint64) []byte { return fill(rand.New(rand.NewPCG(seed, 77)), n) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within fails the test if fn does not end in time: a deadlock.
func within(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { fn(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		buf := make([]byte, 1<<20)
		t.Logf("%s: deadlock\n%s", what, buf[:runtime.Stack(buf, false)])
		panic(what + ": deadlock") // cleaning up would hang, too
	}
}

// TestSnapshotDuringClose: a snapshot while the device is closed does not name the journal again that goes with the last cut.
func TestSnapshotDuringClose(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	data := pattern(4096, 1)
	must(t, w.dev.WriteAt(t.Context(), data, 0))
	reached, release := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpUnlink && strings.Contains(c.Name, "/journal/") && once.CompareAndSwap(false, true) {
			close(reached)
			return faulty.Delay(release)
		}
		return faulty.Pass()
	})
	dev := w.dev
	closed := make(chan error, 1)
	go func() { closed <- dev.Close(context.Background()) }()
	<-reached
	_, err := dev.Snapshot(t.Context(), "late")
	t.Logf("snapshot during close: %v", err)
	close(release)
	t.Logf("close: %v", <-closed)
	w.dev = nil
	w.faults.SetHook(nil)
	must(t, w.open())
	if got := content(t, w.dev); !bytes.Equal(got[:4096], data) {
		t.Error("data is lost")
	}
}

// TestUnknownSwitchThenKill: a cut whose switch took effect though its outcome was unknown: objects must be named again by the journal.
func TestUnknownSwitchThenKill(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	must(t, w.dev.WriteAt(t.Context(), pattern(4096, 1), 0))
	must(t, w.dev.Flush(t.Context()))
	w.faults.SetHook(faulty.On(func(c faulty.Call) bool {
		return c.Kind == drivers.OpReplace && strings.Contains(c.Name, "/root/")
	}, faulty.FailAfter(faulty.ErrUnknown)))
	if _, err := w.dev.Cut(t.Context()); err == nil {
		t.Fatal("the cut succeeded")
	}
	w.faults.SetHook(nil)
	newer := pattern(4096, 2)
	must(t, w.dev.WriteAt(t.Context(), newer, 0)) // in place
	w.kill()
	if got := content(t, w.dev); !bytes.Equal(got[:4096], newer) {
		t.Fatal("lost by kill")
	}
	must(t, w.dev.Flush(t.Context()))
	w.crash(mem.KeepNone)
	if got := content(t, w.dev); !bytes.Equal(got[:4096], newer) {
		t.Error("a flushed write is lost")
	}
}

// TestFreezeWithFullJournal: freeze does not hold back the very cut that its flush waits for.
func TestFreezeWithFullJournal(t *testing.T) {
	w := newWorld(t, 64<<20, 64<<10)
	w.die()
	w.storage = w.storage.Kill()
	w.options.JournalSize, w.options.JournalLimit = 128<<10, 128<<10
	w.reopen()
	must(t, w.dev.WriteAt(t.Context(), pattern(16384, 1), 0))
	release, busy := make(chan struct{}), make(chan struct{})
	var hit atomic.Bool
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpRead && strings.Contains(c.Name, "/data/") && hit.CompareAndSwap(false, true) {
			close(busy)
			return faulty.Delay(release)
		}
		return faulty.Pass()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	frozen := make(chan error, 1)
	go func() { frozen <- w.dev.Freeze(ctx) }()
	<-busy // its flush reads what it will record
	full := make(chan struct{})
	go func() {
		defer close(full)
		for i, err := int64(1), error(nil); err == nil && i < 1000; i++ {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			err = w.dev.WriteAt(ctx, pattern(4096, 1), i*64<<10)
			cancel()
		}
	}()
	select {
	case <-full: // the journal is
	case <-time.After(time.Second): // or a cut waits for the flush
	}
	close(release)
	within(t, "freeze", func() {
		if err := <-frozen; err == nil {
			w.dev.Thaw()
		}
	})
	<-full
	must(t, w.dev.Flush(t.Context()))
}

// TestCloseWhileFrozen: close while frozen ends with its context.
func TestCloseWhileFrozen(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	must(t, w.dev.WriteAt(t.Context(), pattern(4096, 1), 0))
	must(t, w.dev.Freeze(t.Context()))
	dev := w.dev
	defer dev.Thaw()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	within(t, "close", func() { t.Logf("close: %v", dev.Close(ctx)) })
	w.dev = nil
}

// TestFreezeMakesAllDurable: what was answered before Freeze returned is durable.
func TestFreezeMakesAllDurable(t *testing.T) {
	for seed := range uint64(30) {
		w := newWorld(t, 1<<20, 64<<10)
		must(t, w.dev.WriteAt(t.Context(), pattern(4096, 1), 0))
		var last atomic.Uint64
		stop, enough, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for i := uint64(2); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if w.dev.WriteAt(context.Background(), pattern(4096, i), 0) != nil {
					return
				}
				last.Store(i)
				if i == 10+seed {
					close(enough)
				}
			}
		}()
		select {
		case <-enough:
		case <-ended:
			t.Fatal("writes fail")
		}
		must(t, w.dev.Freeze(t.Context()))
		n := last.Load()
		after := w.storage.Crash(mem.KeepNone)
		close(stop)
		w.dev.Thaw()
		<-ended
		w.powerOn(after)
		got := content(t, w.dev)[:4096]
		ok := bytes.Equal(got, pattern(4096, n)) || bytes.Equal(got, pattern(4096, n+1))
		if !ok {
			t.Fatalf("seed %d: write %d was answered before Freeze returned and is lost", seed, n)
		}
	}
}

// TestOverdueWriteIsDoneLater: a queued write that was answered at its deadline is not done after a newer one that was acknowledged.
func TestOverdueWriteIsDoneLater(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	w.die()
	w.storage = w.storage.Kill()
	w.options.Deadline, w.options.Workers = 50*time.Millisecond, 1
	w.reopen()
	must(t, w.dev.WriteAt(t.Context(), pattern(8192, 1), 0))
	release, busy := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	w.faults.SetInline(false)
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/0/8.") && once.CompareAndSwap(false, true) {
			close(busy)
			return faulty.Delay(release)
		}
		return faulty.Pass()
	})
	submit := func(r *volume.Request) waiter {
		wt := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
		r.Done = wt
		if w.dev.Submit(r) {
			t.Fatalf("inline: %v", r.Err)
		}
		return wt
	}
	stuck := submit(&volume.Request{Kind: volume.Write, Offset: 512 << 10, Length: 4096, Data: make([]byte, 4096)})
	<-busy
	older := submit(&volume.Request{Kind: volume.Write, Length: 4096, Data: pattern(4096, 2)})
	<-stuck.answered
	if err := <-older.answered; err == nil {
		t.Fatal("no deadline")
	}
	newer := pattern(4096, 3)
	must(t, w.dev.WriteAt(t.Context(), newer, 0)) // acknowledged
	close(release)
	<-stuck.released
	<-older.released
	if got := content(t, w.dev); !bytes.Equal(got[:4096], newer) {
		t.Error("an acknowledged write was undone by one that had been answered with an error before it began")
	}
}

// TestSnapshotOfUnknownInlineWrite: an inline write of unknown outcome, then a snapshot before it is hidden.
func TestSnapshotOfUnknownInlineWrite(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	w.die()
	w.storage = w.storage.Kill()
	w.options.Workers = 1
	w.reopen()
	base := pattern(8192, 1)
	must(t, w.dev.WriteAt(t.Context(), base, 0))
	release, busy := make(chan struct{}), make(chan struct{})
	var reads, writes atomic.Bool
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpRead && reads.CompareAndSwap(false, true) {
			close(busy)
			return faulty.Delay(release)
		}
		if c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/") && writes.CompareAndSwap(false, true) {
			return faulty.Late()
		}
		return faulty.Pass()
	})
	read := &volume.Request{Kind: volume.Read, Offset: 4096, Length: 512, Data: make([]byte, 512)}
	wr := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
	read.Done = wr
	if w.dev.Submit(read) {
		t.Fatal("inline")
	}
	<-busy
	w.faults.SetInline(true)
	write := &volume.Request{Kind: volume.Write, Length: 4096, Data: pattern(4096, 2)}
	ww := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
	write.Done = ww
	if w.dev.Submit(write) {
		t.Fatalf("inline: %v", write.Err)
	}
	w.faults.SetInline(false)
	_, err := w.dev.Snapshot(t.Context(), "s")
	close(release)
	must(t, <-wr.answered)
	must(t, <-ww.answered)
	if err != nil {
		t.Logf("snapshot: %v", err)
		return
	}
	before := w.snapshots()["s"]
	must(t, w.faults.Deliver(context.Background()))
	if !bytes.Equal(before, w.snapshots()["s"]) {
		t.Error("the snapshot changed: it depended on an operation under way")
	}
}

// TestSnapshotAfterUnknownAndNoSpace: a write of unknown outcome that cannot be hidden, then a snapshot.
func TestSnapshotAfterUnknownAndNoSpace(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	must(t, w.dev.WriteAt(t.Context(), pattern(8192, 1), 0))
	var hit atomic.Bool
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		switch {
		case c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/") && hit.CompareAndSwap(false, true):
			return faulty.Late()
		case c.Kind == drivers.OpCreate && strings.Contains(c.Name, "/data/"):
			return faulty.Fail(drivers.ErrNoSpace)
		}
		return faulty.Pass()
	})
	if err := w.dev.WriteAt(t.Context(), pattern(4096, 2), 0); err == nil {
		t.Fatal("it succeeded")
	}
	w.faults.SetHook(nil)
	_, err := w.dev.Snapshot(t.Context(), "s")
	if err != nil {
		t.Logf("snapshot: %v", err)
		return
	}
	before, here := w.snapshots()["s"], content(t, w.dev)
	must(t, w.faults.Deliver(context.Background()))
	if !bytes.Equal(here, content(t, w.dev)) {
		t.Error("the volume changed after it was read")
	}
	if !bytes.Equal(before, w.snapshots()["s"]) {
		t.Error("the snapshot changed: it depended on an operation under way")
	}
}

// TestLatePunchAfterReopen: a punch of unknown outcome is done after the volume was closed cleanly and opened again.
func TestLatePunchAfterReopen(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	must(t, w.dev.WriteAt(t.Context(), pattern(64<<10, 1), 0))
	w.faults.SetHook(faulty.OnKind(faulty.Late(), drivers.OpPunch))
	must(t, w.dev.Discard(t.Context(), 0, 8192))
	w.faults.SetHook(nil)
	must(t, w.dev.Flush(t.Context()))
	held := w.faults.TakeHeld()
	must(t, w.close())
	w.reopen()
	data := pattern(8192, 2)
	must(t, w.dev.WriteAt(t.Context(), data, 0))
	must(t, w.dev.Flush(t.Context()))
	for _, h := range held {
		_ = h.Deliver(context.Background(), w.storage)
	}
	if got := content(t, w.dev); !bytes.Equal(got[:8192], data) {
		t.Error("a flushed write was punched away by an operation of the last grant")
	}
}

// TestFailedSyncDuringReplay: a failed sync while a journal is applied.
func TestFailedSyncDuringReplay(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	data := pattern(4096, 1)
	must(t, w.dev.WriteAt(t.Context(), data, 0))
	must(t, w.dev.Flush(t.Context())) // the journal has it
	storage := w.storage.Kill()
	w.die()
	w.storage = storage
	w.begin = func(f *faulty.Backend) {
		f.SetHook(faulty.On(func(c faulty.Call) bool {
			return c.Kind == drivers.OpSync && strings.Contains(c.Name, "/data/")
		}, faulty.Fail(errBroken)))
	}
	w.start()
	if err := w.open(); err == nil {
		t.Fatal("it opened")
	}
	// The kernel reports a failed write-back once and drops the pages.
	storage = w.storage.Crash(func(m mem.Mutation) mem.Kept {
		if m.Kind == drivers.OpWrite {
			return mem.Nothing()
		}
		return mem.Everything()
	})
	w.begin = nil
	w.dev = nil
	w.die()
	w.storage = storage
	w.reopen()
	if got := content(t, w.dev); !bytes.Equal(got[:4096], data) {
		t.Error("a flushed write is lost, which the journal had")
	}
}

// TestFailedNoteOutlivesItsJournal: the note of a failure goes with the journal that it is about.
func TestFailedNoteOutlivesItsJournal(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	must(t, w.dev.WriteAt(t.Context(), pattern(4096, 1), 0))
	must(t, w.dev.Flush(t.Context()))
	w.faults.SetHook(faulty.OnKind(faulty.Fail(errBroken), drivers.OpSync))
	must(t, w.dev.WriteAt(t.Context(), pattern(4096, 2), 0))
	if err := w.dev.Flush(t.Context()); err == nil {
		t.Fatal("flush succeeded")
	}
	storage := w.storage.Kill()
	w.die()
	w.storage = storage
	// Opening dies after the root without a journal was stored.
	var roots atomic.Int64
	w.begin = func(f *faulty.Backend) {
		f.SetHook(func(c faulty.Call) faulty.Action {
			if c.Kind == drivers.OpReplace && strings.Contains(c.Name, "/root/") && roots.Add(1) > 1 {
				return faulty.Fail(errDead)
			}
			return faulty.Pass()
		})
	}
	w.start()
	if err := w.open(); err == nil {
		t.Fatalf("it opened after %d roots", roots.Load())
	}
	w.begin = nil
	storage = w.storage.Kill()
	w.dev = nil
	w.die()
	w.storage = storage
	w.reopen()
	if w.dev.Root().Failed && len(w.dev.Root().Journals) == 0 {
		t.Error("a root without a journal says that it failed")
	}
	data := pattern(4096, 3)
	must(t, w.dev.WriteAt(t.Context(), data, 128<<10))
	w.kill()
	if got := content(t, w.dev); !bytes.Equal(got[128<<10:][:4096], data) {
		t.Error("an acknowledged write is lost by kill -9")
	}
}

// TestFailedWithoutJournal: a failure noted when there is no journal.
func TestFailedWithoutJournal(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	w.faults.SetHook(faulty.On(func(c faulty.Call) bool {
		return c.Kind == drivers.OpReplace && strings.Contains(c.Name, "/snap/")
	}, faulty.Fail(faulty.ErrUnknown)))
	if _, err := w.dev.Snapshot(t.Context(), "s"); err == nil {
		t.Fatal("snapshot succeeded")
	}
	w.faults.SetHook(nil)
	w.kill()
	data := pattern(4096, 3)
	must(t, w.dev.WriteAt(t.Context(), data, 128<<10))
	w.kill()
	if got := content(t, w.dev); !bytes.Equal(got[128<<10:][:4096], data) {
		t.Error("an acknowledged write is lost by kill -9")
	}
}

// TestBackgroundSyncFails: a sync that the engine does in the background fails.
func TestBackgroundSyncFails(t *testing.T) {
	w := newWorld(t, 4<<20, 64<<10)
	var failed atomic.Bool
	w.engine.Close()
	w.die()
	w.storage = w.storage.Kill()
	w.faults = faulty.Wrap(w.storage)
	w.engine = drivers.NewEngine(w.faults, drivers.Options{MaxDirty: 4, MaxHandles: 16})
	w.holder = newHolder(w)
	w.options.JournalSize = 4 << 20
	must(t, w.open())
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpSync && strings.Contains(c.Name, "/data/") && failed.CompareAndSwap(false, true) {
			return faulty.Fail(errBroken)
		}
		return faulty.Pass()
	})
	for i := range int64(20) {
		if err := w.dev.WriteAt(t.Context(), pattern(4096, uint64(i)), i*64<<10); err != nil {
			t.Logf("write %d: %v", i, err)
		}
	}
	if !failed.Load() {
		t.Fatal("no background sync")
	}
	for len(w.engine.FailedSyncs()) == 0 {
		runtime.Gosched() // the cleaner is about to note it
	}
	t.Logf("device: %v", w.dev.Err())
	if err := w.dev.Flush(t.Context()); err == nil {
		t.Error("a flush succeeded after a sync in the background had failed")
	}
}

// TestNoSpaceForJournalLeaks: ENOSPC while the journal is made.
func TestNoSpaceForJournalLeaks(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	w.faults.SetHook(faulty.On(func(c faulty.Call) bool {
		return c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/journal/")
	}, faulty.Tear(100, drivers.ErrNoSpace)))
	for range 10 {
		if err := w.dev.WriteAt(t.Context(), pattern(4096, 1), 0); !errors.Is(err, drivers.ErrNoSpace) {
			t.Fatal(err)
		}
	}
	n := 0
	must(t, w.storage.List(t.Context(), "v/"+w.id.String()+"/journal", func(drivers.Info) error { n++; return nil }))
	if n > 1 {
		t.Errorf("%d journals were left behind on full storage", n)
	}
}

// TestStuckStorageThenSameInstance: a process that gave a volume up while the storage held a write of it does not get it again before that has ended, or nothing of it is undone.
func TestStuckStorageThenSameInstance(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	must(t, w.dev.WriteAt(t.Context(), pattern(8192, 1), 0))
	release, busy := make(chan struct{}), make(chan struct{})
	var hit atomic.Bool
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/") && hit.CompareAndSwap(false, true) {
			close(busy)
			return faulty.Delay(release)
		}
		return faulty.Pass()
	})
	r := &volume.Request{Kind: volume.Write, Length: 4096, Data: pattern(4096, 2)}
	wt := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
	r.Done = wt
	if w.dev.Submit(r) {
		t.Fatal("inline")
	}
	<-busy
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	old := w.dev
	if err := old.Close(ctx); err == nil {
		t.Fatal("close succeeded")
	}
	w.dev = nil
	if err := w.open(); err != nil { // the same process takes it again
		t.Logf("open: %v", err)
		close(release)
		<-wt.released
		return
	}
	newer := pattern(4096, 3)
	must(t, w.dev.WriteAt(t.Context(), newer, 0))
	must(t, w.dev.Flush(t.Context()))
	close(release)
	<-wt.released
	if got := content(t, w.dev); !bytes.Equal(got[:4096], newer) {
		t.Error("a flushed write was overwritten by one of the last grant")
	}
}

// TestReadsWhileFrozen: reads go on though changes are held up.
func TestReadsWhileFrozen(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	w.die()
	w.storage = w.storage.Kill()
	w.options.Workers = 2
	w.reopen()
	must(t, w.dev.WriteAt(t.Context(), pattern(8192, 1), 0))
	w.faults.SetHook(func(faulty.Call) faulty.Action { return faulty.Pass() }) // nothing is inline
	must(t, w.dev.Freeze(t.Context()))
	var ws []waiter
	for range 2 {
		r := &volume.Request{Kind: volume.Write, Length: 4096, Data: pattern(4096, 2)}
		wt := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
		r.Done = wt
		w.dev.Submit(r)
		ws = append(ws, wt)
	}
	r := &volume.Request{Kind: volume.Read, Length: 4096, Data: make([]byte, 4096)}
	wt := waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
	r.Done = wt
	w.dev.Submit(r)
	select {
	case <-wt.answered:
		<-wt.released
	case <-time.After(time.Second):
		t.Error("a read waits for Thaw")
	}
	w.dev.Thaw()
	for _, x := range ws {
		<-x.released
	}
}

// TestDroppedWhileWritten: a discard takes the last block of an object into which another write is about to put one.
func TestDroppedWhileWritten(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	must(t, w.dev.WriteAt(t.Context(), pattern(4096, 1), 0))
	release, busy := make(chan struct{}), make(chan struct{})
	var hit atomic.Bool
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/") && hit.CompareAndSwap(false, true) {
			close(busy)
			return faulty.Delay(release)
		}
		return faulty.Pass()
	})
	data := pattern(4096, 2)
	written := make(chan error, 1)
	go func() { written <- w.dev.WriteAt(context.Background(), data, 8192) }()
	<-busy
	must(t, w.dev.Discard(t.Context(), 0, 4096))
	close(release)
	must(t, <-written)
	must(t, w.dev.Flush(t.Context()))
	_, err := w.dev.Cut(t.Context())
	must(t, err)
	got := make([]byte, 4096)
	if err := w.dev.ReadAt(t.Context(), got, 8192); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a flushed write is lost: %v", err)
	}
}

// TestUnknownSwitchOfFirstJournal: the root that names the first journal has an unknown outcome, though it is there.
func TestUnknownSwitchOfFirstJournal(t *testing.T) {
	w := newWorld(t, 1<<20, 64<<10)
	var hit atomic.Bool
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpReplace && strings.Contains(c.Name, "/root/") && hit.CompareAndSwap(false, true) {
			return faulty.FailAfter(faulty.ErrUnknown)
		}
		return faulty.Pass()
	})
	data := pattern(4096, 1)
	if err := w.dev.WriteAt(t.Context(), data, 0); err == nil {
		t.Fatal("it succeeded")
	}
	must(t, w.dev.WriteAt(t.Context(), data, 0))
	must(t, w.dev.Flush(t.Context()))
	w.kill()
	if got := content(t, w.dev); !bytes.Equal(got[:4096], data) {
		t.Error("a flushed write is lost")
	}
}

// TestJournalsAreRemoved: a larger journal that was made in vain is removed.
func TestJournalsAreRemoved(t *testing.T) {
	w := newWorld(t, 8<<20, 64<<10)
	w.die()
	w.storage = w.storage.Kill()
	w.options.JournalSize, w.options.JournalLimit = 64<<10, 256<<10
	w.reopen()
	var pages atomic.Int64
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpCreate && strings.Contains(c.Name, "/page/") && pages.Add(1) <= 2 {
			return faulty.Fail(drivers.ErrNoSpace)
		}
		return faulty.Pass()
	})
	for i := range 300 {
		if err := w.dev.WriteAt(t.Context(), pattern(512, uint64(i)), int64(i%100)*4096*3); err == nil {
			_ = w.dev.Flush(t.Context())
		}
	}
	must(t, w.dev.Err())
	must(t, w.close())
	w.reopen()
	n := 0
	must(t, w.storage.List(t.Context(), "v/"+w.id.String()+"/journal", func(drivers.Info) error { n++; return nil }))
	if n != 0 {
		t.Errorf("%d journals are left after a clean close", n)
	}
}

// TestReopenAfterFailedSyncInSameProcess: a volume that failed can be opened again by the same process.
func TestReopenAfterFailedSyncInSameProcess(t *testing.T) {
	w := newWorld(t, 4<<20, 64<<10)
	w.die()
	w.storage = w.storage.Kill()
	w.options.JournalSize = 64 << 10
	w.reopen()
	flushed := pattern(4096, 1)
	must(t, w.dev.WriteAt(t.Context(), flushed, 0))
	must(t, w.dev.Flush(t.Context()))
	var hit atomic.Bool
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpSync && strings.Contains(c.Name, "/data/") && hit.CompareAndSwap(false, true) {
			return faulty.Fail(errBroken)
		}
		return faulty.Pass()
	})
	for i := range int64(80) {
		if w.dev.WriteAt(t.Context(), pattern(4096, 2), i*8192) != nil {
			break // a cut met the failure already
		}
	}
	if err := w.dev.Flush(t.Context()); err == nil {
		t.Fatal("flush succeeded")
	}
	_ = w.dev.Close(t.Context())
	w.dev = nil
	w.faults.SetHook(nil)
	for range 2 {
		err := w.open()
		if err != nil {
			t.Fatalf("open again in the same process: %v", err)
		}
		must(t, w.dev.WriteAt(t.Context(), pattern(4096, 3), 8192))
		must(t, w.dev.Flush(t.Context()))
		must(t, w.dev.Close(t.Context()))
		w.dev = nil
	}
}

func newHolder(w *world) *locking.Instance {
	return locking.NewInstance(w.engine, locking.Identity{Host: "test", Boot: [16]byte{w.boot}}, locking.Options{})
}
