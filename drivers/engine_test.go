package drivers_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is an engine over a faulty backend over mem.
type bed struct {
	*testing.T
	ctx    context.Context
	faulty *faulty.Backend
	engine *drivers.Engine
	guest  drivers.Client
	meta   drivers.Client
	back   drivers.Client
}

func newBed(t *testing.T, o drivers.Options) *bed {
	return bedOver(t, mem.New(mem.Options{NoInline: true}), o)
}

func bedOver(t *testing.T, b drivers.Backend, o drivers.Options) *bed {
	t.Helper()
	f := faulty.Wrap(b)
	e := drivers.NewEngine(f, o)
	return &bed{
		T: t, ctx: context.Background(), faulty: f, engine: e,
		guest: e.Client(drivers.LaneGuest, 1, nil),
		meta:  e.Client(drivers.LaneMeta, 1, nil),
		back:  e.Client(drivers.LaneBackground, 1, nil),
	}
}

func (b *bed) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bed) is(err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Errorf("got error %v, want %v", err, want)
	}
}

func (b *bed) isNot(err, unwanted error) {
	b.Helper()
	if errors.Is(err, unwanted) {
		b.Errorf("error %v is %v", err, unwanted)
	}
}

// stick has calls of these kinds wait until the result is called.
func (b *bed) stick(kinds ...drivers.Kind) (release func()) {
	ch := make(chan struct{})
	b.faulty.SetHook(faulty.OnKind(faulty.Delay(ch), kinds...))
	return sync.OnceFunc(func() { close(ch) })
}

// results collects completions.
type results struct {
	mu   sync.Mutex
	ops  []*drivers.Op
	done chan struct{} // closed when want have come
	want int
}

func newResults(want int) *results { return &results{done: make(chan struct{}), want: want} }

func (r *results) Complete(op *drivers.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
	if len(r.ops) == r.want {
		close(r.done)
	}
}

func (r *results) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ops)
}

func opOf(kind drivers.Kind, lane drivers.Lane, name string, done drivers.Completer) *drivers.Op {
	return &drivers.Op{Kind: kind, Lane: lane, Name: []byte(name), Done: done}
}

func TestStuckMetadataHoldsUpNoGuestIO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{})
		b.must(b.guest.Create(b.ctx, "g/open"))
		b.must(b.guest.WriteAt(b.ctx, "g/open", []byte("data"), 0))
		o, err := b.faulty.Open(b.ctx, "g/closed", drivers.Create)
		b.must(err)
		b.must(o.Close())
		release := b.stick(drivers.OpStat, drivers.OpUnlink)
		stuck := newResults(10_100)
		for i := range 10_000 {
			lane := drivers.LaneBackground
			if i%2 == 0 {
				lane = drivers.LaneMeta
			}
			if b.engine.Submit(opOf(drivers.OpUnlink, lane, fmt.Sprintf("g/%d", i), stuck)) {
				t.Fatal("an unlink was done inline")
			}
		}
		for range 100 {
			b.engine.Submit(opOf(drivers.OpStat, drivers.LaneMeta, "g/open", stuck))
		}
		began := time.Now()
		p := make([]byte, 4)
		for range 1000 {
			b.must(b.guest.ReadAt(b.ctx, "g/open", p, 0))
			b.must(b.guest.WriteAt(b.ctx, "g/open", p, 0))
		}
		if string(p) != "data" {
			t.Errorf("read %q", p)
		}
		b.must(b.guest.Sync(b.ctx, "g/open"))
		b.must(b.guest.ReadAt(b.ctx, "g/closed", p, 0)) // which opens it
		b.must(b.engine.Client(drivers.LaneLease, 1, nil).Replace(b.ctx, "beat", nil, drivers.Condition{}))
		if stuck.count() > 0 || time.Since(began) > 0 {
			t.Error("something ended that was stuck, or time passed")
		}
		release()
		<-stuck.done
		b.must(b.engine.Close())
	})
}

// TestSlowOpensHoldUpNoOpenObjects: opening on demand has workers of its own.
func TestSlowOpensHoldUpNoOpenObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{1, 2, 2, 2}})
		b.must(b.guest.Create(b.ctx, "open"))
		release := b.stick(drivers.OpOpen)
		r := newResults(100)
		for i := range 100 {
			b.engine.Submit(opOf(drivers.OpRead, drivers.LaneGuest, fmt.Sprintf("other%d", i), r))
		}
		b.must(b.guest.ReadAt(b.ctx, "open", make([]byte, 1), 0))
		if r.count() > 0 {
			t.Error("a read of an object that cannot be opened has ended")
		}
		release()
		<-r.done
		for _, op := range r.ops {
			b.is(op.Err, drivers.ErrNotFound)
		}
		b.must(b.engine.Close())
	})
}

// TestSlowSyncsHoldUpNoGuestIO: a flush of many objects leaves workers to reads and writes.
func TestSlowSyncsHoldUpNoGuestIO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{1, 2, 2, 2}})
		for i := range 50 {
			b.must(b.guest.Create(b.ctx, fmt.Sprint(i)))
			b.must(b.guest.WriteAt(b.ctx, fmt.Sprint(i), []byte("x"), 0))
		}
		release := b.stick(drivers.OpSync)
		r := newResults(50)
		for i := range 50 {
			b.engine.Submit(opOf(drivers.OpSync, drivers.LaneGuest, fmt.Sprint(i), r))
		}
		b.must(b.guest.ReadAt(b.ctx, "0", make([]byte, 1), 0))
		b.must(b.guest.WriteAt(b.ctx, "49", make([]byte, 1), 0))
		if r.count() > 0 {
			t.Error("a sync has ended")
		}
		release()
		<-r.done
		b.must(b.engine.Close())
	})
}

func TestHungBackendHoldsUpNoOtherEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung, fine := newBed(t, drivers.Options{MaxOps: 10}), newBed(t, drivers.Options{})
		ch := make(chan struct{})
		hung.faulty.SetHook(func(faulty.Call) faulty.Action { return faulty.Delay(ch) })
		r := newResults(300)
		for i := range 300 {
			op := opOf(drivers.OpCreate, drivers.LaneGuest, fmt.Sprint(i), r)
			op.NoWait = true
			hung.engine.Submit(op)
		}
		fine.must(fine.guest.Create(fine.ctx, "o"))
		fine.must(fine.engine.Close())
		close(ch)
		<-r.done
		hung.must(hung.engine.Close())
	})
}

func TestManyInFlightNeedFewGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{})
		b.must(b.guest.Create(b.ctx, "o"))
		release := b.stick(drivers.OpRead)
		before := runtime.NumGoroutine()
		r := newResults(1024)
		for i := range 1024 {
			op := opOf(drivers.OpRead, drivers.LaneGuest, "o", r)
			op.Data, op.Off = make([]byte, 512), int64(i)*512
			b.engine.Submit(op)
		}
		synctest.Wait()
		s := b.engine.Stats().Lanes[drivers.LaneGuest]
		if s.Running != 64 || s.Queued != 960 {
			t.Errorf("%d running, %d queued, want 64 and 960", s.Running, s.Queued)
		}
		if n := runtime.NumGoroutine() - before; n > 64 {
			t.Errorf("%d goroutines more, want 64 at most", n)
		}
		release()
		<-r.done
		for _, op := range r.ops {
			b.must(op.Err)
		}
		// Idle workers end. The last one counts until the scheduler, to which no clock applies, has put it away.
		time.Sleep(time.Minute)
		more := func() int { return runtime.NumGoroutine() - before }
		for i := 0; i < 1_000_000 && more() > 0; i++ {
			runtime.Gosched()
		}
		if n := more(); n > 0 {
			t.Errorf("%d goroutines more after a minute without work", n)
		}
		b.must(b.guest.ReadAt(b.ctx, "o", make([]byte, 1), 0))
		b.must(b.engine.Close())
	})
}

func TestMaxWorkersCapsAllLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bedOver(t, capped{mem.New(mem.Options{NoInline: true})}, drivers.Options{})
		b.must(b.guest.Create(b.ctx, "o"))
		release := b.stick(drivers.OpRead)
		r := newResults(20)
		for range 20 {
			b.engine.Submit(opOf(drivers.OpRead, drivers.LaneGuest, "o", r))
		}
		synctest.Wait()
		if s := b.engine.Stats().Lanes[drivers.LaneGuest]; s.Running != 3 {
			t.Errorf("%d are running, want 3", s.Running)
		}
		release()
		<-r.done
		b.must(b.engine.Close())
	})
}

// capped is a backend for which more than three calls at once are useless.
type capped struct{ drivers.Backend }

func (c capped) Properties() drivers.Properties {
	p := c.Backend.Properties()
	p.MaxWorkers = 3
	return p
}

func TestTenantsAreServedInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{1, 1, 1, 1}})
		b.must(b.guest.Create(b.ctx, "o"))
		ch := make(chan struct{})
		b.faulty.SetHook(faulty.OnKind(faulty.Delay(ch), drivers.OpRead))
		r := newResults(1 + 50 + 3 + 2)
		submit := func(tenant uint64, n int) {
			for i := range n {
				op := opOf(drivers.OpRead, drivers.LaneGuest, "o", r)
				op.Tenant, op.Off, op.Data = tenant, int64(i), make([]byte, 1)
				b.engine.Submit(op)
			}
		}
		submit(9, 1) // keeps the worker busy
		synctest.Wait()
		submit(1, 50)
		submit(2, 3)
		submit(3, 2)
		close(ch)
		<-r.done
		var order []uint64
		next := map[uint64]int64{}
		for _, op := range r.ops[1:10] {
			order = append(order, op.Tenant)
			if op.Off != next[op.Tenant] {
				t.Errorf("tenant %d is served out of order", op.Tenant)
			}
			next[op.Tenant]++
		}
		if got := fmt.Sprint(order); got != "[1 2 3 1 2 3 1 2 1]" {
			t.Errorf("served %s", got)
		}
		b.must(b.engine.Close())
	})
}

func TestSubmitBlocksAtItsBounds(t *testing.T) {
	for name, o := range map[string]drivers.Options{
		"ops":   {Workers: [drivers.LaneCount]int{1, 1, 1, 1}, MaxOps: 2},
		"bytes": {Workers: [drivers.LaneCount]int{1, 1, 1, 1}, MaxBytes: 3000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, o)
				b.must(b.guest.Create(b.ctx, "o"))
				ch := make(chan struct{})
				b.faulty.SetHook(faulty.OnKind(faulty.Delay(ch), drivers.OpRead))
				r := newResults(6)
				read := func() *drivers.Op {
					op := opOf(drivers.OpRead, drivers.LaneGuest, "o", r)
					op.Data = make([]byte, 1000)
					return op
				}
				for range 3 { // one runs, two wait: full
					b.engine.Submit(read())
					synctest.Wait()
				}
				var admitted atomic.Int64
				for range 2 {
					go func() {
						b.engine.Submit(read())
						admitted.Add(1)
					}()
				}
				synctest.Wait()
				if admitted.Load() != 0 {
					t.Error("Submit returned without room")
				}
				urgent := read()
				urgent.NoWait = true
				b.engine.Submit(urgent)
				// Other lanes have room of their own.
				b.is(b.back.ReadAt(b.ctx, "none", nil, 0), drivers.ErrNotFound)
				ch <- struct{}{} // one ends, but the urgent one took its room
				synctest.Wait()
				if admitted.Load() != 0 {
					t.Error("Submit returned without room")
				}
				ch <- struct{}{}
				synctest.Wait()
				if admitted.Load() != 1 {
					t.Errorf("%d were admitted, want 1", admitted.Load())
				}
				close(ch)
				<-r.done
				// An operation larger than the bound is done alone.
				b.must(b.guest.ReadAt(b.ctx, "o", make([]byte, 10_000), 0))
				b.must(b.engine.Close())
			})
		})
	}
}

func TestDeadlineFailsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{1, 2, 1, 1}, MaxOps: 5, Deadline: 10 * time.Second})
		b.must(b.guest.Create(b.ctx, "o"))
		release := b.stick(drivers.OpWrite)
		began := time.Now()
		ended := map[*drivers.Op]time.Duration{}
		var mu sync.Mutex
		r := completer(func(op *drivers.Op) {
			mu.Lock()
			defer mu.Unlock()
			ended[op] = time.Since(began)
		})
		var ops []*drivers.Op
		for i := range 7 { // two run and five wait
			op := opOf(drivers.OpWrite, drivers.LaneGuest, "o", r)
			op.Data, op.Tenant = []byte("x"), uint64(i%3)
			if i == 4 {
				op.Deadline = began.Add(3 * time.Second)
			}
			ops = append(ops, op)
			b.engine.Submit(op)
			synctest.Wait()
		}
		// And one has no room; its turn comes when the fifth fails.
		blocked := opOf(drivers.OpWrite, drivers.LaneGuest, "o", r)
		if b.engine.Submit(blocked) {
			t.Error("the blocked one was not queued")
		}
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("room after %v, want 3s", d)
		}
		// The next never gets room.
		never := opOf(drivers.OpWrite, drivers.LaneGuest, "o", r)
		never.Deadline = began.Add(5 * time.Second)
		if !b.engine.Submit(never) {
			t.Error("an operation past its deadline was queued")
		}
		b.is(never.Err, drivers.ErrUnavailable)
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		for i, op := range append(ops, blocked) {
			want := 10 * time.Second
			switch i {
			case 0, 1:
				if _, ok := ended[op]; ok {
					t.Errorf("op %d ended though the backend has it", i)
				}
				continue
			case 4:
				want = 3 * time.Second
			}
			if ended[op] != want {
				t.Errorf("op %d ended after %v, want %v", i, ended[op], want)
			}
			b.is(op.Err, drivers.ErrUnavailable)
			b.isNot(op.Err, drivers.ErrUnknownOutcome)
		}
		mu.Unlock()
		calls := b.faulty.Calls()
		release()
		synctest.Wait()
		b.must(ops[0].Err)
		b.must(ops[1].Err)
		if n := b.faulty.Calls(); n != calls {
			t.Errorf("%d calls of operations that had failed", n-calls)
		}
		b.must(b.engine.Close())
	})
}

type completer func(*drivers.Op)

func (c completer) Complete(op *drivers.Op) { c(op) }

func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, drivers.Options{Workers: [drivers.LaneCount]int{1, 1, 1, 1}, MaxOps: 2})
		b.must(b.guest.Create(b.ctx, "o"))
		release := b.stick(drivers.OpWrite)
		r := newResults(3)
		write := func() *drivers.Op {
			op := opOf(drivers.OpWrite, drivers.LaneGuest, "o", r)
			op.Data = []byte("x")
			return op
		}
		for range 3 {
			b.engine.Submit(write())
			synctest.Wait()
		}
		blocked := write()
		inline := make(chan bool)
		go func() { inline <- b.engine.Submit(blocked) }()
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- b.engine.Close() }()
		if !<-inline {
			t.Error("the blocked operation was queued")
		}
		b.is(blocked.Err, drivers.ErrClosed)
		b.is(b.guest.ReadAt(b.ctx, "o", nil, 0), drivers.ErrClosed)
		_, err := b.meta.Stat(b.ctx, "o")
		b.is(err, drivers.ErrClosed)
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("Close returned while an operation runs")
		default:
		}
		release()
		b.must(<-closed)
		<-r.done
		for _, op := range r.ops {
			b.must(op.Err)
		}
		b.is(b.engine.Close(), drivers.ErrClosed)
	})
}

func TestCloseSyncsWhatIsDirty(t *testing.T) {
	m := mem.New(mem.Options{})
	b := bedOver(t, m, drivers.Options{})
	b.must(b.guest.Create(b.ctx, "a"))
	b.must(b.guest.WriteAt(b.ctx, "a", []byte("x"), 0))
	b.must(b.guest.SyncGroup(b.ctx, ""))
	if len(m.Pending()) == 0 {
		t.Fatal("nothing is unsynced")
	}
	b.must(b.engine.Close())
	if p := m.Pending(); len(p) > 0 {
		t.Errorf("unsynced: %v", p)
	}
}

func TestInvalidOpsAreRefused(t *testing.T) {
	b := newBed(t, drivers.Options{})
	for _, op := range []*drivers.Op{{Kind: 99}, {Lane: 99}} {
		if !b.engine.Submit(op) {
			t.Fatal("queued")
		}
		b.is(op.Err, drivers.ErrInvalid)
	}
	b.is(b.guest.ReadAt(b.ctx, "../x", make([]byte, 1), 0), drivers.ErrInvalid)
	b.is(b.meta.Create(b.ctx, "../x"), drivers.ErrInvalid)
	b.must(b.engine.Close())
}
