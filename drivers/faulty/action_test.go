package faulty_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
)

var errTest = errors.New("test")

func setUp(t *testing.T) (*faulty.Backend, drivers.Object) {
	t.Helper()
	b := faulty.Wrap(mem.New(mem.Options{}))
	o, err := b.Open(t.Context(), "g/o", drivers.Create)
	if err != nil {
		t.Fatal(err)
	}
	return b, o
}

func load(t *testing.T, b drivers.Backend, name string) string {
	t.Helper()
	data, err := b.Load(t.Context(), name)
	if errors.Is(err, drivers.ErrNotFound) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEveryCallIsCountedAndCanFail(t *testing.T) {
	b, o := setUp(t)
	ctx := t.Context()
	all := func() []error {
		_, e1 := b.Open(ctx, "g/o", drivers.ReadWrite)
		_, e2 := b.Open(ctx, "g/new", drivers.Create)
		_, e3 := b.Stat(ctx, "g/o")
		_, e4 := b.Load(ctx, "g/o")
		_, e5 := b.Lock(ctx, "g/l")
		return []error{
			e1, e2, e3, e4, e5,
			b.List(ctx, "g", func(drivers.Info) error { return nil }),
			b.Replace(ctx, "g/r", nil, drivers.Condition{}),
			b.SyncGroup(ctx, "g"),
			b.Unlink(ctx, "g/o"),
			o.ReadAt(nil, 0), o.WriteAt(nil, 0), o.Sync(),
			o.(drivers.Puncher).PunchHole(0, 1), o.(drivers.Allocator).Allocate(0, 1), o.(drivers.CacheDropper).DropCache(),
		}
	}
	var mu sync.Mutex
	var seen []drivers.Kind
	before := b.Calls()
	b.SetHook(func(c faulty.Call) faulty.Action {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, c.Kind)
		if c.N != before+int64(len(seen)) {
			t.Errorf("call %d has the number %d", len(seen), c.N)
		}
		return faulty.Fail(errTest)
	})
	errs := all()
	for i, err := range errs {
		if !errors.Is(err, errTest) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	slices.Sort(seen)
	if len(slices.Compact(seen)) != 15 || b.Calls()-before != 15 {
		t.Errorf("%d calls of kinds %v", b.Calls()-before, seen)
	}
	b.SetHook(nil)
	for i, err := range all() { // nothing had been done
		if err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if b.Calls()-before != 30 {
		t.Errorf("%d calls, want 30", b.Calls()-before)
	}
}

func TestFailAfterHasDoneIt(t *testing.T) {
	b, o := setUp(t)
	b.SetHook(faulty.At(b.Calls()+1, faulty.FailAfter(faulty.ErrUnknown)))
	err := o.WriteAt([]byte("data"), 0)
	if !errors.Is(err, drivers.ErrUnavailable) || !errors.Is(err, drivers.ErrUnknownOutcome) {
		t.Errorf("got %v", err)
	}
	if got := load(t, b, "g/o"); got != "data" {
		t.Errorf("content %q", got)
	}
	b.SetHook(faulty.OnKind(faulty.FailAfter(faulty.ErrUnknown), drivers.OpCreate, drivers.OpLock))
	if o, err := b.Open(t.Context(), "g/p", drivers.Create); o != nil || !errors.Is(err, drivers.ErrUnknownOutcome) {
		t.Errorf("got %v, %v", o, err)
	}
	if l, err := b.Lock(t.Context(), "g/l"); l != nil || err == nil {
		t.Errorf("got %v, %v", l, err)
	}
	b.SetHook(nil)
	if _, err := b.Stat(t.Context(), "g/p"); err != nil {
		t.Error(err)
	}
	if _, err := b.Lock(t.Context(), "g/l"); err != nil {
		t.Errorf("nobody holds the lock, but: %v", err)
	}
}

func TestTornWrite(t *testing.T) {
	for _, s := range []struct {
		off     int64
		sectors int
		want    int // bytes written of 2000
	}{{0, 0, 0}, {0, 1, 512}, {0, 3, 1536}, {0, 10, 2000}, {100, 1, 412}, {100, 0, 0}, {600, 2, 936}} {
		b, o := setUp(t)
		b.SetHook(faulty.OnKind(faulty.Tear(s.sectors, errTest), drivers.OpWrite))
		p := make([]byte, 2000)
		for i := range p {
			p[i] = 1
		}
		if err := o.WriteAt(p, s.off); !errors.Is(err, errTest) {
			t.Errorf("got %v", err)
		}
		want := make([]byte, 2000)
		copy(want, p[:s.want])
		got := make([]byte, 2000)
		if err := o.ReadAt(got, s.off); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d sectors at %d: other content", s.sectors, s.off)
		}
	}
}

func TestDelayWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, o := setUp(t)
		release := make(chan struct{})
		b.SetHook(faulty.OnKind(faulty.Delay(release), drivers.OpSync))
		synced := make(chan error, 1)
		go func() { synced <- o.Sync() }()
		synctest.Wait()
		if len(synced) > 0 {
			t.Error("the sync did not wait")
		}
		if err := o.WriteAt([]byte("x"), 0); err != nil {
			t.Error(err)
		}
		close(release)
		if err := <-synced; err != nil {
			t.Error(err)
		}
	})
}

func TestLateAndRepeatedDelivery(t *testing.T) {
	b, o := setUp(t)
	ctx := t.Context()
	b.SetHook(func(faulty.Call) faulty.Action { return faulty.Late() })
	data := []byte("late")
	_, err := b.Open(ctx, "g/new", drivers.Create)
	for _, err := range []error{
		err,
		o.WriteAt(data, 3),
		b.Replace(ctx, "g/r", data, drivers.Condition{}),
		o.(drivers.Puncher).PunchHole(4, 1),
		o.(drivers.Allocator).Allocate(0, 10),
		b.Unlink(ctx, "g/o"),
		o.Sync(), // not held: it mutates nothing
	} {
		if !errors.Is(err, drivers.ErrUnknownOutcome) {
			t.Errorf("got %v", err)
		}
	}
	copy(data, "XXXX") // the caller may use its buffer again
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	b.SetHook(nil)
	held := b.TakeHeld()
	if len(held) != 6 || held[1].String() != "write g/o 3+4" || held[5].String() != "unlink g/o" {
		t.Fatalf("held %v", held)
	}
	after := b.Backend.(*mem.Backend).Kill() // the predecessor is dead, its operations are not
	for i := range 2 {
		for _, h := range held[:5] {
			err := h.Deliver(ctx, after)
			if i == 1 && h.Kind == drivers.OpCreate {
				if !errors.Is(err, drivers.ErrExists) {
					t.Errorf("second create: %v", err)
				}
			} else if err != nil {
				t.Errorf("deliver %v: %v", h.Call, err)
			}
		}
	}
	if got := load(t, after, "g/o"); got != "\x00\x00\x00l\x00te\x00\x00\x00" {
		t.Errorf("content %q", got)
	}
	if got := load(t, after, "g/r"); got != "late" {
		t.Errorf("content %q", got)
	}
	if err := held[5].Deliver(ctx, after); err != nil {
		t.Error(err)
	}
	if got := load(t, after, "g/o"); got != "-" {
		t.Errorf("content %q", got)
	}
	if got := load(t, b, "g/o"); got != "" {
		t.Errorf("content of the old backend %q", got)
	}
}

func TestTwiceAndAgain(t *testing.T) {
	b, o := setUp(t)
	ctx := t.Context()
	b.SetHook(faulty.OnKind(faulty.Twice(), drivers.OpUnlink, drivers.OpCreate, drivers.OpWrite))
	if err := o.WriteAt([]byte("x"), 0); err != nil {
		t.Error(err)
	}
	p, err := b.Open(ctx, "g/p", drivers.Create)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := b.Unlink(ctx, "g/p"); err != nil {
		t.Error(err)
	}
	b.SetHook(faulty.OnKind(faulty.Again(), drivers.OpWrite))
	if err := o.WriteAt([]byte("y"), 0); err != nil {
		t.Error(err)
	}
	b.SetHook(nil)
	if err := o.WriteAt([]byte("z"), 0); err != nil {
		t.Error(err)
	}
	if err := b.Deliver(ctx); err != nil {
		t.Error(err)
	}
	if got := load(t, b, "g/o"); got != "y" {
		t.Errorf("content %q", got)
	}
	b.SetHook(faulty.OnKind(faulty.Late(), drivers.OpUnlink))
	_ = b.Unlink(ctx, "g/none") // the answer is as unknown as any
	if err := b.Deliver(ctx); !errors.Is(err, drivers.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestInlineGoesThroughTheHookIfTold(t *testing.T) {
	b, o := setUp(t)
	w, r := o.(drivers.TryWriter), o.(drivers.TryReader)
	before := b.Calls()
	try := func() (bool, bool, error, error) {
		d1, e1 := w.TryWriteAt([]byte("x"), 0)
		d2, e2 := r.TryReadAt(make([]byte, 1), 0)
		return d1, d2, e1, e2
	}
	if d1, d2, e1, e2 := try(); !d1 || !d2 || e1 != nil || e2 != nil {
		t.Error("not done without a hook")
	}
	b.SetHook(func(faulty.Call) faulty.Action { return faulty.Fail(errTest) })
	if d1, d2, _, _ := try(); d1 || d2 {
		t.Error("done though there is a hook")
	}
	b.SetInline(true)
	if d1, d2, e1, e2 := try(); !d1 || !d2 || e1 == nil || e2 == nil {
		t.Error("the hook was not asked")
	}
	if n := b.Calls() - before; n != 4 {
		t.Errorf("%d calls, want 4", n)
	}
}

// TestAbilitiesThatAreNotThere are answered so.
func TestAbilitiesThatAreNotThere(t *testing.T) {
	b := faulty.Wrap(bare{mem.New(mem.Options{})})
	o, err := b.Open(t.Context(), "o", drivers.Create)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Lock(t.Context(), "l")
	for _, err := range []error{err, o.(drivers.Puncher).PunchHole(0, 1), o.(drivers.Allocator).Allocate(0, 1),
		o.(drivers.CacheDropper).DropCache()} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	}
	if done, _ := o.(drivers.TryWriter).TryWriteAt(nil, 0); done {
		t.Error("done")
	}
	if done, _ := o.(drivers.TryReader).TryReadAt(nil, 0); done {
		t.Error("done")
	}
	if b.Calls() != 1 {
		t.Errorf("%d calls, want 1", b.Calls())
	}
}
