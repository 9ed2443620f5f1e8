package collect_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

const (
	chunkSize = 64 << 10
	kib       = 1 << 10
	mib       = 1 << 20
)

var errDead = errors.New("the process is dead")

// process is one process with a pool open.
type process struct {
	*catalog.Pool
	t      testing.TB
	faults *faulty.Backend
	engine *drivers.Engine
}

// newStorage returns an empty pool.
func newStorage(t testing.TB) *mem.Backend {
	t.Helper()
	b := mem.New(mem.Options{})
	e := drivers.NewEngine(b, drivers.Options{})
	if err := catalog.Init(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// start opens the pool on b in a new process, under a boot id.
func start(t testing.TB, b drivers.Backend, boot byte) *process {
	t.Helper()
	p := &process{t: t, faults: faulty.Wrap(b)}
	p.engine = drivers.NewEngine(p.faults, drivers.Options{})
	var err error
	p.Pool, err = catalog.Open(t.Context(), p.engine, catalog.Options{
		Identity: locking.Identity{Host: "test", Boot: [16]byte{boot}, PID: int(boot)},
		Volume:   volume.Options{JournalSize: 64 << 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.die)
	return p
}

// stop ends the process cleanly.
func (p *process) stop() {
	p.t.Helper()
	if p.engine == nil {
		return
	}
	if err := p.Close(context.Background()); err != nil {
		p.t.Errorf("close pool: %v", err)
	}
	if err := p.engine.Close(); err != nil {
		p.t.Errorf("close engine: %v", err)
	}
	p.engine = nil
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

func (p *process) create(name string, size int64) {
	p.t.Helper()
	_, err := p.Create(p.t.Context(), name, catalog.CreateOptions{Size: size, ChunkSize: chunkSize})
	p.ok(err)
}

func (p *process) snapshot(name string) {
	p.t.Helper()
	_, err := p.Snapshot(p.t.Context(), ref(p.t, name))
	p.ok(err)
}

func (p *process) clone(from, name string) {
	p.t.Helper()
	_, err := p.Clone(p.t.Context(), ref(p.t, from), name, catalog.CloneOptions{})
	p.ok(err)
}

func (p *process) remove(name string) {
	p.t.Helper()
	_, err := p.Remove(p.t.Context(), ref(p.t, name), catalog.RemoveOptions{})
	p.ok(err)
}

// write fills [off, off+n) of a volume with a byte.
func (p *process) write(name string, off, n int64, b byte) {
	p.t.Helper()
	d, err := p.OpenVolume(p.t.Context(), name)
	p.ok(err)
	p.ok(d.WriteAt(p.t.Context(), bytes.Repeat([]byte{b}, int(n)), off))
	p.ok(d.Close(p.t.Context()))
}

// content returns the first n bytes of a volume or a snapshot.
func (p *process) content(name string, n int64) []byte {
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
	got := make([]byte, n)
	p.ok(d.ReadAt(p.t.Context(), got, 0))
	p.ok(d.Close(p.t.Context()))
	return got
}

// wants fails unless [off, off+n) of a volume or a snapshot is filled with a byte.
func (p *process) wants(name string, off, n int64, b byte) {
	p.t.Helper()
	for i, c := range p.content(name, off+n)[off:] {
		if c != b {
			p.t.Fatalf("%s: byte %d is %d, not %d", name, off+int64(i), c, b)
		}
	}
}

// collect runs a collection that must meet no problem.
func (p *process) collect() collect.Report {
	p.t.Helper()
	r, err := collect.Collect(p.t.Context(), p.Pool, collect.Options{})
	p.ok(err)
	if len(r.Problems) > 0 {
		p.t.Fatalf("collection met problems: %+v", r.Problems)
	}
	return r
}

// check fails if anything is damaged, and returns the rest.
func (p *process) check() collect.CheckReport {
	p.t.Helper()
	r, err := collect.Check(p.t.Context(), p.Pool, collect.CheckOptions{})
	p.ok(err)
	if r.Damaged() {
		p.t.Fatalf("damaged: %+v", r.Problems)
	}
	return r
}

// clean fails unless a check finds nothing at all.
func (p *process) clean() {
	p.t.Helper()
	if r := p.check(); len(r.Problems) > 0 || len(r.Skipped) > 0 {
		p.t.Fatalf("not clean: %+v, skipped %+v", r.Problems, r.Skipped)
	}
}

// volumes returns what a list shows, in short.
func (p *process) volumes() string {
	p.t.Helper()
	infos, err := p.List(p.t.Context())
	p.ok(err)
	s := ""
	for _, i := range infos {
		s += i.Name
		for _, snap := range i.Snapshots {
			s += "@" + snap.Name
		}
		s += " "
	}
	return s
}

// objects returns the names of all objects below a group.
func objects(t testing.TB, b drivers.Backend, group string) []string {
	t.Helper()
	var names []string
	err := b.List(t.Context(), group, func(info drivers.Info) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
