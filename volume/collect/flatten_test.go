package collect_test

import (
	"context"
	"errors"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// refuses fails unless a snapshot cannot be removed since it has clones.
func (p *process) refuses(name string) {
	p.t.Helper()
	if _, err := p.Remove(p.t.Context(), ref(p.t, name), catalog.RemoveOptions{}); !errors.Is(err, catalog.ErrInUse) {
		p.t.Fatalf("remove %s: %v", name, err)
	}
}

func (p *process) part(name string, want bool) {
	p.t.Helper()
	parted, err := collect.Part(p.t.Context(), p.Pool, name)
	p.ok(err)
	if parted != want {
		p.t.Fatalf("%s has parted: %v, want %v", name, parted, want)
	}
}

// generations makes vm2, a clone of vm1@s1 with a snapshot of its own, and vm3, a clone of that.
func generations(p *process) {
	p.create("vm1", mib)
	p.write("vm1", 0, mib/2, 1)
	p.snapshot("vm1@s1")
	p.clone("vm1@s1", "vm2")
	p.write("vm2", 0, 4096, 2)
	p.snapshot("vm2@s2")
	p.clone("vm2@s2", "vm3")
}

// TestFlattenAndCollectEndTheTie: the parent's snapshot can be removed when nothing of the clone, of its snapshots and of their clones reaches it.
func TestFlattenAndCollectEndTheTie(t *testing.T) {
	p := start(t, newStorage(t), 1)
	generations(p)
	p.ok(p.Flatten(t.Context(), "vm2", nil))
	p.check()
	p.refuses("vm1@s1")
	p.collect()
	p.part("vm2", false)
	p.refuses("vm1@s1") // vm2@s2 reaches it
	p.clean()
	p.refuses("vm2@s2")
	p.ok(p.Flatten(t.Context(), "vm3", nil))
	p.part("vm3", true)
	p.remove("vm2@s2")
	p.refuses("vm1@s1") // nobody has collected vm2 since
	p.part("vm2", true)
	p.check()
	p.remove("vm1@s1")
	p.remove("vm1")
	p.collect()
	p.clean()
	for _, name := range []string{"vm2", "vm3"} {
		p.wants(name, 0, 4096, 2)
		p.wants(name, 4096, mib/2-4096, 1)
		info, err := p.Info(t.Context(), name)
		p.ok(err)
		if info.Parent != (catalog.Ref{}) {
			t.Errorf("%s has the parent %v", name, info.Parent)
		}
	}
}

// TestRollbackAfterFlatten: a rollback to a snapshot from before needs the parent again.
func TestRollbackAfterFlatten(t *testing.T) {
	p := start(t, newStorage(t), 1)
	generations(p)
	p.ok(p.Flatten(t.Context(), "vm2", nil))
	p.collect()
	p.ok(p.Rollback(t.Context(), ref(t, "vm2@s2")))
	p.remove("vm3")
	p.remove("vm2@s2")
	p.collect()
	p.part("vm2", false)
	p.refuses("vm1@s1")
	p.clean()
	p.wants("vm2", 4096, mib/2-4096, 1)
}

// TestFlattenOfAnOpenVolume goes through its device, beside which snapshots and clones are taken; another process is told who holds it.
func TestFlattenOfAnOpenVolume(t *testing.T) {
	b := newStorage(t)
	p, q := start(t, b, 1), start(t, b, 1)
	generations(p)
	d, err := p.OpenVolume(t.Context(), "vm2")
	p.ok(err)
	if err := q.Flatten(t.Context(), "vm2", nil); !errors.Is(err, locking.ErrHeld) {
		t.Errorf("flatten in another process: %v", err)
	}
	once := false
	p.ok(p.Flatten(t.Context(), "vm2", func(done, total int64) {
		if !once {
			once = true
			p.snapshot("vm2@beside")
		}
	}))
	p.part("vm2", false)
	p.remove("vm2@beside")
	p.remove("vm3")
	p.remove("vm2@s2")
	p.part("vm2", true)
	p.ok(d.WriteAt(t.Context(), []byte("x"), mib/2))
	p.ok(d.Close(t.Context()))
	p.remove("vm1@s1")
	p.collect()
	p.clean()
	p.wants("vm2", 4096, mib/2-4096, 1)
	if err := p.Flatten(t.Context(), "none", nil); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("flatten of nothing: %v", err)
	}
}

// TestFlattenThatIsGivenUp leaves the volume closed, and what it copied.
func TestFlattenThatIsGivenUp(t *testing.T) {
	p := start(t, newStorage(t), 1)
	generations(p)
	ctx, cancel := context.WithCancel(t.Context())
	err := p.Flatten(ctx, "vm2", func(done, total int64) {
		if done > 0 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	info, err := p.Info(t.Context(), "vm2")
	p.ok(err)
	if info.Holder != nil || info.Unclean {
		t.Errorf("it was not closed: %+v", info)
	}
	first := int64(-1)
	p.ok(p.Flatten(t.Context(), "vm2", func(_, total int64) {
		if first < 0 {
			first = total
		}
	}))
	if first >= mib/2-4096 {
		t.Errorf("%d bytes were to be copied again", first)
	}
	p.check()
}

func TestResizeOfVolumes(t *testing.T) {
	b := newStorage(t)
	p, q := start(t, b, 1), start(t, b, 1)
	p.create("vm1", mib)
	resize := func(p *process, want error, size int64, o catalog.ResizeOptions) {
		t.Helper()
		info, err := p.Resize(t.Context(), "vm1", o)
		if !errors.Is(err, want) {
			t.Errorf("resize %+v: %v, want %v", o, err, want)
		}
		if err == nil && info.Size != size {
			t.Errorf("resize %+v: %d bytes, want %d", o, info.Size, size)
		}
		info, err = p.Info(t.Context(), "vm1")
		if p.ok(err); info.Size != size {
			t.Errorf("after resize %+v: %d bytes, want %d", o, info.Size, size)
		}
	}
	resize(p, nil, 2*mib, catalog.ResizeOptions{Size: 2 * mib})
	resize(p, nil, 3*mib, catalog.ResizeOptions{Size: mib, By: true})
	resize(p, drivers.ErrInvalid, 3*mib, catalog.ResizeOptions{Size: mib})
	resize(p, drivers.ErrInvalid, 3*mib, catalog.ResizeOptions{Size: -mib, By: true})
	resize(p, drivers.ErrInvalid, 3*mib, catalog.ResizeOptions{Size: -3 * mib, By: true, Shrink: true})
	resize(p, drivers.ErrInvalid, 3*mib, catalog.ResizeOptions{Size: 1<<63 - 1, By: true})
	resize(p, drivers.ErrInvalid, 3*mib, catalog.ResizeOptions{Size: 4*mib + 1})
	resize(p, drivers.ErrInvalid, 3*mib, catalog.ResizeOptions{Size: 4 << 50})
	resize(p, nil, 2*mib, catalog.ResizeOptions{Size: -mib, By: true, Shrink: true})
	resize(p, nil, 2*mib, catalog.ResizeOptions{Size: 2 * mib})

	d, err := p.OpenVolume(t.Context(), "vm1")
	p.ok(err)
	resize(p, nil, 4*mib, catalog.ResizeOptions{Size: 4 * mib})
	p.ok(d.WriteAt(t.Context(), []byte("x"), 4*mib-1))
	resize(p, catalog.ErrInUse, 4*mib, catalog.ResizeOptions{Size: mib, Shrink: true})
	resize(q, locking.ErrHeld, 4*mib, catalog.ResizeOptions{Size: 5 * mib})
	resize(q, catalog.ErrInUse, 4*mib, catalog.ResizeOptions{Size: mib, Shrink: true})
	resize(q, drivers.ErrInvalid, 4*mib, catalog.ResizeOptions{Size: mib})
	p.ok(d.Close(t.Context()))
	resize(q, nil, mib, catalog.ResizeOptions{Size: mib, Shrink: true})
	if _, err := p.Resize(t.Context(), "none", catalog.ResizeOptions{Size: mib}); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("resize of nothing: %v", err)
	}
	p.collect()
	p.clean()
}

// TestB08ShrinkLeaksNothing: what only the volume had comes back with the next collection, and what snapshots have stays.
func TestB08ShrinkLeaksNothing(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib/2, 1)
	p.snapshot("vm1@s1")
	p.write("vm1", 0, mib, 2)
	id, err := p.Lookup(t.Context(), "vm1")
	p.ok(err)
	stored := func() int { return len(objects(t, b, chunk.GroupName(id, chunk.Data))) }
	if n := stored(); n != 8+16 {
		t.Fatalf("%d objects", n)
	}
	_, err = p.Resize(t.Context(), "vm1", catalog.ResizeOptions{Size: 2 * chunkSize, Shrink: true})
	p.ok(err)
	p.collect()
	p.clean()
	if n := stored(); n != 8+2 {
		t.Errorf("%d objects, want those of the snapshot and of two chunks", n)
	}
	p.wants("vm1@s1", 0, mib/2, 1)
	p.remove("vm1@s1")
	p.collect()
	if n := stored(); n != 2 {
		t.Errorf("%d objects, want those of two chunks", n)
	}
	_, err = p.Resize(t.Context(), "vm1", catalog.ResizeOptions{Size: mib})
	p.ok(err)
	p.wants("vm1", 2*chunkSize, mib-2*chunkSize, 0)
	p.clean()
}
