package locking_test

import (
	"context"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/mapper"
)

// process is one process that may hold volumes.
type process struct {
	*locking.Instance
	t      *testing.T
	faults *faulty.Backend
	engine *drivers.Engine
}

func newStorage() *mem.Backend { return mem.New(mem.Options{}) }

// start begins a process on b. It ends with the test.
func start(t *testing.T, b drivers.Backend) *process {
	t.Helper()
	p := &process{t: t, faults: faulty.Wrap(b)}
	p.engine = drivers.NewEngine(p.faults, drivers.Options{})
	id, err := locking.LocalIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p.Instance = locking.NewInstance(p.engine, id, locking.Options{})
	t.Cleanup(func() {
		p.faults.SetHook(nil)
		p.Close(context.Background()) // the test may have closed it
		p.engine.Close()
	})
	return p
}

func (p *process) client() drivers.Client { return p.engine.Client(drivers.LaneLease, 0, nil) }

// volume returns the first root of a new volume.
func newRoot(t *testing.T) *mapper.Root {
	t.Helper()
	geom, err := chunk.NewGeometry(chunk.DefaultSize)
	if err != nil {
		t.Fatal(err)
	}
	id := chunk.NewVolumeID()
	return &mapper.Root{Volume: id, State: mapper.Live, Name: "vm1", Size: 1 << 30, Geometry: geom, Owners: []chunk.VolumeID{id}}
}

// volume makes a volume that nobody holds.
func (p *process) volume() chunk.VolumeID {
	p.t.Helper()
	root := newRoot(p.t)
	l, err := p.Create(p.t.Context(), root)
	if err != nil {
		p.t.Fatal(err)
	}
	p.release(l)
	return root.Volume
}

func (p *process) acquire(id chunk.VolumeID) *locking.Lease {
	p.t.Helper()
	l, err := p.Acquire(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return l
}

func (p *process) release(l *locking.Lease) {
	p.t.Helper()
	if err := l.Release(p.t.Context(), nil); err != nil {
		p.t.Fatal(err)
	}
}

// inForce returns the root in force.
func (p *process) inForce(id chunk.VolumeID) *mapper.Root {
	p.t.Helper()
	root, err := locking.Inspect(p.t.Context(), p.client(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return root
}

// roots returns the names of the roots of a volume.
func roots(t *testing.T, b drivers.Backend, id chunk.VolumeID) []string {
	t.Helper()
	var names []string
	err := b.List(t.Context(), chunk.GroupName(id, chunk.Roots), func(info drivers.Info) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
