package locking_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/locking"
	"skerry/mapper"
)

func TestR17OneOwner(t *testing.T) {
	b := newStorage()
	p, q := start(t, b), start(t, b)
	id := p.volume()
	l := p.acquire(id)
	if again := p.acquire(id); again != l {
		t.Fatal("the same owner got another lease")
	}
	_, err := q.Acquire(t.Context(), id)
	var held *locking.HeldError
	if !errors.As(err, &held) || !errors.Is(err, locking.ErrHeld) || held.Volume != "vm1" || held.Holder.Instance != p.Nonce() {
		t.Fatalf("another owner: %v", err)
	}
	if err := l.Err(); err != nil {
		t.Fatalf("the lease after another's attempt: %v", err)
	}
	p.release(l)
	if err := l.Release(t.Context(), nil); !errors.Is(err, locking.ErrReleased) {
		t.Fatalf("a double release: %v", err)
	}
	q.release(q.acquire(id))
	if err := l.Switch(t.Context(), func(*mapper.Root) {}); !errors.Is(err, locking.ErrReleased) {
		t.Fatalf("a switch after the release: %v", err)
	}
}

func TestSwitchesAreStored(t *testing.T) {
	b := newStorage()
	p := start(t, b)
	id := p.volume()
	l := p.acquire(id)
	for i := range 5 {
		err := l.Switch(t.Context(), func(r *mapper.Root) {
			r.Size += 512
			r.Generation, r.Sequence, r.Held = 99, 99, false // not its to set
		})
		if err != nil {
			t.Fatal(err)
		}
		stored, known := p.inForce(id), l.Root()
		if string(stored.Encode()) != string(known.Encode()) {
			t.Fatalf("stored %+v, known %+v", stored, known)
		}
		if stored.Size != 1<<30+512*int64(i+1) || stored.Generation != 2 || !stored.Held || stored.Sequence != uint64(i+2) {
			t.Fatalf("stored %+v", stored)
		}
	}
	l.Root().Owners[0] = chunk.VolumeID{}
	if l.Root().Owners[0] != id {
		t.Fatal("Root shares memory")
	}
	if err := l.Release(t.Context(), func(r *mapper.Root) { r.Name = "vm2" }); err != nil {
		t.Fatal(err)
	}
	if stored := p.inForce(id); stored.Held || stored.Name != "vm2" {
		t.Fatalf("released: %+v", stored)
	}
	if l.Context().Err() == nil || !errors.Is(context.Cause(l.Context()), locking.ErrReleased) {
		t.Fatal("the lease's context goes on")
	}
}

func TestSerialsNeverRepeat(t *testing.T) {
	p := start(t, newStorage())
	id := p.volume()
	seen := make(map[chunk.Serial]bool)
	var mu sync.Mutex
	for range 3 {
		l := p.acquire(id)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					s, err := l.NextSerial()
					mu.Lock()
					if err != nil || seen[s] || s.Generation() != l.Generation() || s.Counter() == 0 {
						t.Errorf("serial %v, %v", s, err)
					}
					seen[s] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		p.release(l)
	}
}

func TestOldRootsAreRemovedAfterTwoGrants(t *testing.T) {
	b := newStorage()
	p := start(t, b)
	id := p.volume()
	for range 5 {
		p.release(p.acquire(id))
	}
	want := []string{chunk.RootName(id, 5), chunk.RootName(id, 6)}
	got := roots(t, b, id)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Fatalf("roots %q, want %q", got, want)
	}
}

func TestMissingAndDamagedVolumes(t *testing.T) {
	b := newStorage()
	p := start(t, b)
	if _, err := p.Acquire(t.Context(), chunk.NewVolumeID()); !errors.Is(err, drivers.ErrNotFound) {
		t.Fatalf("a missing volume: %v", err)
	}
	id := p.volume()
	p.release(p.acquire(id))
	good, err := b.Load(t.Context(), chunk.RootName(id, 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{{}, []byte("rubbish"), good} { // the last is another generation's
		if err := b.Replace(t.Context(), chunk.RootName(id, 2), bad, drivers.Condition{}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Acquire(t.Context(), id); !errors.Is(err, mapper.ErrDamaged) {
			t.Fatalf("a damaged root: %v", err)
		}
		if _, err := locking.Inspect(t.Context(), p.client(), id); !errors.Is(err, mapper.ErrDamaged) {
			t.Fatalf("a damaged root: %v", err)
		}
	}
}

func TestRootChangedByAnotherEndsTheLease(t *testing.T) {
	b := newStorage()
	p := start(t, b)
	id := p.volume()
	l := p.acquire(id)
	other := l.Root()
	other.Nonce[0]++
	if err := b.Replace(t.Context(), chunk.RootName(id, 2), other.Encode(), drivers.Condition{}); err != nil {
		t.Fatal(err)
	}
	if err := l.Switch(t.Context(), func(*mapper.Root) {}); !errors.Is(err, locking.ErrLost) {
		t.Fatalf("the switch: %v", err)
	}
	if err := l.Err(); !errors.Is(err, locking.ErrLost) {
		t.Fatalf("the lease: %v", err)
	}
	if !errors.Is(context.Cause(l.Context()), locking.ErrLost) {
		t.Fatal("the lease's context goes on")
	}
	err := p.engine.Client(drivers.LaneMeta, 0, l).Create(t.Context(), "x")
	if !errors.Is(err, locking.ErrLost) {
		t.Fatalf("a mutation under the lease: %v", err)
	}
}

// TestSwitchOfUnknownOutcome answers a switch without a verdict: it was done, or it was not, or it is done later.
func TestSwitchOfUnknownOutcome(t *testing.T) {
	name := func(r *mapper.Root) { r.Name = "new" }
	for what, action := range map[string]faulty.Action{
		"done": faulty.FailAfter(faulty.ErrUnknown), "late": faulty.Late(), "failed": faulty.Fail(drivers.ErrNoSpace),
	} {
		for _, delivered := range []bool{false, true} {
			b := newStorage()
			p := start(t, b)
			id := p.volume()
			l := p.acquire(id)
			p.faults.SetHook(faulty.OnKind(action, drivers.OpReplace))
			err := l.Switch(t.Context(), name)
			p.faults.SetHook(nil)
			if err == nil || errors.Is(err, drivers.ErrUnknownOutcome) != (what != "failed") {
				t.Fatalf("%s: the switch: %v", what, err)
			}
			if delivered {
				p.faults.Deliver(t.Context()) // there may be nothing
			}
			if err := l.Switch(t.Context(), func(r *mapper.Root) { r.Size += 512 }); err != nil {
				t.Fatalf("%s: the next switch: %v", what, err)
			}
			p.faults.Deliver(t.Context()) // it comes too late
			if stored := p.inForce(id); string(stored.Encode()) != string(l.Root().Encode()) {
				t.Fatalf("%s: stored %+v, known %+v", what, stored, l.Root())
			}
			if done := what == "done" || what == "late" && delivered; (l.Root().Name == "new") != done {
				t.Fatalf("%s: the name is %s", what, l.Root().Name)
			}
			p.release(l)
		}
	}
}

func TestReleaseOfUnknownOutcomeEndsTheLease(t *testing.T) {
	b := newStorage()
	p := start(t, b)
	id := p.volume()
	l := p.acquire(id)
	p.faults.SetHook(faulty.OnKind(faulty.FailAfter(faulty.ErrUnknown), drivers.OpReplace))
	if err := l.Release(t.Context(), nil); !errors.Is(err, drivers.ErrUnknownOutcome) {
		t.Fatalf("the release: %v", err)
	}
	p.faults.SetHook(nil)
	if l.Err() == nil {
		t.Fatal("the lease goes on, though others may take the volume")
	}
	start(t, b).acquire(id)
}

func TestReleaseThatFailsCanBeRepeated(t *testing.T) {
	b := newStorage()
	p := start(t, b)
	l := p.acquire(p.volume())
	p.faults.SetHook(faulty.OnKind(faulty.Fail(drivers.ErrNoSpace), drivers.OpReplace))
	if err := l.Release(t.Context(), nil); !errors.Is(err, drivers.ErrNoSpace) {
		t.Fatalf("the release: %v", err)
	}
	p.faults.SetHook(nil)
	if l.Err() != nil {
		t.Fatal("the lease ended")
	}
	p.release(l)
}

func TestDestroyLeavesNothing(t *testing.T) {
	b := newStorage()
	p := start(t, b)
	id := p.volume()
	l := p.acquire(id)
	if err := l.Destroy(t.Context()); !errors.Is(err, drivers.ErrInvalid) {
		t.Fatalf("a live volume was destroyed: %v", err)
	}
	if err := l.Switch(t.Context(), func(r *mapper.Root) { r.State = mapper.Deleted }); err != nil {
		t.Fatal(err)
	}
	if err := l.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := roots(t, b, id); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
	if l.Err() == nil {
		t.Fatal("the lease goes on")
	}
}

func TestInstanceFilesAreRemovedWithTheirProcesses(t *testing.T) {
	b := newStorage()
	p, q := start(t, b), start(t, b)
	files := func() string {
		var names []string
		err := b.List(t.Context(), chunk.InstanceGroup, func(info drivers.Info) error {
			names = append(names, info.Name)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(names, " ")
	}
	if got := files(); got != "" {
		t.Fatalf("%s before the first grant", got)
	}
	id := p.volume()
	l := p.acquire(id)
	if alive, err := q.Alive(t.Context(), l.Root().Holder); !alive || err != nil {
		t.Fatalf("the holder is alive: %v, %v", alive, err)
	}
	if n, err := q.Bury(t.Context(), false); n != 0 || err != nil {
		t.Fatalf("%d living processes buried, %v", n, err)
	}
	l.Abandon()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive, err := q.Alive(t.Context(), l.Root().Holder); alive || err != nil {
		t.Fatalf("the holder is dead: %v, %v", alive, err)
	}
	if n, err := q.Bury(t.Context(), true); n != 1 || err != nil || files() == "" {
		t.Fatalf("%d dead processes found, %v", n, err)
	}
	if n, err := q.Bury(t.Context(), false); n != 1 || err != nil || files() != "" {
		t.Fatalf("%d dead processes buried, %v", n, err)
	}
	q.release(q.acquire(id))
	if err := q.Close(t.Context()); err != nil || files() != "" {
		t.Fatalf("left: %s, %v", files(), err)
	}
	if err := q.Close(t.Context()); !errors.Is(err, locking.ErrClosed) {
		t.Fatalf("closed twice: %v", err)
	}
	if _, err := q.Acquire(t.Context(), id); !errors.Is(err, locking.ErrClosed) {
		t.Fatalf("acquired after the end: %v", err)
	}
}

func TestB11StaleFilesAndSimilarOwnersAreHarmless(t *testing.T) {
	b := newStorage()
	p, q := start(t, b), start(t, b)
	id := p.volume()
	l := p.acquire(id)
	nonce := p.Nonce()
	// A name that begins as the holder's, one that is none, and one of a process that died before its first grant.
	for _, name := range []string{"0123", "00000000000000000000000000000000", "ffffffffffffffffffffffffffffffff.tmp"} {
		if err := b.Replace(t.Context(), chunk.InstanceName(name), nil, drivers.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"0000000g", "1", "000000002", "ffffffff.tmp"} {
		if err := b.Replace(t.Context(), chunk.GroupName(id, chunk.Roots)+"/"+name, nil, drivers.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	similar := l.Root().Holder
	similar.Instance[15] ^= 1
	if alive, err := q.Alive(t.Context(), similar); alive || err != nil {
		t.Fatalf("a holder with a similar nonce is alive: %v, %v", alive, err)
	}
	if _, err := q.Acquire(t.Context(), id); !errors.Is(err, locking.ErrHeld) {
		t.Fatalf("acquired: %v", err)
	}
	p.release(l)
	if l := q.acquire(id); l.Root().Holder.Instance == nonce {
		t.Fatal("the holder is still the old one")
	}
}
