package catalog_test

import (
	"bytes"
	"context"
	"testing"

	"skerry/drivers"
	"skerry/drivers/local"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/volume"
	"skerry/volume/catalog"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// process is one process with a pool open.
type process struct {
	*catalog.Pool
	t      *testing.T
	engine *drivers.Engine
}

// each runs a test on a fresh pool of every driver.
func each(t *testing.T, test func(*testing.T, drivers.Backend, *process)) {
	t.Run("mem", func(t *testing.T) {
		b := mem.New(mem.Options{})
		test(t, b, initialize(t, b))
	})
	t.Run("local", func(t *testing.T) {
		b, err := local.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() }) // nothing is open any more
		test(t, b, initialize(t, b))
	})
}

// newPool makes a pool on fresh storage in memory and opens it.
func newPool(t *testing.T) (*mem.Backend, *process) {
	t.Helper()
	b := mem.New(mem.Options{})
	return b, initialize(t, b)
}

// initialize makes a pool on empty storage and opens it.
func initialize(t *testing.T, b drivers.Backend) *process {
	t.Helper()
	e := drivers.NewEngine(b, drivers.Options{})
	if err := catalog.Init(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return start(t, b)
}

// start opens the pool on b in another process, which ends with the test.
func start(t *testing.T, b drivers.Backend) *process {
	t.Helper()
	e := drivers.NewEngine(b, drivers.Options{})
	p, err := catalog.Open(t.Context(), e, catalog.Options{
		Identity: locking.Identity{Host: "test", Boot: [16]byte{1}, PID: 1},
		Volume:   volume.Options{JournalSize: 256 << 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	proc := &process{Pool: p, t: t, engine: e}
	t.Cleanup(proc.stop)
	return proc
}

// stop ends the process cleanly. It may be called twice.
func (p *process) stop() {
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

func (p *process) create(name string, size int64) catalog.Info {
	p.t.Helper()
	info, err := p.Create(p.t.Context(), name, catalog.CreateOptions{Size: size})
	if err != nil {
		p.t.Fatal(err)
	}
	return info
}

func (p *process) open(name string) *volume.Device {
	p.t.Helper()
	d, err := p.OpenVolume(p.t.Context(), name)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

func (p *process) close(d *volume.Device) {
	p.t.Helper()
	if err := d.Close(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// write fills [off, off+n) of a volume with a byte.
func (p *process) write(name string, off, n int64, b byte) {
	p.t.Helper()
	d := p.open(name)
	if err := d.WriteAt(p.t.Context(), bytes.Repeat([]byte{b}, int(n)), off); err != nil {
		p.t.Fatal(err)
	}
	p.close(d)
}

// wants fails unless [off, off+n) of a volume or a snapshot is filled with a byte.
func (p *process) wants(name string, off, n int64, b byte) {
	p.t.Helper()
	r, err := catalog.ParseRef(name)
	if err != nil {
		p.t.Fatal(err)
	}
	open := func() (*volume.Device, error) { return p.OpenVolume(p.t.Context(), name) }
	if r.Snapshot != "" {
		open = func() (*volume.Device, error) { return p.OpenSnapshot(p.t.Context(), r) }
	}
	d, err := open()
	if err != nil {
		p.t.Fatal(err)
	}
	defer p.close(d)
	wantsDevice(p.t, d, off, n, b)
}

func wantsDevice(t *testing.T, d *volume.Device, off, n int64, b byte) {
	t.Helper()
	got := make([]byte, n)
	if err := d.ReadAt(t.Context(), got, off); err != nil {
		t.Fatal(err)
	}
	for i, c := range got {
		if c != b {
			t.Fatalf("byte %d is %d, not %d", off+int64(i), c, b)
		}
	}
}

func (p *process) snapshot(name string) {
	p.t.Helper()
	r, err := catalog.ParseRef(name)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.Snapshot(p.t.Context(), r); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) clone(from, name string, size int64) catalog.Info {
	p.t.Helper()
	r, err := catalog.ParseRef(from)
	if err != nil {
		p.t.Fatal(err)
	}
	info, err := p.Clone(p.t.Context(), r, name, catalog.CloneOptions{Size: size})
	if err != nil {
		p.t.Fatal(err)
	}
	return info
}

func (p *process) remove(name string) {
	p.t.Helper()
	r, err := catalog.ParseRef(name)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.Remove(p.t.Context(), r, catalog.RemoveOptions{}); err != nil {
		p.t.Fatal(err)
	}
}

// objects returns the names of all objects of the storage.
func objects(t *testing.T, b drivers.Backend) []string {
	t.Helper()
	var names []string
	err := b.List(t.Context(), "v", func(info drivers.Info) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
