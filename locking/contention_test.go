package locking_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/local"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/mapper"
)

// TestOneWinsEachGeneration has many goroutines of several processes take and release one volume. The
// state of the root counts the grants; a lost count shows two holders at once.
func TestOneWinsEachGeneration(t *testing.T) {
	b := newStorage()
	id := start(t, b).volume()
	var mu sync.Mutex
	winners := make(map[uint32]int)
	holders := 0
	var wg sync.WaitGroup
	const rounds = 15
	for range 4 {
		p := start(t, b)
		wg.Go(func() {
			for won := 0; won < rounds; {
				l, err := p.Acquire(t.Context(), id)
				if errors.Is(err, locking.ErrHeld) || errors.Is(err, drivers.ErrUnavailable) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				winners[l.Generation()]++
				if holders++; holders != 1 {
					t.Errorf("%d holders at once", holders)
				}
				mu.Unlock()
				err = l.Switch(t.Context(), func(r *mapper.Root) { r.Size += 512 })
				mu.Lock()
				holders--
				mu.Unlock()
				if err := errors.Join(err, l.Release(t.Context(), nil)); err != nil {
					t.Error(err)
					return
				}
				won++
			}
		})
	}
	wg.Wait()
	for g, n := range winners {
		if n != 1 {
			t.Errorf("generation %d was granted %d times", g, n)
		}
	}
	root, err := locking.Inspect(t.Context(), start(t, b).client(), id)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(1<<30 + 4*rounds*512); root.Size != want || root.Generation != 4*rounds+1 {
		t.Fatalf("size %d after %d generations, want %d after %d", root.Size, root.Generation, want, 4*rounds+1)
	}
}

// TestOneTakesOverFromTheDead kills a holder, and has several processes take its volume at once.
func TestOneTakesOverFromTheDead(t *testing.T) {
	for range 20 {
		b := newStorage()
		p := start(t, b)
		id := p.volume()
		l := p.acquire(id)
		after := b.Kill()
		var mu sync.Mutex
		var leases []*locking.Lease
		var wg sync.WaitGroup
		for range 4 {
			q := start(t, after)
			wg.Go(func() {
				got, err := q.Acquire(t.Context(), id)
				if err != nil && !errors.Is(err, locking.ErrHeld) {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					leases = append(leases, got)
				}
			})
		}
		wg.Wait()
		if len(leases) != 1 {
			t.Fatalf("%d processes took over", len(leases))
		}
		if root := leases[0].Root(); root.Generation <= l.Generation() || !root.Held || root.Name != "vm1" {
			t.Fatalf("taken over: %+v", root)
		}
	}
}

func TestTakeOverKeepsWhatTheDeadLeft(t *testing.T) {
	b := newStorage()
	p := start(t, b)
	id := p.volume()
	l := p.acquire(id)
	err := l.Switch(t.Context(), func(r *mapper.Root) {
		r.Failed = true
		r.Journals = []mapper.JournalRef{{Generation: r.Generation, Boot: [16]byte{7}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, after := range map[string]*mem.Backend{"killed": b.Kill(), "power lost": b.Crash(mem.KeepNone)} {
		q := start(t, after)
		root := q.acquire(id).Root()
		if !root.Failed || len(root.Journals) != 1 || root.Journals[0].Boot[0] != 7 || root.Generation != l.Generation()+1 || root.Sequence != 1 {
			t.Fatalf("%s: taken over: %+v", what, root)
		}
	}
}

// TestTakeOverSeesTheLastRootOfTheDead has the holder switch its root for the last time and end between any two calls of the next grant.
func TestTakeOverSeesTheLastRootOfTheDead(t *testing.T) {
	for _, release := range []bool{true, false} {
		for k, ended := int64(1), true; ended; k++ {
			b := newStorage()
			p, q := start(t, b), start(t, b)
			id := p.volume()
			l := p.acquire(id)
			change := func(r *mapper.Root) { r.Name = "vm2" }
			var once sync.Once
			ended = false
			first := q.faults.Calls()
			q.faults.SetHook(func(c faulty.Call) faulty.Action {
				if c.N >= first+k {
					once.Do(func() {
						ended = true
						err := l.Switch(t.Context(), change)
						if release {
							err = errors.Join(err, l.Release(t.Context(), nil))
						}
						if err := errors.Join(err, p.Close(t.Context())); err != nil {
							t.Error(err)
						}
					})
				}
				return faulty.Action{}
			})
			got, err := q.Acquire(t.Context(), id)
			if errors.Is(err, locking.ErrHeld) && !ended {
				break
			}
			if err != nil {
				t.Fatalf("call %d: %v", k, err)
			}
			if name := got.Root().Name; name != "vm2" {
				t.Fatalf("call %d, released %v: the last change of the root is lost: it is %s", k, release, name)
			}
		}
	}
}

// TestErrorAtEveryCallOfAGrant fails call k of Acquire, in each way: it must say so, or hold.
func TestErrorAtEveryCallOfAGrant(t *testing.T) {
	unavailable := fmt.Errorf("%w: no answer", drivers.ErrUnavailable)
	for what, action := range map[string]faulty.Action{
		"failed": faulty.Fail(unavailable), "unknown": faulty.FailAfter(faulty.ErrUnknown),
		"late": faulty.Late(), "twice": faulty.Twice(),
	} {
		for _, dead := range []bool{false, true} {
			for k := int64(1); ; k++ {
				b := newStorage()
				first := start(t, b)
				id := first.volume()
				if dead {
					first.acquire(id)
					b = b.Kill()
				}
				p, q := start(t, b), start(t, b)
				p.faults.SetHook(faulty.At(p.faults.Calls()+k, action))
				before := p.faults.Calls()
				l, err := p.Acquire(t.Context(), id)
				p.faults.SetHook(nil)
				calls := p.faults.Calls() - before
				if err == nil {
					if root := q.inForce(id); root.Nonce != l.Root().Nonce || root.Generation != l.Generation() {
						t.Fatalf("%s at call %d: in force is %+v", what, k, root)
					}
					if _, err := q.Acquire(t.Context(), id); !errors.Is(err, locking.ErrHeld) {
						t.Fatalf("%s at call %d: another owner: %v", what, k, err)
					}
					p.faults.Deliver(t.Context()) // it comes too late
					if err := l.Switch(t.Context(), func(*mapper.Root) {}); err != nil {
						t.Fatalf("%s at call %d: switch: %v", what, k, err)
					}
					p.release(l)
				} else {
					p.faults.Deliver(t.Context()) // a grant that was given up may still come
					p.release(p.acquire(id))      // the same process can always try again
				}
				q.release(q.acquire(id))
				if calls < k {
					break
				}
			}
		}
	}
}

// TestHolderKilledInAnotherProcess has a real process hold a volume in a directory, and kills it.
func TestHolderKilledInAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	b, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p := start(t, b)
	defer p.engine.Close()
	id := p.volume()

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=TestHelperHolder")
	cmd.Env = append(os.Environ(), "SKERRY_TEST_DIR="+dir, "SKERRY_TEST_VOLUME="+id.String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "held\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	var held *locking.HeldError
	if _, err := p.Acquire(t.Context(), id); !errors.As(err, &held) || int(held.Holder.PID) != cmd.Process.Pid {
		t.Fatalf("while it lives: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // it was killed
	l := p.acquire(id)
	if l.Generation() != 3 {
		t.Fatalf("generation %d", l.Generation())
	}
	p.release(l)
	if n, err := p.Bury(t.Context(), false); n != 1 || err != nil {
		t.Fatalf("%d dead processes, %v", n, err)
	}
}

// TestHelperHolder is the process that TestHolderKilledInAnotherProcess kills; by itself it does nothing.
func TestHelperHolder(t *testing.T) {
	dir := os.Getenv("SKERRY_TEST_DIR")
	if dir == "" {
		return
	}
	id, err := chunk.ParseVolumeID(os.Getenv("SKERRY_TEST_VOLUME"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	start(t, b).acquire(id)
	fmt.Println("held")
	select {}
}

// TestTheOutrunHearWhoHolds: who loses every grant to others is told that the volume is held, not that the storage fails.
func TestTheOutrunHearWhoHolds(t *testing.T) {
	b := newStorage()
	p, q := start(t, b), start(t, b)
	id := p.volume()
	q.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpReplace && strings.Contains(c.Name, "/root/") {
			p.release(p.acquire(id)) // always a moment before
		}
		return faulty.Pass()
	})
	_, err := q.Acquire(t.Context(), id)
	q.faults.SetHook(nil)
	var held *locking.HeldError
	if !errors.As(err, &held) || held.Volume != "vm1" {
		t.Fatalf("got %v", err)
	}
	q.release(q.acquire(id))
}
