package drivers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/local"
	"skerry/drivers/mem"
)

func TestNames(t *testing.T) {
	for name, valid := range map[string]bool{
		"a": true, "a/b": true, "A-Z_0.9+@": true, "a..b": true, "a/b.": true, strings.Repeat("x", drivers.MaxName): true,
		"": false, "/": false, "/a": false, "a/": false, "a//b": false, ".": false, "..": false, ".a": false, "a/.b": false,
		"a/..": false, "a b": false, "a\x00": false, "é": false, strings.Repeat("x", drivers.MaxName+1): false,
	} {
		if drivers.ValidName(name) != valid {
			t.Errorf("name %q: valid is not %v", name, valid)
		}
	}
	for name, group := range map[string]string{"a": "", "a/b": "a", "a/b/c": "a/b"} {
		if got := drivers.Group(name); got != group {
			t.Errorf("group of %q is %q", name, got)
		}
	}
}

func TestKindsAndLanesHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for k := drivers.OpRead; k <= drivers.OpLock; k++ {
		seen[k.String()] = true
	}
	for l := range drivers.LaneCount {
		seen[drivers.Lane(l).String()] = true
	}
	if len(seen) != int(drivers.OpLock)+1+drivers.LaneCount || seen["unknown"] {
		t.Errorf("names %v", seen)
	}
	if drivers.Kind(99).String() != "unknown" || drivers.Lane(99).String() != "unknown" {
		t.Error("an unknown one has a name")
	}
}

// TestSubmitterWithoutRoomCanGiveUp also lets the next one in.
func TestSubmitterWithoutRoomCanGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{1, 1, 1, 1}, MaxBytes: 3000})
		b.must(b.guest.Create(b.ctx, "o"))
		release := b.stick(drivers.OpRead)
		ended := make(chan error, 10)
		ctx, cancel := context.WithCancel(b.ctx)
		read := func(ctx context.Context, n int) {
			go func() { ended <- b.guest.ReadAt(ctx, "o", make([]byte, n), 0) }()
			synctest.Wait()
		}
		read(b.ctx, 1000) // runs
		read(b.ctx, 1000) // waits
		read(b.ctx, 2000) // has no room
		read(ctx, 2500)   // nor has this
		read(ctx, 2500)
		read(b.ctx, 10) // waits behind them, although there is room
		if s := b.engine.Stats().Lanes[drivers.LaneGuest]; s.Queued != 1 {
			t.Errorf("%d are queued, want 1", s.Queued)
		}
		cancel()
		for range 2 {
			b.is(<-ended, context.Canceled)
		}
		synctest.Wait()
		if s := b.engine.Stats().Lanes[drivers.LaneGuest]; s.Queued != 1 {
			t.Errorf("%d are queued, want 1", s.Queued)
		}
		release()
		for range 4 {
			b.must(<-ended)
		}
		b.must(b.engine.Close())
	})
}

func TestManyTenants(t *testing.T) {
	b := newBed(t, drivers.Options{})
	b.must(b.guest.Create(b.ctx, "o"))
	const n = 5000
	r := newResults(n)
	for i := range n {
		op := opOf(drivers.OpRead, drivers.LaneGuest, "o", r)
		op.Tenant = uint64(i)
		b.engine.Submit(op)
	}
	<-r.done
	b.must(b.engine.Close())
}

// TestCreateAfterRemovalByAnother: a cached handle of an object that another process removed is given up.
func TestCreateAfterRemovalByAnother(t *testing.T) {
	b := newBed(t, drivers.Options{})
	b.must(b.guest.Create(b.ctx, "o"))
	b.must(b.guest.WriteAt(b.ctx, "o", []byte("old"), 0))
	b.must(b.faulty.Unlink(b.ctx, "o"))
	b.must(b.meta.Create(b.ctx, "o"))
	p := make([]byte, 3)
	b.must(b.guest.ReadAt(b.ctx, "o", p, 0))
	if string(p) != "\x00\x00\x00" {
		t.Errorf("read %q", p)
	}
	if s := b.engine.Stats(); s.Handles != 1 || s.Dirty != 0 {
		t.Errorf("%d handles, %d dirty", s.Handles, s.Dirty)
	}
	b.must(b.engine.Close())
}

// TestDropCacheReopensWhatIsClean: and what is dirty once it is synced.
func TestDropCacheReopensWhatIsClean(t *testing.T) {
	w := newWatched()
	b := bedOver(t, w, drivers.Options{})
	b.must(b.guest.Create(b.ctx, "o"))
	b.must(b.guest.WriteAt(b.ctx, "o", []byte("x"), 0))
	b.must(b.back.DropCache(b.ctx, "o"))
	if s := b.engine.Stats(); s.Handles != 1 || s.Dirty != 1 {
		t.Errorf("%d handles, %d dirty, want 1 and 1", s.Handles, s.Dirty)
	}
	b.must(b.guest.Sync(b.ctx, "o"))
	if s := b.engine.Stats(); s.Handles != 0 {
		t.Errorf("%d handles, want none", s.Handles)
	}
	b.must(b.guest.ReadAt(b.ctx, "o", make([]byte, 1), 0))
	b.must(b.back.DropCache(b.ctx, "o"))
	b.must(b.guest.ReadAt(b.ctx, "o", make([]byte, 1), 0))
	if w.opens["o"] != 3 || len(w.faults) > 0 {
		t.Errorf("opened %d times, want 3; closed dirty: %v", w.opens["o"], w.faults)
	}
	b.is(b.back.DropCache(b.ctx, "none"), drivers.ErrNotFound)
	b.must(b.engine.Close())
}

// inlineBed has an engine whose inline I/O goes through the hook.
func inlineBed(t *testing.T) *bed {
	b := bedOver(t, mem.New(mem.Options{}), drivers.Options{})
	b.faulty.SetInline(true)
	return b
}

func TestCloseWaitsForInlineIO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := inlineBed(t)
		b.must(b.guest.Create(b.ctx, "o"))
		release := b.stick(drivers.OpWrite)
		written, closed := make(chan error, 1), make(chan error, 1)
		go func() { written <- b.guest.WriteAt(b.ctx, "o", []byte("x"), 0) }()
		synctest.Wait()
		go func() { closed <- b.engine.Close() }()
		synctest.Wait()
		if len(closed) > 0 {
			t.Error("Close returned while a write runs")
		}
		b.is(b.guest.WriteAt(b.ctx, "o", []byte("x"), 0), drivers.ErrClosed)
		release()
		b.must(<-written)
		b.must(<-closed)
	})
}

func TestUnlinkDuringInlineIO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := inlineBed(t)
		b.must(b.guest.Create(b.ctx, "o"))
		release := b.stick(drivers.OpRead)
		read := make(chan error, 1)
		go func() { read <- b.guest.ReadAt(b.ctx, "o", make([]byte, 1), 0) }()
		synctest.Wait()
		b.must(b.meta.Unlink(b.ctx, "o"))
		release()
		b.must(<-read)
		synctest.Wait()
		if n := b.engine.Stats().Handles; n != 0 {
			t.Errorf("%d handles", n)
		}
		b.must(b.engine.Close())
	})
}

func TestTryDoesOnlyWhatDoesNotBlock(t *testing.T) {
	for name, o := range map[string]mem.Options{"inline": {}, "queued": {NoInline: true}} {
		b := bedOver(t, mem.New(o), drivers.Options{})
		b.must(b.guest.Create(b.ctx, "o"))
		op := opOf(drivers.OpWrite, drivers.LaneGuest, "o", nil)
		op.Data = []byte("x")
		if done := b.engine.Try(op); done != (name == "inline") || op.Err != nil {
			t.Errorf("%s: done %v, %v", name, done, op.Err)
		}
		op.Name = []byte("closed")
		if b.engine.Try(op) {
			t.Errorf("%s: done on an object that is not open", name)
		}
		op.Kind, op.Name = drivers.OpStat, []byte("o")
		if b.engine.Try(op) {
			t.Errorf("%s: a stat was done", name)
		}
		b.must(b.engine.Close())
		op.Kind = drivers.OpRead
		if b.engine.Try(op) {
			t.Errorf("%s: done after Close", name)
		}
	}
}

// TestErrorAtEveryCall fails each call of a story in turn: the engine answers the error, keeps its counts right, and goes on.
func TestErrorAtEveryCall(t *testing.T) {
	broken := errors.New("broken")
	story := func(b *bed) []error {
		c := b.guest
		_, e1 := c.Load(b.ctx, "s")
		return []error{
			c.Create(b.ctx, "o"), c.WriteAt(b.ctx, "o", []byte("x"), 0), c.Sync(b.ctx, "o"), c.SyncGroup(b.ctx, ""),
			c.PunchHole(b.ctx, "o", 0, 1), c.ReadAt(b.ctx, "o", make([]byte, 1), 0), c.DropCache(b.ctx, "o"),
			c.ReadAt(b.ctx, "o", make([]byte, 1), 0), c.Replace(b.ctx, "s", nil, drivers.Condition{}), e1,
			c.Unlink(b.ctx, "o"),
		}
	}
	for n := int64(1); ; n++ {
		b := newBed(t, drivers.Options{})
		b.must(b.meta.Replace(b.ctx, "s", nil, drivers.Condition{}))
		first := b.faulty.Calls()
		b.faulty.SetHook(faulty.At(first+n, faulty.Fail(broken)))
		hits := 0
		for _, err := range story(b) {
			if errors.Is(err, broken) {
				hits++
			}
		}
		if b.faulty.Calls() < first+n { // past the end of the story
			b.must(b.engine.Close())
			if n < 10 {
				t.Errorf("the story has %d calls only", n-1)
			}
			return
		}
		if hits == 0 {
			t.Errorf("nobody was told of the error of call %d", n)
		}
		b.faulty.SetHook(nil)
		if err := b.guest.Create(b.ctx, "another"); err != nil {
			t.Errorf("after the error of call %d: %v", n, err)
		}
		if s := b.engine.Stats(); s.Handles > 2 || s.Dirty > 1 {
			t.Errorf("after the error of call %d: %d handles, %d dirty", n, s.Handles, s.Dirty)
		}
		b.must(b.engine.Close())
	}
}

// TestEngineOverFiles is TestRandomUse on a real file system.
func TestEngineOverFiles(t *testing.T) {
	l, err := local.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := bedOver(t, l, drivers.Options{MaxHandles: 6, MaxDirty: 3})
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			c := b.engine.Client(drivers.Lane(w%drivers.LaneCount), uint64(w), nil)
			if err := useRandomly(b.ctx, c, fmt.Sprintf("g/own%d", w), newRand(w), 200); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b.must(b.engine.Close())
}
