package volume_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"skerry/drivers/mem"
	"skerry/volume"
)

var (
	modelSeed  = flag.Uint64("seed", 0, "seed of the random tests; 0: a new one each time")
	modelSteps = flag.Int("steps", 400, "operations of each run of the model test")
	modelRuns  = flag.Int("runs", defaultRuns, "runs of the model test")
)

// TestModel compares a volume with an array of bytes over random operations, ends of the process and power losses.
func TestModel(t *testing.T) {
	for run := range soaked(*modelRuns) {
		seed := *modelSeed
		if seed == 0 {
			seed = uint64(time.Now().UnixNano())
		}
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			t.Parallel()
			t.Logf("seed %d", seed)
			runModel(t, rand.New(rand.NewPCG(seed, uint64(run))), *modelSteps)
		})
	}
}

// soaked returns how often a random test runs: more often with SKERRY_SOAK.
func soaked(runs int) int {
	if os.Getenv("SKERRY_SOAK") != "" {
		return 100 * runs
	}
	return runs
}

func runModel(t *testing.T, rng *rand.Rand, steps int) {
	chunkSize := int64(64<<10) << rng.IntN(2)
	size := chunkSize*int64(2+rng.IntN(6)) - 512*int64(rng.IntN(20))
	w := newWorld(t, size, chunkSize)
	m := newModel(size)
	check := func(step int, what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("step %d, %s: %v", step, what, err)
		}
	}
	for step := range steps {
		ctx := context.Background()
		off := rng.Int64N(size)
		n := min(1+rng.Int64N([]int64{512, 8 << 10, 100 << 10}[rng.IntN(3)]), size-off)
		switch op := rng.IntN(100); {
		case op < 25: // aligned, as guests write
			off = off &^ 4095
			n = min((n+4095)&^4095, size-off)
			fallthrough
		case op < 45:
			p := fill(rng, int(n))
			m.write(p, off)
			check(step, "write", w.dev.WriteAt(ctx, p, off))
		case op < 50:
			p := fill(rng, int(n))
			m.write(p, off)
			check(step, "write with FUA", await(w.dev, &volume.Request{Kind: volume.Write, Flags: volume.FUA, Offset: off, Length: n, Data: p}))
			for s := off / 512; s*512 < off+n; s++ {
				delete(m.may, int(s))
			}
		case op < 60:
			m.write(make([]byte, n), off)
			check(step, "discard", w.dev.Discard(ctx, off, n))
		case op < 64:
			m.write(make([]byte, n), off)
			check(step, "zero", await(w.dev, &volume.Request{Kind: volume.WriteZeroes, Flags: volume.NoHole, Offset: off, Length: n}))
		case op < 78:
			check(step, "flush", w.dev.Flush(ctx))
			m.flushed()
		case op < 82:
			name := fmt.Sprintf("s%d", step)
			_, err := w.dev.Snapshot(ctx, name)
			check(step, "snapshot", err)
			m.snapshots[name] = append([]byte(nil), m.now...)
			m.flushed()
		case op < 83:
			size = max(512, min(size+chunkSize*int64(rng.IntN(7)-3)/2, 12*chunkSize)) &^ 511
			if rng.IntN(3) == 0 {
				size = max(512, size-512*rng.Int64N(20))
			}
			check(step, fmt.Sprintf("resize to %d", size), w.dev.Resize(ctx, size))
			if int(size) != len(m.now) {
				m.resized(size)
				m.flushed() // all was stored with the size
			}
		case op < 84:
			if rng.IntN(2) == 0 {
				check(step, "snapshots", m.sameSnapshots(w.snapshots()))
				w.clone(size)
				clear(m.snapshots)
			} else {
				check(step, "flatten", w.dev.Flatten(ctx, volume.FlattenOptions{}))
				w.alone()
			}
			m.flushed()
		case op < 86:
			if rng.IntN(3) == 0 {
				check(step, "grow", w.dev.Grow(ctx))
				break
			}
			_, err := w.dev.Cut(ctx)
			check(step, "cut", err)
		case op < 89:
			check(step, "close", w.close())
			m.flushed()
			w.reopen()
		case op < 92:
			w.kill()
			check(step, "after kill -9", m.same(content(t, w.dev)))
		case op < 95:
			w.crash(mem.KeepRandom(rng))
			check(step, "after power loss", m.survive(content(t, w.dev)))
		default:
			p := make([]byte, n)
			check(step, "read", w.dev.ReadAt(ctx, p, off))
			part := &model{now: m.now[off : off+n]}
			check(step, fmt.Sprintf("read at %d", off), part.same(p))
		}
		if step%50 == 49 {
			check(step, "read all", m.same(content(t, w.dev)))
			check(step, "snapshots", m.sameSnapshots(w.snapshots()))
		}
	}
	check(steps, "snapshots", m.sameSnapshots(w.snapshots()))
}

// await submits a request and waits for its end.
func await(dev *volume.Device, r *volume.Request) error {
	w, ok := r.Done.(waiter)
	if !ok {
		w = waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}
		r.Done = w
	}
	if dev.Submit(r) {
		return r.Err
	}
	err := <-w.answered
	<-w.released
	return err
}

type waiter struct {
	answered chan error
	released chan struct{} // has room for one
}

func (w waiter) Answered(_ *volume.Request, err error) { w.answered <- err }
func (w waiter) Released(*volume.Request)              { w.released <- struct{}{} }
