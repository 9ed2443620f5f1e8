package drivers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
)

func TestClientDoesEverything(t *testing.T) {
	for name, o := range map[string]mem.Options{"inline": {}, "queued": {NoInline: true}} {
		t.Run(name, func(t *testing.T) {
			b := bedOver(t, mem.New(o), drivers.Options{})
			c := b.guest
			b.must(c.Create(b.ctx, "g/o"))
			b.is(c.Create(b.ctx, "g/o"), drivers.ErrExists)
			b.must(c.Open(b.ctx, "g/o"))
			b.is(c.Open(b.ctx, "g/none"), drivers.ErrNotFound)
			b.must(c.WriteAt(b.ctx, "g/o", []byte("hello world"), 5))
			b.must(c.PunchHole(b.ctx, "g/o", 6, 2))
			b.must(c.Allocate(b.ctx, "g/o", 0, 10))
			b.must(c.Sync(b.ctx, "g/o"))
			b.must(c.SyncGroup(b.ctx, "g"))
			b.must(c.DropCache(b.ctx, "g/o"))
			p := make([]byte, 11)
			b.must(c.ReadAt(b.ctx, "g/o", p, 5))
			if string(p) != "h\x00\x00lo world" {
				t.Errorf("read %q", p)
			}
			i, err := c.Stat(b.ctx, "g/o")
			b.must(err)
			if i.Name != "g/o" || i.Size != 16 {
				t.Errorf("info %+v", i)
			}
			b.must(c.Replace(b.ctx, "g/s", []byte("small"), drivers.Condition{Absent: true}))
			b.is(c.Replace(b.ctx, "g/s", nil, drivers.Condition{Absent: true}), drivers.ErrExists)
			b.is(c.Replace(b.ctx, "g/s", nil, drivers.Condition{Prefix: []byte("x")}), drivers.ErrConflict)
			data, err := c.Load(b.ctx, "g/s")
			b.must(err)
			if string(data) != "small" {
				t.Errorf("loaded %q", data)
			}
			var names []string
			b.must(c.List(b.ctx, "g", func(i drivers.Info) error {
				names = append(names, i.Name)
				return c.Unlink(b.ctx, i.Name) // the engine may be used from there
			}))
			if !slices.Equal(names, []string{"g/o", "g/s"}) {
				t.Errorf("listed %v", names)
			}
			_, err = c.Stat(b.ctx, "g/o")
			b.is(err, drivers.ErrNotFound)
			b.must(b.engine.Close())
		})
	}
}

type guard struct{ err atomic.Pointer[error] }

func (g *guard) Err() error {
	if p := g.err.Load(); p != nil {
		return *p
	}
	return nil
}

func TestGuardStopsMutations(t *testing.T) {
	lost := errors.New("lease lost")
	for name, o := range map[string]mem.Options{"inline": {}, "queued": {NoInline: true}} {
		t.Run(name, func(t *testing.T) {
			b := bedOver(t, mem.New(o), drivers.Options{})
			g := &guard{}
			c := b.engine.Client(drivers.LaneGuest, 1, g)
			b.must(c.Create(b.ctx, "o"))
			b.must(c.WriteAt(b.ctx, "o", []byte("x"), 0))
			g.err.Store(&lost)
			calls := b.faulty.Calls()
			b.is(c.WriteAt(b.ctx, "o", []byte("y"), 0), lost)
			b.is(c.PunchHole(b.ctx, "o", 0, 1), lost)
			b.is(c.Allocate(b.ctx, "o", 0, 1), lost)
			b.is(c.Create(b.ctx, "p"), lost)
			b.is(c.Unlink(b.ctx, "o"), lost)
			b.is(c.Replace(b.ctx, "o", nil, drivers.Condition{}), lost)
			if n := b.faulty.Calls() - calls; n != 0 {
				t.Errorf("%d calls reached the backend", n)
			}
			p := make([]byte, 1)
			b.must(c.ReadAt(b.ctx, "o", p, 0))
			b.must(c.Sync(b.ctx, "o"))
			if p[0] != 'x' {
				t.Errorf("read %q", p)
			}
			b.must(b.engine.Close())
		})
	}
}

// TestGuardIsAskedLate: when the operation is handed over, not when it is submitted.
func TestGuardIsAskedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := errors.New("lease lost")
		b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{1, 1, 1, 1}})
		g := &guard{}
		c := b.engine.Client(drivers.LaneGuest, 1, g)
		b.must(c.Create(b.ctx, "o"))
		release := b.stick(drivers.OpWrite)
		first, second := make(chan error), make(chan error)
		go func() { first <- c.WriteAt(b.ctx, "o", []byte("x"), 0) }()
		synctest.Wait()
		go func() { second <- c.WriteAt(b.ctx, "o", []byte("y"), 0) }()
		synctest.Wait()
		g.err.Store(&lost)
		release()
		b.must(<-first)
		b.is(<-second, lost)
		b.must(b.engine.Close())
	})
}

func TestAbandonedOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{1, 1, 1, 1}})
		b.must(b.guest.Create(b.ctx, "o"))
		end := map[string]func(context.Context) error{
			"stat":   func(ctx context.Context) error { _, err := b.meta.Stat(ctx, "o"); return err },
			"load":   func(ctx context.Context) error { _, err := b.meta.Load(ctx, "o"); return err },
			"list":   func(ctx context.Context) error { return b.meta.List(ctx, "", nil) },
			"sync":   func(ctx context.Context) error { return b.meta.Sync(ctx, "o") },
			"unlink": func(ctx context.Context) error { return b.meta.Unlink(ctx, "o") },
			"punch":  func(ctx context.Context) error { return b.meta.PunchHole(ctx, "o", 0, 1) },
			"create": func(ctx context.Context) error { return b.meta.Create(ctx, "p") },
			"replace": func(ctx context.Context) error {
				return b.meta.Replace(ctx, "r", []byte("x"), drivers.Condition{})
			},
		}
		for name, fn := range end {
			mutates := name == "unlink" || name == "punch" || name == "create" || name == "replace"
			ch := make(chan struct{})
			b.faulty.SetHook(func(faulty.Call) faulty.Action { return faulty.Delay(ch) })
			ctx, cancel := context.WithTimeout(b.ctx, time.Second)
			err := fn(ctx) // the backend has it
			cancel()
			b.is(err, drivers.ErrUnavailable)
			b.is(err, context.DeadlineExceeded)
			if errors.Is(err, drivers.ErrUnknownOutcome) != mutates {
				t.Errorf("%s: %v", name, err)
			}
			calls := b.faulty.Calls()
			ctx, cancel = context.WithTimeout(b.ctx, time.Second)
			err = fn(ctx) // it waits for the worker
			cancel()
			b.is(err, drivers.ErrUnavailable)
			b.isNot(err, drivers.ErrUnknownOutcome)
			ctx, cancel = context.WithCancel(b.ctx)
			cancel()
			b.isNot(fn(ctx), drivers.ErrUnknownOutcome)
			b.is(fn(ctx), context.Canceled)
			close(ch)
			synctest.Wait()
			if n := b.faulty.Calls() - calls; n != 0 {
				t.Errorf("%s: %d calls of withdrawn operations", name, n)
			}
			b.faulty.SetHook(nil)
			if name == "unlink" {
				b.must(b.meta.Create(b.ctx, "o")) // the abandoned one was done
			}
		}
		b.must(b.engine.Close())
	})
}

// TestBuffersComeBackLate: a read or write whose caller has given up returns only when the backend has.
func TestBuffersComeBackLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{1, 1, 1, 1}})
		b.must(b.guest.Create(b.ctx, "o"))
		release := b.stick(drivers.OpWrite, drivers.OpRead)
		ctx, cancel := context.WithCancel(b.ctx)
		written := make(chan error, 1)
		go func() { written <- b.guest.WriteAt(ctx, "o", []byte("x"), 0) }()
		synctest.Wait()
		waits := make(chan error, 1)
		go func() { waits <- b.guest.ReadAt(ctx, "o", make([]byte, 1), 0) }()
		synctest.Wait()
		cancel()
		b.is(<-waits, context.Canceled) // which the backend never saw
		synctest.Wait()
		if len(written) > 0 {
			t.Error("the write returned while the backend has its buffer")
		}
		release()
		b.must(<-written)
		b.must(b.engine.Close())
	})
}

func TestListOfASlowCallerHoldsNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{1, 1, 1, 1}})
		for i := range 100 {
			b.must(b.meta.Create(b.ctx, fmt.Sprintf("g/%d", i)))
		}
		stop := errors.New("stop")
		n := 0
		err := b.meta.List(b.ctx, "g", func(i drivers.Info) error {
			if n++; n == 50 {
				return stop
			}
			_, err := b.meta.Stat(b.ctx, i.Name)
			return err
		})
		b.is(err, stop)
		if n != 50 {
			t.Errorf("called %d times", n)
		}
		b.must(b.engine.Close())
	})
}

func TestEngineLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{})
		l, err := b.engine.Lock(b.ctx, "i/o")
		b.must(err)
		_, err = b.engine.Lock(b.ctx, "i/o")
		b.is(err, drivers.ErrLocked)
		b.must(l.Close())
		// A lock that comes after its caller has gone is given back.
		release := b.stick(drivers.OpLock)
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		_, err = b.engine.Lock(ctx, "i/o")
		b.is(err, drivers.ErrUnavailable)
		release()
		synctest.Wait()
		l, err = b.engine.Lock(b.ctx, "i/o")
		b.must(err)
		b.must(l.Close())
		b.must(b.engine.Close())
	})
}

func TestStatsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New(mem.Options{})
		b := bedOver(t, m, drivers.Options{})
		b.must(b.guest.Create(b.ctx, "o"))
		for range 5 {
			b.must(b.guest.WriteAt(b.ctx, "o", []byte("x"), 0))
		}
		b.is(b.guest.ReadAt(b.ctx, "none", nil, 0), drivers.ErrNotFound)
		ch := make(chan struct{})
		b.faulty.SetHook(faulty.OnKind(faulty.Delay(ch), drivers.OpStat))
		go func() {
			time.Sleep(100 * time.Millisecond)
			close(ch)
		}()
		_, err := b.meta.Stat(b.ctx, "o")
		b.must(err)
		s := b.engine.Stats()
		g, m2 := s.Lanes[drivers.LaneGuest], s.Lanes[drivers.LaneMeta]
		if g.Inline != 5 || g.Done != 2 || g.Errors != 1 || g.Latency[0] != 2 || s.Handles != 1 || s.Dirty != 1 {
			t.Errorf("guest %+v, handles %d, dirty %d", g, s.Handles, s.Dirty)
		}
		if m2.Total != 100*time.Millisecond || m2.Done != 1 {
			t.Errorf("meta %+v", m2)
		}
		for i, n := range m2.Latency {
			if took := 100 * time.Millisecond; n == 1 && (took >= drivers.LatencyBound(i) || took < drivers.LatencyBound(i-1)) {
				t.Errorf("100 ms are in the bucket below %v", drivers.LatencyBound(i))
			}
		}
		b.must(b.engine.Close())
	})
}

func TestSlowOperationsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		b := newBed(t, drivers.Options{SlowLog: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		b.must(b.guest.Create(b.ctx, "fast"))
		ch := make(chan struct{})
		b.faulty.SetHook(faulty.OnKind(faulty.Delay(ch), drivers.OpUnlink))
		go func() {
			time.Sleep(2 * time.Second)
			close(ch)
		}()
		b.must(b.back.Unlink(b.ctx, "fast"))
		b.must(b.engine.Close())
		if s := log.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "lane=background kind=unlink object=fast took=2s") {
			t.Errorf("log %q", s)
		}
	})
}

// TestRandomUse has many goroutines work on objects of their own with few handles, beside reads and removals of shared ones.
func TestRandomUse(t *testing.T) {
	for name, o := range map[string]mem.Options{"inline": {}, "queued": {NoInline: true}} {
		t.Run(name, func(t *testing.T) {
			b := bedOver(t, mem.New(o), drivers.Options{
				Workers: [drivers.LaneCount]int{2, 4, 2, 2}, MaxHandles: 6, MaxDirty: 3, MaxOps: 4, MaxBytes: 2000,
			})
			const workers, rounds = 8, 400
			var wg sync.WaitGroup
			errs := make(chan error, workers)
			for w := range workers {
				wg.Go(func() {
					c := b.engine.Client(drivers.Lane(w%drivers.LaneCount), uint64(w), nil)
					errs <- useRandomly(b.ctx, c, fmt.Sprintf("own%d", w), newRand(w), rounds)
				})
			}
			wg.Wait()
			for range workers {
				b.must(<-errs)
			}
			b.must(b.engine.Close())
		})
	}
}

func newRand(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 1)) }

func useRandomly(ctx context.Context, c drivers.Client, name string, rng *rand.Rand, rounds int) error {
	const size = 2000
	var want []byte // nil: the object does not exist
	p := make([]byte, size)
	for range rounds {
		off := rng.IntN(size)
		n := rng.IntN(size - off)
		var err error
		switch k := rng.IntN(12); {
		case want == nil:
			if err = c.ReadAt(ctx, name, p, 0); !errors.Is(err, drivers.ErrNotFound) {
				return fmt.Errorf("read of a missing object: %w", err)
			}
			if err = c.Create(ctx, name); err == nil {
				want = make([]byte, size)
			}
		case k < 4:
			for i := range n {
				want[off+i] = byte(rng.Uint32())
			}
			err = c.WriteAt(ctx, name, want[off:off+n], int64(off))
		case k < 8:
			err = c.ReadAt(ctx, name, p[:n], int64(off))
			if err == nil && !slices.Equal(p[:n], want[off:off+n]) {
				return errors.New("wrong content")
			}
		case k == 8:
			err = c.Sync(ctx, name)
		case k == 9:
			err = c.PunchHole(ctx, name, int64(off), int64(n))
			clear(want[off : off+n])
		case k == 10:
			err = c.Unlink(ctx, name)
			want = nil
		case k == 11:
			err = c.ReadAt(ctx, "shared", p[:1], 0)
			if errors.Is(err, drivers.ErrNotFound) {
				err = c.Create(ctx, "shared")
			} else if err == nil {
				err = c.Unlink(ctx, "shared")
			}
			if errors.Is(err, drivers.ErrNotFound) || errors.Is(err, drivers.ErrExists) {
				err = nil // another was quicker
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for name, o := range map[string]mem.Options{"inline": {DurableWrites: true}, "queued": {DurableWrites: true, NoInline: true}} {
		t.Run(name, func(t *testing.T) {
			e := drivers.NewEngine(mem.New(o), drivers.Options{})
			c := e.Client(drivers.LaneGuest, 1, nil)
			if err := c.Create(t.Context(), "v/0123/data/0/1.1.1"); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{}, 1)
			op := &drivers.Op{Lane: drivers.LaneGuest, Tenant: 1, Data: make([]byte, 4096),
				Done: completer(func(*drivers.Op) { ended <- struct{}{} })}
			op.Name = append(op.Scratch[:0], "v/0123/data/0/1.1.1"...)
			for _, kind := range []drivers.Kind{drivers.OpWrite, drivers.OpRead} {
				op.Kind = kind
				if n := testing.AllocsPerRun(500, func() {
					if !e.Submit(op) {
						<-ended
					}
					if op.Err != nil {
						t.Fatal(op.Err)
					}
				}); n != 0 {
					t.Errorf("%v allocates %v times", kind, n)
				}
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
