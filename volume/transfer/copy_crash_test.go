package transfer_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume/catalog"
	"skerry/volume/collect"
	"skerry/volume/transfer"
)

// TestCopyGoesOnAfterACrashBeforeEveryCall ends the process, or the power of both pools, before call k of one of the pools. Nothing of the copy may
// show before it is complete, the same command finishes it, and nothing is left of the trouble.
func TestCopyGoesOnAfterACrashBeforeEveryCall(t *testing.T) {
	rng := random(t)
	a, b := newStorage(t), newStorage(t)
	src := start(t, a, 1, 0)
	h := newHistory(src, "vm1", 1<<20, 64<<10, 2, rng)
	src.stop()
	for _, target := range []bool{false, true} {
		for _, keep := range []mem.Keep{nil, mem.KeepAll, mem.KeepNone, mem.KeepRandom(rng)} {
			for k, finished := int64(1), false; !finished; k += 1 + rng.Int64N(2*stride-1) {
				finished = cutCopy(t, a, b, h, target, k, keep)
			}
		}
	}
}

// crashed returns what a crash leaves of a pool.
func crashed(b *mem.Backend, keep mem.Keep) *mem.Backend {
	if keep == nil {
		return b.Kill()
	}
	return b.Crash(keep)
}

// cutCopy copies from copies of two pools until call k of one of them, crashes and goes on in new processes. It reports whether there was no
// call k.
func cutCopy(t *testing.T, a, b *mem.Backend, h *history, target bool, k int64, keep mem.Keep) (finished bool) {
	t.Helper()
	a, b = a.Kill(), b.Kill()
	src, dst := start(t, a, 1, 0), start(t, b, 1, 0)
	var mu sync.Mutex
	var dead bool
	var afterA, afterB *mem.Backend
	var what string
	hook := func(p *process, counted bool) {
		first := p.faults.Calls()
		p.faults.SetHook(func(c faulty.Call) faulty.Action {
			mu.Lock()
			defer mu.Unlock()
			if counted && !dead && c.N-first >= k {
				dead, what = true, c.String()
				afterA, afterB = crashed(a, keep), crashed(b, keep)
			}
			if dead {
				return faulty.Fail(errDead)
			}
			return faulty.Pass()
		})
	}
	hook(src, !target)
	hook(dst, target)
	o := transfer.CopyOptions{Snapshots: true, ChunkSize: 128 << 10, Workers: 2}
	_, err := copyAs(src, "vm1", dst, "copy", o)
	mu.Lock()
	finished = !dead
	mu.Unlock()
	if finished {
		src.ok(err)
		afterA, afterB = a.Kill(), b.Kill()
	}
	src.die()
	dst.die()
	defer func() {
		if t.Failed() {
			t.Logf("cut off before call %d of the target %v, %s", k, target, what)
		}
	}()

	boot := byte(1)
	if keep != nil {
		boot = 2
	}
	src, dst = start(t, afterA, boot, 0), start(t, afterB, boot, 0)
	defer src.die()
	defer dst.die()
	for _, p := range []*process{src, dst} {
		p.check(collect.Pending, collect.Leak, collect.Stale)
		if rand.IntN(2) == 0 {
			p.collect()
			p.check(collect.Pending, collect.Stale)
		}
	}
	const whole = "copy @s1 @s2"
	there := dst.volumes()
	if there != "" && there != whole {
		t.Fatalf("the pool has %q", there)
	}
	if _, err := copyAs(src, "vm1", dst, "copy", o); err != nil && !(there == whole && errors.Is(err, catalog.ErrExists)) {
		t.Fatalf("again: %v", err)
	}
	if l := dst.volumes(); l != whole {
		t.Fatalf("the pool has %q in the end", l)
	}
	dst.wants("copy", h.now)
	for _, s := range h.names {
		dst.wants("copy@"+s, h.snaps[s])
	}
	dst.collect()
	dst.check()
	src.stop()
	// A pin of which the dead process told nobody ends by itself.
	src = start(t, afterA, boot, 8*24*time.Hour)
	defer src.die()
	src.collect()
	src.check()
	src.wants("vm1", h.now)
	if info, err := src.Info(t.Context(), "vm1"); err != nil || info.Hidden > 0 {
		t.Fatalf("%d hidden snapshots are left, %v", info.Hidden, err)
	}
	return finished
}
