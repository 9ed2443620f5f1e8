package catalog_test

import (
	"errors"
	"testing"

	"skerry/drivers"
	"skerry/volume/catalog"
)

func TestR04CopyOnWriteStory(t *testing.T) {
	each(t, func(t *testing.T, _ drivers.Backend, p *process) {
		const off = 90 * gib
		p.create("vm1", 100*gib)
		p.wants("vm1", off, 10*mib, 0)
		p.snapshot("vm1@s1")
		p.write("vm1", off, 10*mib, 1)
		p.wants("vm1@s1", off, 10*mib, 0)
		p.snapshot("vm1@s2")
		if info := p.clone("vm1@s2", "vm2", 200*gib); info.Size != 200*gib {
			t.Fatalf("the clone has %d bytes", info.Size)
		}
		p.wants("vm2", off, 10*mib, 1)
		p.wants("vm2", 200*gib-mib, mib, 0)
		p.write("vm2", off, mib, 2)
		p.wants("vm2", off, mib, 2)
		p.wants("vm2", off+mib, 9*mib, 1)
		p.wants("vm1@s2", off, 10*mib, 1)
		p.wants("vm1", off, 10*mib, 1)
		p.wants("vm1@s1", off, 10*mib, 0)
	})
}

func TestR05SnapshotsAndSizesOfClones(t *testing.T) {
	each(t, func(t *testing.T, b drivers.Backend, p *process) {
		p.create("vm1", gib)
		p.write("vm1", 0, mib, 1)
		p.snapshot("vm1@s1")
		if _, err := p.Snapshot(t.Context(), catalog.Ref{Volume: "vm1", Snapshot: "s1"}); !errors.Is(err, catalog.ErrExists) {
			t.Fatalf("a second snapshot of that name: %v", err)
		}
		p.stop()
		p = start(t, b)
		p.wants("vm1@s1", 0, mib, 1)
		if info := p.clone("vm1@s1", "same", 0); info.Size != gib {
			t.Fatalf("the clone has %d bytes", info.Size)
		}
		for name, from := range map[string]catalog.Ref{"small": {Volume: "vm1", Snapshot: "s1"}, "small2": {Volume: "vm1"}} {
			if _, err := p.Clone(t.Context(), from, name, catalog.CloneOptions{Size: gib / 2}); !errors.Is(err, drivers.ErrInvalid) {
				t.Fatalf("a smaller clone of %v: %v", from, err)
			}
		}
		p.clone("vm1@s1", "larger", 2*gib)
		p.wants("larger", 0, mib, 1)
		p.wants("larger", 2*gib-mib, mib, 0)
	})
}

func TestR06SizeZeroAndDuplicateNamesAreRefused(t *testing.T) {
	each(t, func(t *testing.T, _ drivers.Backend, p *process) {
		for _, size := range []int64{0, -512, 511, 8 << 50} {
			if _, err := p.Create(t.Context(), "bad", catalog.CreateOptions{Size: size}); !errors.Is(err, drivers.ErrInvalid) {
				t.Errorf("size %d: %v", size, err)
			}
		}
		first := p.create("vm1", gib)
		p.write("vm1", 0, mib, 1)
		if _, err := p.Create(t.Context(), "vm1", catalog.CreateOptions{Size: 2 * gib}); !errors.Is(err, catalog.ErrExists) {
			t.Fatalf("a duplicate name: %v", err)
		}
		info, err := p.Info(t.Context(), "vm1")
		if err != nil || info.ID != first.ID || info.Size != gib {
			t.Fatalf("the first is %+v, %v", info, err)
		}
		p.wants("vm1", 0, mib, 1)
	})
}

func TestR07RemovedNamesNeverShowOldData(t *testing.T) {
	each(t, func(t *testing.T, b drivers.Backend, p *process) {
		first := p.create("vm1", gib)
		p.write("vm1", 0, mib, 1)
		p.remove("vm1")
		if left := objects(t, b); len(left) != 0 {
			t.Fatalf("left: %q", left)
		}
		if _, err := p.Remove(t.Context(), catalog.Ref{Volume: "vm1"}, catalog.RemoveOptions{}); !errors.Is(err, catalog.ErrNotFound) {
			t.Fatalf("removed twice: %v", err)
		}
		if _, err := p.OpenVolume(t.Context(), "vm1"); !errors.Is(err, catalog.ErrNotFound) {
			t.Fatalf("opened after its removal: %v", err)
		}
		if second := p.create("vm1", gib); second.ID == first.ID {
			t.Fatal("an id was used twice")
		}
		p.wants("vm1", 0, mib, 0)
	})
}

func TestR12Rename(t *testing.T) {
	each(t, func(t *testing.T, b drivers.Backend, p *process) {
		if err := p.Rename(t.Context(), "none", "other"); !errors.Is(err, catalog.ErrNotFound) {
			t.Fatalf("rename of a missing volume: %v", err)
		}
		p.create("vm1", gib)
		p.create("vm2", gib)
		p.write("vm1", 0, mib, 1)
		if err := p.Rename(t.Context(), "vm1", "vm2"); !errors.Is(err, catalog.ErrExists) {
			t.Fatalf("rename over another: %v", err)
		}
		if err := p.Rename(t.Context(), "vm1", "vm3"); err != nil {
			t.Fatal(err)
		}
		if _, err := p.OpenVolume(t.Context(), "vm1"); !errors.Is(err, catalog.ErrNotFound) {
			t.Fatalf("the old name: %v", err)
		}
		p.wants("vm3", 0, mib, 1)
		p.snapshot("vm3@s1")
		p.stop()
		p = start(t, b)
		p.write("vm3", 0, mib, 2)
		p.wants("vm3@s1", 0, mib, 1)
		p.wants("vm3", 0, mib, 2)
		p.create("vm1", gib)
		p.wants("vm1", 0, mib, 0)
	})
}

func TestR13SharedChunksAreNeverWrittenInPlace(t *testing.T) {
	each(t, func(t *testing.T, _ drivers.Backend, p *process) {
		p.create("vm1", gib)
		p.write("vm1", 0, mib, 1)
		p.clone("vm1", "vm2", 0)
		p.clone("vm2", "vm3", 0)
		p.write("vm1", 0, mib/2, 2)
		p.write("vm2", mib/4, mib/2, 3)
		p.wants("vm1", 0, mib/2, 2)
		p.wants("vm1", mib/2, mib/2, 1)
		p.wants("vm2", 0, mib/4, 1)
		p.wants("vm2", mib/4, mib/2, 3)
		p.wants("vm2", mib/4*3, mib/4, 1)
		p.wants("vm3", 0, mib, 1)
	})
}

func TestR08FreshVolumesReadZeros(t *testing.T) {
	each(t, func(t *testing.T, _ drivers.Backend, p *process) {
		p.create("vm1", gib)
		p.wants("vm1", gib-mib, mib, 0)
		d := p.open("vm1")
		defer p.close(d)
		if err := d.ReadAt(t.Context(), make([]byte, 4096), gib-2048); err == nil {
			t.Fatal("a read past the end succeeded")
		}
	})
}

func TestB02NamesOfRemovedSnapshotsAreFree(t *testing.T) {
	each(t, func(t *testing.T, _ drivers.Backend, p *process) {
		p.create("vm1", gib)
		for i := range 3 {
			p.write("vm1", 0, mib, byte(i+1))
			p.snapshot("vm1@s1")
			p.wants("vm1@s1", 0, mib, byte(i+1))
			p.remove("vm1@s1")
		}
		if _, err := p.OpenSnapshot(t.Context(), catalog.Ref{Volume: "vm1", Snapshot: "s1"}); !errors.Is(err, catalog.ErrNotFound) {
			t.Fatalf("a removed snapshot: %v", err)
		}
	})
}

func TestWhatHasDependentsStays(t *testing.T) {
	each(t, func(t *testing.T, b drivers.Backend, p *process) {
		p.create("vm1", gib)
		p.write("vm1", 0, mib, 1)
		p.snapshot("vm1@s1")
		p.clone("vm1@s1", "vm2", 0)
		remove := func(r catalog.Ref, o catalog.RemoveOptions) error {
			_, err := p.Remove(t.Context(), r, o)
			return err
		}
		for _, r := range []catalog.Ref{{Volume: "vm1"}, {Volume: "vm1", Snapshot: "s1"}} {
			if err := remove(r, catalog.RemoveOptions{}); !errors.Is(err, catalog.ErrInUse) {
				t.Fatalf("remove %v: %v", r, err)
			}
		}
		if err := remove(catalog.Ref{Volume: "vm1"}, catalog.RemoveOptions{Snapshots: true}); !errors.Is(err, catalog.ErrInUse) {
			t.Fatalf("remove with a clone: %v", err)
		}
		p.clone("vm1@s1", "vm3", 0) // the flag was taken back
		p.wants("vm3", 0, mib, 1)
		p.remove("vm2")
		p.remove("vm3")
		if err := remove(catalog.Ref{Volume: "vm1"}, catalog.RemoveOptions{Snapshots: true}); err != nil {
			t.Fatal(err)
		}
		if left := objects(t, b); len(left) != 0 {
			t.Fatalf("left: %q", left)
		}
	})
}

func TestHiddenSnapshotsGoWithTheirLastClone(t *testing.T) {
	each(t, func(t *testing.T, b drivers.Backend, p *process) {
		p.create("vm1", gib)
		p.write("vm1", 0, mib, 1)
		p.clone("vm1", "vm2", 0)
		info, err := p.Info(t.Context(), "vm2")
		if err != nil || info.Parent != (catalog.Ref{Volume: "vm1"}) {
			t.Fatalf("the clone is %+v, %v", info, err)
		}
		hidden := func() int {
			info, err := p.Info(t.Context(), "vm1")
			if err != nil {
				t.Fatal(err)
			}
			return info.Hidden
		}
		if hidden() != 1 {
			t.Fatalf("%d hidden snapshots", hidden())
		}
		if _, err := p.Remove(t.Context(), catalog.Ref{Volume: "vm1"}, catalog.RemoveOptions{}); !errors.Is(err, catalog.ErrInUse) {
			t.Fatalf("remove a volume with a clone: %v", err)
		}
		p.remove("vm2")
		if hidden() != 0 {
			t.Fatalf("%d hidden snapshots", hidden())
		}
		p.remove("vm1")
		if left := objects(t, b); len(left) != 0 {
			t.Fatalf("left: %q", left)
		}
	})
}

func TestRollback(t *testing.T) {
	each(t, func(t *testing.T, _ drivers.Backend, p *process) {
		p.create("vm1", gib)
		p.write("vm1", 0, mib, 1)
		p.snapshot("vm1@s1")
		p.write("vm1", 0, 8*mib, 2)
		p.snapshot("vm1@s2")
		p.write("vm1", 0, 8*mib, 3)
		for range 2 {
			if err := p.Rollback(t.Context(), catalog.Ref{Volume: "vm1", Snapshot: "s1"}); err != nil {
				t.Fatal(err)
			}
			p.wants("vm1", 0, mib, 1)
			p.wants("vm1", mib, 7*mib, 0)
			p.write("vm1", 0, 8*mib, 4)
			p.wants("vm1@s1", 0, mib, 1)
			p.wants("vm1@s2", 0, 8*mib, 2)
		}
		d := p.open("vm1")
		defer p.close(d)
		if err := p.Rollback(t.Context(), catalog.Ref{Volume: "vm1", Snapshot: "s1"}); !errors.Is(err, catalog.ErrInUse) {
			t.Fatalf("rollback of an open volume: %v", err)
		}
	})
}
