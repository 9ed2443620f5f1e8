package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/collect"
	"skerry/volume/transfer"
)

var errDead = errors.New("the process is dead")

// process is one process with a pool open.
type process struct {
	*catalog.Pool
	t      testing.TB
	faults *faulty.Backend
	engine *drivers.Engine
}

// newStorage returns an empty pool in memory.
func newStorage(t testing.TB) *mem.Backend {
	t.Helper()
	b := mem.New(mem.Options{})
	e := drivers.NewEngine(b, drivers.Options{})
	if err := errors.Join(catalog.Init(t.Context(), e), e.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// start opens the pool on b in a new process under a boot id, whose clock is ahead.
func start(t testing.TB, b drivers.Backend, boot byte, ahead time.Duration) *process {
	t.Helper()
	p := &process{t: t, faults: faulty.Wrap(b)}
	p.engine = drivers.NewEngine(p.faults, drivers.Options{})
	var err error
	p.Pool, err = catalog.Open(t.Context(), p.engine, catalog.Options{
		Identity: locking.Identity{Host: "test", Boot: [16]byte{boot}, PID: int(boot)},
		Volume:   volume.Options{JournalSize: 64 << 10},
		Now:      func() time.Time { return time.Now().Add(ahead) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.die)
	return p
}

// die ends the process as kill -9 does: nothing reaches the storage any more.
func (p *process) die() {
	if p.engine == nil {
		return
	}
	p.faults.SetHook(func(faulty.Call) faulty.Action { return faulty.Fail(errDead) })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.Close(context.Background()) // it fails, as it must
	p.Close(ctx)
	p.engine.Close()
	p.engine = nil
}

// stop ends the process cleanly.
func (p *process) stop() {
	p.t.Helper()
	p.ok(errors.Join(p.Close(context.Background()), p.engine.Close()))
	p.engine = nil
}

func (p *process) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func ref(t testing.TB, s string) catalog.Ref {
	t.Helper()
	r, err := catalog.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// open opens a volume or a snapshot.
func (p *process) open(name string) *volume.Device {
	p.t.Helper()
	r := ref(p.t, name)
	var d *volume.Device
	var err error
	if r.Snapshot != "" {
		d, err = p.OpenSnapshot(p.t.Context(), r)
	} else {
		d, err = p.OpenVolume(p.t.Context(), name)
	}
	p.ok(err)
	return d
}

// wants fails unless a volume or a snapshot has this content.
func (p *process) wants(name string, want []byte) {
	p.t.Helper()
	d := p.open(name)
	got := make([]byte, d.Size())
	p.ok(d.ReadAt(p.t.Context(), got, 0))
	p.ok(d.Close(p.t.Context()))
	if !bytes.Equal(got, want) {
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				p.t.Fatalf("%s: byte %d is %#x, want %#x", name, i, got[i], want[i])
			}
		}
		p.t.Fatalf("%s has %d bytes, want %d", name, len(got), len(want))
	}
}

// check fails if a check finds anything but kinds of problems that are allowed.
func (p *process) check(allowed ...collect.Kind) {
	p.t.Helper()
	r, err := collect.Check(p.t.Context(), p.Pool, collect.CheckOptions{})
	p.ok(err)
problems:
	for _, problem := range r.Problems {
		for _, k := range allowed {
			if problem.Kind == k {
				continue problems
			}
		}
		p.t.Fatalf("check: %+v", problem)
	}
}

// collect runs a collection that must meet no problem.
func (p *process) collect() {
	p.t.Helper()
	r, err := collect.Collect(p.t.Context(), p.Pool, collect.Options{})
	p.ok(err)
	if len(r.Problems) > 0 {
		p.t.Fatalf("collection met problems: %+v", r.Problems)
	}
}

// volumes returns what a list shows, in short.
func (p *process) volumes() string {
	p.t.Helper()
	infos, err := p.List(p.t.Context())
	p.ok(err)
	var s []string
	for _, i := range infos {
		s = append(s, i.Name)
		for _, snap := range i.Snapshots {
			s = append(s, "@"+snap.Name)
		}
	}
	return strings.Join(s, " ")
}

// history is a volume with a past: its present content, and that of its snapshots.
type history struct {
	name  string
	now   []byte
	names []string // of the snapshots, the oldest first
	snaps map[string][]byte
}

// change changes the volume and the model.
func (h *history) change(p *process, rng *rand.Rand, changes int) {
	p.t.Helper()
	d := p.open(h.name)
	for range changes {
		n := min(512*(1+rng.IntN(60)), len(h.now))
		off := 512 * rng.IntN((len(h.now)-n)/512+1)
		switch rng.IntN(5) {
		case 0:
			p.ok(d.WriteZeroes(p.t.Context(), int64(off), int64(n)))
			clear(h.now[off:][:n])
		case 1:
			p.ok(d.Discard(p.t.Context(), int64(off), int64(n)))
			clear(h.now[off:][:n])
		default:
			b := bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, n)
			if rng.IntN(4) == 0 {
				clear(b) // zeros that are written
			}
			p.ok(d.WriteAt(p.t.Context(), b, int64(off)))
			copy(h.now[off:], b)
		}
	}
	p.ok(d.Close(p.t.Context()))
}

// resize makes the volume larger or smaller.
func (h *history) resize(p *process, size int64) {
	p.t.Helper()
	d := p.open(h.name)
	p.ok(errors.Join(d.Resize(p.t.Context(), size), d.Close(p.t.Context())))
	h.now = append(h.now[:min(size, int64(len(h.now)))], make([]byte, max(0, size-int64(len(h.now))))...)
}

// snapshot takes a snapshot.
func (h *history) snapshot(p *process, name string) {
	p.t.Helper()
	_, err := p.Snapshot(p.t.Context(), catalog.Ref{Volume: h.name, Snapshot: name})
	p.ok(err)
	h.names = append(h.names, name)
	h.snaps[name] = bytes.Clone(h.now)
}

// newHistory makes a volume with snapshots s1, s2 ... and changes after the last one.
func newHistory(p *process, name string, size, chunkSize int64, snapshots int, rng *rand.Rand) *history {
	p.t.Helper()
	_, err := p.Create(p.t.Context(), name, catalog.CreateOptions{Size: size, ChunkSize: chunkSize})
	p.ok(err)
	h := &history{name: name, now: make([]byte, size), snaps: make(map[string][]byte)}
	for i := range snapshots {
		h.change(p, rng, 8)
		h.snapshot(p, "s"+string(rune('1'+i)))
		h.resize(p, int64(len(h.now))+int64(512*(1-2*(i%2))*rng.IntN(600)))
	}
	h.change(p, rng, 8)
	return h
}

// copyAs copies, with checkpoints close to one another.
func copyAs(from *process, r string, to *process, name string, o transfer.CopyOptions) (transfer.Copied, error) {
	if o.Checkpoint == 0 {
		o.Checkpoint = 100 << 10
	}
	return transfer.Copy(from.t.Context(), from.Pool, ref(from.t, r), to.Pool, name, o)
}

// flip changes a bit of every block of data that a pool has.
func flip(t *testing.T, b drivers.Backend) {
	t.Helper()
	err := b.List(t.Context(), chunk.VolumesGroup(), func(i drivers.Info) error {
		if _, _, ok := chunk.ParseDataName(i.Name); !ok {
			return nil
		}
		o, err := b.Open(t.Context(), i.Name, drivers.ReadWrite)
		if err != nil {
			return err
		}
		for at := int64(0); at < i.Size && err == nil; at += chunk.BlockSize {
			p := make([]byte, 1)
			if err = o.ReadAt(p, at); err == nil {
				p[0] ^= 1
				err = o.WriteAt(p, at)
			}
		}
		return errors.Join(err, o.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fault is what happens to one call of the storage.
type fault struct {
	name   string
	action faulty.Action
	late   bool // what was held back is delivered once the work was done
}

func faults() []fault {
	return []fault{
		{name: "not done", action: faulty.Fail(fmt.Errorf("%w: no answer", drivers.ErrUnavailable))},
		{name: "no space", action: faulty.Fail(drivers.ErrNoSpace)},
		{name: "done but unknown", action: faulty.FailAfter(faulty.ErrUnknown)},
		{name: "late", action: faulty.Late(), late: true},
		{name: "twice", action: faulty.Twice()},
	}
}

// at lets the fault happen to the k-th call from now on. The result says what call that was, "" as long as it was not made.
func (f fault) at(p *process, k int64) func() string {
	var what atomic.Value
	what.Store("")
	first := p.faults.Calls()
	p.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.N-first != k {
			return faulty.Pass()
		}
		what.Store(c.String())
		return f.action
	})
	return func() string { return what.Load().(string) }
}

// deliver delivers what was held back. Most comes too late to have an effect, which may be an error.
func (f fault) deliver(p *process) {
	if f.late {
		_ = p.faults.Deliver(p.t.Context())
	}
}
