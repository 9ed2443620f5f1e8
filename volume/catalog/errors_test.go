package catalog_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"skerry/drivers"
	"skerry/drivers/local"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/catalog"
)

// TestErrorsNameAThingOnce looks at the text of errors, which people read.
func TestErrorsNameAThingOnce(t *testing.T) {
	b, p := newPool(t)
	q := start(t, b)
	p.create("vm1", gib)
	p.snapshot("vm1@s1")
	p.clone("vm1@s1", "vm2", 0)
	p.create("vm3", gib)
	d := p.open("vm3")
	defer p.close(d)
	ctx := t.Context()
	vm := func(name string) catalog.Ref { r, _ := catalog.ParseRef(name); return r }
	held := "volume vm3 is leased by process 1 on host test since "
	for _, c := range []struct {
		want string // how the text begins
		is   error
		call func() error
	}{
		{"volume none: not found; skerry ls ", catalog.ErrNotFound, func() error { _, err := q.OpenVolume(ctx, "none"); return err }},
		{"volume none: not found; skerry ls ", catalog.ErrNotFound, func() error { _, err := q.Snapshot(ctx, vm("none@s")); return err }},
		{"snapshot vm1@none: not found; skerry ls vm1 ", catalog.ErrNotFound, func() error { _, err := q.OpenSnapshot(ctx, vm("vm1@none")); return err }},
		{"snapshot vm1@none: not found; ", catalog.ErrNotFound, func() error { return q.Rollback(ctx, vm("vm1@none")) }},
		{"volume vm1: exists already; ", catalog.ErrExists, func() error { _, err := q.Create(ctx, "vm1", catalog.CreateOptions{Size: gib}); return err }},
		{"snapshot vm1@s1: exists already; ", catalog.ErrExists, func() error { _, err := q.Snapshot(ctx, vm("vm1@s1")); return err }},
		{"volume vm1: exists already; ", catalog.ErrExists, func() error { return q.Rename(ctx, "vm2", "vm1") }},
		{"volume vm1: in use: it has snapshots: s1; remove them first", catalog.ErrInUse, func() error { _, err := q.Remove(ctx, vm("vm1"), catalog.RemoveOptions{}); return err }},
		{"snapshot vm1@s1: in use: it has clones: vm2; remove them first", catalog.ErrInUse, func() error { _, err := q.Remove(ctx, vm("vm1@s1"), catalog.RemoveOptions{}); return err }},
		{held, locking.ErrHeld, func() error { _, err := q.OpenVolume(ctx, "vm3"); return err }},
		{held, locking.ErrHeld, func() error { return q.Rename(ctx, "vm3", "vm4") }},
		{held, catalog.ErrInUse, func() error { return q.Rollback(ctx, vm("vm3@s")) }},
		{held, catalog.ErrInUse, func() error { _, err := q.Remove(ctx, vm("vm3"), catalog.RemoveOptions{}); return err }},
		{"volume vm3: in use: this process has it open", catalog.ErrInUse, func() error { _, err := p.OpenVolume(ctx, "vm3"); return err }},
		{"a clone of 512 bytes is smaller", drivers.ErrInvalid, func() error {
			_, err := q.Clone(ctx, vm("vm1@s1"), "vm4", catalog.CloneOptions{Size: 512})
			return err
		}},
		{`"a b" is no name: want `, drivers.ErrInvalid, func() error { _, err := q.Create(ctx, "a b", catalog.CreateOptions{Size: gib}); return err }},
	} {
		if err := c.call(); !errors.Is(err, c.is) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want it to begin with %q", err, c.want)
		}
	}
}

// damage makes every object below a group of a volume unreadable, or removes it.
func damage(t *testing.T, dir, group string, remove bool) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, group, "*"))
	if err != nil || len(all) == 0 {
		t.Fatalf("%s has no objects: %v", group, err)
	}
	for _, path := range all {
		if remove {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, []byte("XX"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func newLocal(t *testing.T) (dir string, p *process) {
	t.Helper()
	dir = t.TempDir()
	b, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() }) // nothing is open any more
	return dir, initialize(t, b)
}

func TestCloneOfADamagedVolumeIsSound(t *testing.T) {
	dir, p := newLocal(t)
	made := p.create("vm1", gib)
	p.write("vm1", 0, mib, 1)
	p.snapshot("vm1@s1")
	p.clone("vm1@s1", "vm2", 0)
	damage(t, dir, "v/"+made.ID.String()+"/root", false)
	if _, err := p.Info(t.Context(), "vm1"); !errors.Is(err, mapper.ErrDamaged) || !strings.HasPrefix(err.Error(), "volume vm1: root") {
		t.Errorf("the damaged one: %v", err)
	}
	i, err := p.Info(t.Context(), "vm2")
	if err != nil || i.Parent.Volume != made.ID.String() {
		t.Errorf("the clone: %+v, %v", i, err)
	}
	all, err := p.List(t.Context())
	if err != nil || len(all) != 2 || all[0].State != "damaged" || all[1].State != "live" {
		t.Errorf("list: %+v, %v", all, err)
	}
	p.wants("vm2", 0, mib, 1)
}

// TestImportThatFillsTheStorageLeavesNothing fills the storage by a volume that is being made: giving it up needs
// the pool's reserve.
func TestImportThatFillsTheStorageLeavesNothing(t *testing.T) {
	b, p := newPool(t)
	before := b.Used()
	b.SetSpace(before + 16*mib)
	c, err := p.Begin(t.Context(), "vm1", catalog.CreateOptions{Size: gib})
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64<<10)
	for off := int64(0); err == nil; off += int64(len(data)) {
		data[0]++
		err = c.Device().WriteAt(t.Context(), data, off)
	}
	if !errors.Is(err, drivers.ErrNoSpace) {
		t.Fatal(err)
	}
	if err := c.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := objects(t, b); len(left) > 0 || b.Used() > before+mib {
		t.Errorf("%d bytes are used, %d before; left: %q", b.Used(), before, left)
	}
}

// TestRemovalEndsInTime removes a volume while every look at the clock takes a tenth of the time that there is.
func TestRemovalEndsInTime(t *testing.T) {
	b, p := newPool(t)
	if _, err := p.Create(t.Context(), "vm1", catalog.CreateOptions{Size: gib, ChunkSize: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	p.write("vm1", 0, 8*mib, 1)
	p.stop()

	e := drivers.NewEngine(b, drivers.Options{})
	var looks atomic.Int64
	q, err := catalog.Open(t.Context(), e, catalog.Options{
		Identity: locking.Identity{Host: "test", Boot: [16]byte{1}, PID: 2},
		Volume:   volume.Options{JournalSize: 256 << 10},
		Now:      func() time.Time { return time.Unix(0, looks.Add(1)*int64(100*time.Millisecond)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(q.Close(context.Background()), e.Close()); err != nil {
			t.Error(err)
		}
	}()
	r, err := q.Remove(t.Context(), catalog.Ref{Volume: "vm1"}, catalog.RemoveOptions{Limit: time.Second})
	if err != nil || r.Objects == 0 || r.Objects > 10 || r.Left == 0 {
		t.Errorf("removed: %+v, %v", r, err)
	}
}

// TestReserveShrinksWithTheSpace spends the reserve for an open while there is no space for another as large.
func TestReserveShrinksWithTheSpace(t *testing.T) {
	b, p := newPool(t)
	p.create("vm1", gib)
	p.create("vm2", gib)
	b.SetSpace(b.Used())
	p.close(p.open("vm1"))
	reserved := int64(0)
	err := b.List(t.Context(), "reserve", func(info drivers.Info) error {
		reserved += info.Allocated
		return nil
	})
	if err != nil || reserved == 0 || reserved >= 8*mib {
		t.Fatalf("%d bytes are reserved: %v", reserved, err)
	}
	b.SetSpace(b.Used())
	p.remove("vm2")
}
