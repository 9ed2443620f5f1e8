package volume_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume"
)

var windowRuns = flag.Int("windows", defaultRuns, "runs of the model test of large volumes")

// windows show some parts of a large volume as one small one.
type windows struct {
	at   []int64 // offsets in the volume, ascending
	size int64   // bytes of each
}

func (v windows) total() int64 { return int64(len(v.at)) * v.size }

// clip returns the part of [off, off+n) inside one window, and where it is in the volume.
func (v windows) clip(off, n int64) (real, clipped int64) {
	i := off / v.size
	return v.at[i] + off%v.size, min(n, v.size-off%v.size)
}

func (v windows) read(t *testing.T, dev *volume.Device) []byte {
	t.Helper()
	p := make([]byte, v.total())
	for i, at := range v.at {
		if err := dev.ReadAt(context.Background(), p[int64(i)*v.size:][:v.size], at); err != nil {
			t.Fatalf("read window %d: %v", i, err)
		}
	}
	return p
}

func (w *world) windowSnapshots(v windows) map[string][]byte {
	w.t.Helper()
	return w.snapshotsRead(func(dev *volume.Device) []byte { return v.read(w.t, dev) })
}

// settle takes the content after an error, of which a later crash may show what was before.
func (m *model) settle(got []byte) error {
	if err := m.fits(got); err != nil {
		return err
	}
	for s := 0; s*chunk.SectorSize < len(m.now); s++ {
		g := got[s*chunk.SectorSize : min((s+1)*chunk.SectorSize, len(got))]
		if bytes.Equal(g, m.sector(s)) {
			continue
		}
		ok := false
		for _, c := range m.may[s] {
			ok = ok || bytes.Equal(g, c)
		}
		if !ok {
			return fmt.Errorf("sector %d holds %x, want %x (%d others)", s, g[:8], m.sector(s)[:8], len(m.may[s]))
		}
		m.may[s] = append(m.may[s], bytes.Clone(m.sector(s)))
		copy(m.sector(s), g)
	}
	return nil
}

func TestModelOfLargeVolumes(t *testing.T) {
	for run := range soaked(*windowRuns) {
		seed := *modelSeed
		if seed == 0 {
			seed = uint64(time.Now().UnixNano())
		}
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			t.Parallel()
			t.Logf("seed %d", seed)
			runWindows(t, rand.New(rand.NewPCG(seed, uint64(run))))
		})
	}
}

func runWindows(t *testing.T, rng *rand.Rand) {
	chunkSize := []int64{64 << 10, 64 << 10, 128 << 10, 4 << 20, 32 << 20}[rng.IntN(5)]
	page := chunkSize * 1024
	v := windows{size: 72 << 10}
	size := 3*page + 512*int64(1+rng.IntN(200)) + v.size
	v.at = []int64{0, chunkSize - 36<<10, page - 4096*3, 2*page - 100<<9, 3*page - 512, size - v.size}
	for i := 1; i < len(v.at); i++ {
		v.at[i] = max(v.at[i], v.at[i-1]+v.size)
	}
	size = v.at[len(v.at)-1] + v.size
	w := newWorld(t, size, chunkSize)
	w.die()
	w.storage = w.storage.Kill()
	w.options.MapMemory = []int64{1, 20000, 1 << 20}[rng.IntN(3)]
	w.options.JournalSize = []int64{64 << 10, 256 << 10}[rng.IntN(2)]
	w.options.JournalLimit = []int64{64 << 10, 1 << 20}[rng.IntN(2)]
	faults := rng.IntN(2) == 0
	var mu sync.Mutex
	armed := false
	frng := rand.New(rand.NewPCG(rng.Uint64(), 1))
	var log []string
	w.begin = func(f *faulty.Backend) {
		if !faults {
			return
		}
		f.SetInline(true)
		f.SetHook(func(c faulty.Call) faulty.Action {
			mu.Lock()
			defer mu.Unlock()
			if !armed || frng.IntN(60) != 0 {
				return faulty.Pass()
			}
			a, what := faulty.Pass(), ""
			data := strings.Contains(c.Name, "/data/")
			root := strings.Contains(c.Name, "/root/")
			switch {
			case data && (c.Kind == drivers.OpWrite || c.Kind == drivers.OpPunch):
				switch frng.IntN(3) {
				case 0:
					a, what = faulty.Late(), "late"
				case 1:
					a, what = faulty.Tear(frng.IntN(8), drivers.ErrNoSpace), "torn"
				default:
					a, what = faulty.Fail(drivers.ErrNoSpace), "no space"
				}
			case c.Kind == drivers.OpCreate:
				switch frng.IntN(3) {
				case 0:
					a, what = faulty.Late(), "late"
				case 1:
					a, what = faulty.FailAfter(faulty.ErrUnknown), "unknown yes"
				default:
					a, what = faulty.Fail(drivers.ErrNoSpace), "no space"
				}
			case root && c.Kind == drivers.OpReplace:
				switch frng.IntN(3) {
				case 0:
					a, what = faulty.Late(), "late"
				case 1:
					a, what = faulty.FailAfter(faulty.ErrUnknown), "unknown yes"
				default:
					a, what = faulty.Fail(drivers.ErrNoSpace), "no space"
				}
			case c.Kind == drivers.OpRead, c.Kind == drivers.OpLoad:
				a, what = faulty.Fail(errBroken), "broken"
			}
			if what != "" {
				log = append(log, what+" "+c.String())
			}
			return a
		})
	}
	w.reopen()
	m := newModel(v.total())
	arm := func(on bool) {
		mu.Lock()
		armed = on
		mu.Unlock()
	}
	var steps []string
	fatal := func(step int, what string, err error) {
		t.Helper()
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("chunk %d, %+v, step %d, %s: %v\nfaults: %s\nsteps: %s", chunkSize, w.options, step, what, err, strings.Join(log, "\n  "), strings.Join(steps[max(0, len(steps)-30):], "\n  "))
		}
	}
	// did copes with the outcome of an operation.
	did := func(step int, what string, err error) bool {
		arm(false)
		if err == nil {
			return true
		}
		mu.Lock()
		log = append(log, fmt.Sprintf("step %d, %s: %v", step, what, err))
		mu.Unlock()
		if !faults {
			fatal(step, what, err)
		}
		if w.dev != nil && w.dev.Err() == nil {
			fatal(step, "after an error of "+what, m.settle(v.read(t, w.dev)))
			return false
		}
		// It failed for good.
		w.crash(mem.KeepRandom(rng))
		fatal(step, "after a failure in "+what, m.survive(v.read(t, w.dev)))
		return false
	}
	ctx := context.Background()
	for step := range 250 {
		off := rng.Int64N(v.total())
		n := 1 + rng.Int64N([]int64{512, 8 << 10, 72 << 10}[rng.IntN(3)])
		if rng.IntN(2) == 0 {
			off, n = off&^4095, (n+4095)&^4095
		}
		real, n := v.clip(off, n)
		submit := func(r *volume.Request) error {
			r.Offset, r.Length = real, n
			return await(w.dev, r)
		}
		op := rng.IntN(100)
		steps = append(steps, fmt.Sprintf("%d: op %d at %d+%d", step, op, real, n))
		arm(true)
		switch {
		case op < 40:
			p := fill(rng, int(n))
			m.write(p, off)
			did(step, "write", submit(&volume.Request{Kind: volume.Write, Data: p}))
		case op < 45:
			p := fill(rng, int(n))
			m.write(p, off)
			if did(step, "write with FUA", submit(&volume.Request{Kind: volume.Write, Flags: volume.FUA, Data: p})) {
				for s := off / 512; s*512 < off+n; s++ {
					delete(m.may, int(s))
				}
			}
		case op < 58:
			m.write(make([]byte, n), off)
			did(step, "discard", submit(&volume.Request{Kind: volume.Discard}))
		case op < 61:
			m.write(make([]byte, n), off)
			did(step, "zero", submit(&volume.Request{Kind: volume.WriteZeroes, Flags: volume.NoHole}))
		case op < 73:
			if did(step, "flush", w.dev.Flush(ctx)) {
				m.flushed()
			}
		case op < 79:
			name := fmt.Sprintf("s%d", step)
			picture := bytes.Clone(m.now)
			m.maybe[name] = picture
			_, err := w.dev.Snapshot(ctx, name)
			if did(step, "snapshot", err) {
				m.snapshots[name] = picture
				delete(m.maybe, name)
				m.flushed()
			}
		case op < 83:
			_, err := w.dev.Cut(ctx)
			did(step, "cut", err)
		case op < 86:
			arm(false)
			if err := w.close(); err != nil {
				w.crash(mem.KeepRandom(rng))
				fatal(step, "after a failed close", m.survive(v.read(t, w.dev)))
			} else {
				m.flushed()
				w.reopen()
			}
		case op < 87:
			// Made smaller, and larger again, without an error then.
			end := v.at[rng.IntN(len(v.at))] + 512*rng.Int64N(v.size/512+1)
			end = max(512, min(end, size-512))
			for i, at := range v.at {
				if n := min(v.size, at+v.size-end); n > 0 {
					m.write(make([]byte, n), int64(i+1)*v.size-n)
				}
			}
			err := w.dev.Resize(ctx, end)
			arm(false)
			if err != nil {
				mu.Lock()
				log = append(log, fmt.Sprintf("step %d, resize to %d: %v", step, end, err))
				mu.Unlock()
			}
			switch {
			case err != nil && !faults:
				fatal(step, "resize", err)
			case w.dev.Err() != nil:
				w.crash(mem.KeepRandom(rng))
				fatal(step, "grow after a failure", w.dev.Resize(ctx, size))
				fatal(step, "after a failed resize", m.survive(v.read(t, w.dev)))
			default:
				fatal(step, "grow", w.dev.Resize(ctx, size))
				if err != nil {
					fatal(step, "after an error of resize", m.settle(v.read(t, w.dev)))
				} else {
					m.flushed() // it was a barrier; one that failed made nothing durable
				}
			}
		case op < 89:
			arm(false)
			w.kill()
			fatal(step, "after kill -9", m.same(v.read(t, w.dev)))
		case op < 92:
			arm(false)
			w.crash(mem.KeepRandom(rng))
			fatal(step, "after power loss", m.survive(v.read(t, w.dev)))
		case op < 96:
			arm(false)
			_ = w.faults.Deliver(ctx)
			fatal(step, "after late delivery", m.same(v.read(t, w.dev)))
		default:
			p := make([]byte, n)
			err := w.dev.ReadAt(ctx, p, real)
			arm(false)
			if err == nil {
				part := &model{now: m.now[off : off+n]}
				fatal(step, fmt.Sprintf("read at %d", off), part.same(p))
			} else if !errors.Is(err, errBroken) {
				fatal(step, "read", err)
			}
		}
		if step%25 == 24 {
			arm(false)
			fatal(step, "read all", m.same(v.read(t, w.dev)))
			fatal(step, "snapshots", m.sameSnapshots(w.windowSnapshots(v)))
		}
	}
}
