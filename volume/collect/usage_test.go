package collect_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/local"
	"skerry/mapper"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// newUsagePool returns an empty pool in a directory, and the directory.
func newUsagePool(t testing.TB) (drivers.Backend, string) {
	t.Helper()
	dir := t.TempDir()
	b, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := drivers.NewEngine(b, drivers.Options{})
	if err := catalog.Init(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b, dir
}

// reopen opens a directory again: an engine closes what it works on.
func reopen(t testing.TB, dir string) drivers.Backend {
	t.Helper()
	b, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// allocated returns what the files below a directory take, as the file system says.
func allocated(t testing.TB, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".tmp") {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		n += st.Blocks * 512
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (p *process) measure() collect.Usage {
	p.t.Helper()
	u, err := collect.MeasurePool(p.t.Context(), p.Pool)
	p.ok(err)
	for _, v := range u.Volumes {
		if v.Err != nil {
			p.t.Fatalf("%s: %v", v.Name, v.Err)
		}
	}
	return u
}

func volumeOf(t *testing.T, u collect.Usage, name string) collect.VolumeUsage {
	t.Helper()
	for _, v := range u.Volumes {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("no volume %s in %+v", name, u)
	return collect.VolumeUsage{}
}

// near reports whether a is b and up to some records' space more.
func near(a, b int64) bool { return a >= b && a < b+64*kib }

func TestUsageOfASnapshotAndAClone(t *testing.T) {
	p := start(t, newStorage(t), 1)
	p.create("vm1", mib)
	p.write("vm1", 0, 8*chunkSize, 1)
	p.snapshot("vm1@a")
	p.write("vm1", 0, 2*chunkSize, 2)
	p.snapshot("vm1@b")
	p.write("vm1", chunkSize, chunkSize, 3)
	one, err := collect.MeasureVolume(t.Context(), p.Pool, "vm1")
	p.ok(err)
	if s := one.States; len(s) != 3 || !s[0].Present || s[1].Name != "a" || s[2].Name != "b" {
		t.Fatalf("states: %+v", s)
	}
	// Of what a has, its first two chunks are overwritten; of b, one of them again.
	for i, want := range []int64{chunkSize, 2 * chunkSize, chunkSize} {
		if s := one.States[i]; !near(s.Own, want) {
			t.Errorf("state %d: %+v, want %d of its own", i, s, want)
		}
	}
	if !near(one.Own, 11*chunkSize) || one.Shared != 0 {
		t.Errorf("volume: %+v", one)
	}
	p.clone("vm1@a", "vm2")
	p.write("vm2", 0, chunkSize, 4)
	u := p.measure()
	vm1, vm2 := volumeOf(t, u, "vm1"), volumeOf(t, u, "vm2")
	if !near(vm1.Own, 4*chunkSize) || !near(vm1.Shared, 7*chunkSize) || !near(vm2.Own, chunkSize) || !near(vm2.Shared, 7*chunkSize) || !near(u.Shared, 7*chunkSize) {
		t.Errorf("vm1 %+v, vm2 %+v, shared %d", vm1, vm2, u.Shared)
	}
	p.clean()
}

func TestUsageOfWhatIsKept(t *testing.T) {
	p := start(t, newStorage(t), 1)
	p.ok(p.begin("new").Suspend(t.Context())) // a creation that is to go on
	p.create("vm1", mib)
	p.write("vm1", 0, mib/2, 1)
	pin, err := p.Pin(t.Context(), ref(t, "vm1"), time.Hour)
	p.ok(err)
	p.write("vm1", 0, mib/2, 2)
	p.create("vm2", mib)
	p.write("vm2", 0, mib/2, 3)
	_, err = p.Remove(t.Context(), ref(t, "vm2"), catalog.RemoveOptions{Trash: time.Hour})
	p.ok(err)
	before := p.measure()
	p.collect()
	after := p.measure()
	for _, u := range []collect.Usage{before, after} {
		for name, want := range map[string]int64{"new": chunkSize, "vm1": mib, "vm2": mib / 2, pin.ID.String(): 0} {
			if v := volumeOf(t, u, name); !near(v.Own, want) || v.Reclaimable != 0 {
				t.Errorf("%+v, want %d of its own", v, want)
			}
		}
	}
	if abs(before.Stored-after.Stored) > 64*kib || before.Removed != 0 {
		t.Errorf("a collection made %+v of %+v", after, before)
	}
}

func TestUsageOfAHiddenSnapshotWithoutAClone(t *testing.T) {
	p := start(t, newStorage(t), 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	_, err := p.SnapshotHidden(t.Context(), "vm1")
	p.ok(err)
	p.write("vm1", 0, mib/2, 2)
	if v := volumeOf(t, p.measure(), "vm1"); !near(v.Own, mib) || !near(v.Reclaimable, mib/2) {
		t.Errorf("%+v", v)
	}
}

func TestUsageOfWhatIsNotThere(t *testing.T) {
	p := start(t, newStorage(t), 1)
	if _, err := collect.MeasureVolume(t.Context(), p.Pool, "none"); !errors.Is(err, catalog.ErrNotFound) {
		t.Fatal(err)
	}
}

func TestUsageOfADamagedVolume(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.create("vm2", mib)
	p.write("vm1", 0, chunkSize, 1)
	p.write("vm2", 0, chunkSize, 1)
	id, err := p.Lookup(t.Context(), "vm1")
	p.ok(err)
	for _, name := range objects(t, b, chunk.GroupName(id, chunk.Pages)) {
		p.ok(b.Unlink(t.Context(), name))
	}
	u, err := collect.MeasurePool(t.Context(), p.Pool)
	p.ok(err)
	if v := volumeOf(t, u, "vm1"); v.Err == nil || !near(v.Own, chunkSize) || v.Reclaimable != 0 {
		t.Errorf("vm1: %+v", v)
	}
	if v := volumeOf(t, u, "vm2"); v.Err != nil || !near(v.Own, chunkSize) {
		t.Errorf("vm2: %+v", v)
	}
	if _, err := p.OpenVolume(t.Context(), "vm1"); err != nil && !errors.Is(err, mapper.ErrDamaged) {
		t.Error(err)
	}
}

// TestUsageAddsUp does random things to a pool in a directory, with processes that die between, and asks what the pool takes: what is shown
// adds up to what the files take, what is told to be reclaimable comes back with a collection, and what is a volume's own when that is removed.
func TestUsageAddsUp(t *testing.T) {
	seed := modelSeed(t)
	for run := range max(1, 4/stride) {
		rng := rand.New(rand.NewPCG(seed, uint64(run)))
		b, dir := newUsagePool(t)
		p := start(t, b, 1)
		for step := range 60 {
			p = usageStep(p, rng, dir)
			if step%6 == 5 {
				u := p.measure()
				if real := allocated(t, dir); u.Stored != real {
					t.Fatalf("step %d: %+v: stored %d, the files take %d", step, u, u.Stored, real)
				}
			}
		}
		before := p.measure()
		p.collect()
		after := p.measure()
		reclaimable := before.Removed
		for _, v := range before.Volumes {
			reclaimable += v.Reclaimable
		}
		for _, v := range after.Volumes {
			if v.Reclaimable != 0 {
				t.Errorf("after a collection %d bytes of %s are reclaimable", v.Reclaimable, v.Name)
			}
		}
		// A collection writes roots, and ends with one of each volume.
		if slack := int64(len(before.Volumes)) * 4 * kib; after.Removed != 0 || abs(before.Stored-after.Stored-reclaimable) > slack {
			t.Errorf("%d were reclaimable, a collection gave back %d and left %d", reclaimable, before.Stored-after.Stored, after.Removed)
		}
		usageOfRemoved(p)
		p.stop()
	}
}

func abs(n int64) int64 { return max(n, -n) }

// usageOfRemoved removes volumes one after another, and sees that what was their own comes back.
func usageOfRemoved(p *process) {
	t := p.t
	for again := true; again; {
		again = false
		u := p.measure()
		for _, v := range u.Volumes {
			_, err := p.Remove(t.Context(), catalog.Ref{Volume: v.Name}, catalog.RemoveOptions{Snapshots: true})
			if errors.Is(err, catalog.ErrInUse) {
				continue
			}
			p.ok(err)
			p.collect()
			after := p.measure()
			// With the last clone of a hidden snapshot goes more than was its own.
			if freed := u.Stored - after.Stored; freed < v.Own || u.Shared == 0 && freed != v.Own {
				t.Errorf("%s had %d of its own, its removal gave back %d", v.Name, v.Own, freed)
			}
			again = true
			break
		}
		if !again && len(u.Volumes) > 0 {
			t.Fatalf("not removed: %+v", u.Volumes)
		}
	}
}

// usageStep does one random thing.
func usageStep(p *process, rng *rand.Rand, dir string) *process {
	t, ctx := p.t, p.t.Context()
	infos, err := p.List(ctx)
	p.ok(err)
	fresh := fmt.Sprintf("vm%d", rng.IntN(8))
	if len(infos) == 0 {
		p.create(fresh, mib)
		return p
	}
	v := infos[rng.IntN(len(infos))]
	snap := catalog.Ref{Volume: v.Name, Snapshot: fmt.Sprintf("s%d", rng.IntN(4))}
	off := rng.Int64N(mib/512/2) * 512
	switch rng.IntN(12) {
	case 0:
		_, err = p.Create(ctx, fresh, catalog.CreateOptions{Size: mib, ChunkSize: chunkSize})
	case 1, 2, 3:
		p.write(v.Name, off, 1+rng.Int64N(mib/2), byte(rng.IntN(256)))
	case 4, 5:
		_, err = p.Snapshot(ctx, snap)
	case 6:
		_, err = p.Clone(ctx, snap, fresh, catalog.CloneOptions{})
	case 7:
		_, err = p.Clone(ctx, catalog.Ref{Volume: v.Name}, fresh, catalog.CloneOptions{})
	case 8:
		_, err = p.Remove(ctx, snap, catalog.RemoveOptions{})
	case 9:
		_, err = p.Remove(ctx, catalog.Ref{Volume: v.Name}, catalog.RemoveOptions{Snapshots: true})
	case 10:
		err = p.Rollback(ctx, snap)
	case 11:
		// The process dies with a volume open, after some writes.
		d, openErr := p.OpenVolume(ctx, v.Name)
		p.ok(openErr)
		p.ok(d.WriteAt(ctx, make([]byte, 100*kib), off))
		if rng.IntN(2) == 0 {
			p.ok(d.Flush(ctx))
		}
		p.ok(d.WriteAt(ctx, []byte("end"), off))
		if u := p.measure(); u.Stored != allocated(t, dir) {
			t.Fatalf("with %s in use: %+v: the files take %d", v.Name, u, allocated(t, dir))
		}
		p.die()
		p = start(t, reopen(t, dir), 1)
	}
	for _, fine := range []error{nil, catalog.ErrExists, catalog.ErrNotFound, catalog.ErrInUse} {
		if errors.Is(err, fine) {
			return p
		}
	}
	t.Fatal(err)
	return p
}
