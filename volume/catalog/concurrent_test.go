package catalog_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// TestCloneAgainstRemovalOfItsSnapshot races the two from two processes: either the clone is there and the snapshot with it, or neither.
func TestCloneAgainstRemovalOfItsSnapshot(t *testing.T) {
	b, p := newPool(t)
	q := start(t, b)
	p.create("vm1", gib)
	p.write("vm1", 0, mib, 1)
	s1 := catalog.Ref{Volume: "vm1", Snapshot: "s1"}
	var cloned, removed int
	for i := range 60 {
		p.snapshot("vm1@s1")
		name := fmt.Sprintf("clone%d", i)
		var cloneErr, removeErr error
		var wg sync.WaitGroup
		wg.Go(func() { _, cloneErr = p.Clone(t.Context(), s1, name, catalog.CloneOptions{}) })
		wg.Go(func() { _, removeErr = q.Remove(t.Context(), s1, catalog.RemoveOptions{}) })
		wg.Wait()
		if cloneErr == nil {
			cloned++
			p.wants(name, 0, mib, 1)
			if !errors.Is(removeErr, catalog.ErrInUse) {
				t.Fatalf("the clone is there, and the removal says %v", removeErr)
			}
			p.wants("vm1@s1", 0, mib, 1)
			p.remove(name)
			p.remove("vm1@s1")
			continue
		}
		if !errors.Is(cloneErr, catalog.ErrNotFound) {
			t.Fatalf("clone: %v", cloneErr)
		}
		switch {
		case removeErr == nil:
			removed++
		case errors.Is(removeErr, catalog.ErrInUse): // each saw the other
			p.remove("vm1@s1")
		default:
			t.Fatalf("remove: %v", removeErr)
		}
	}
	t.Logf("%d cloned, %d removed, the rest backed off", cloned, removed)
	p.remove("vm1")
	if left := objects(t, b); len(left) != 0 {
		t.Fatalf("left: %q", left)
	}
}

// TestOneNameIsTakenOnce has several processes and goroutines take the same names in several ways.
func TestOneNameIsTakenOnce(t *testing.T) {
	b, p := newPool(t)
	q := start(t, b)
	p.create("from", gib)
	p.write("from", 0, mib, 1)
	p.snapshot("from@s1")
	for round := range 15 {
		name := fmt.Sprintf("vm%d", round)
		p.create("old", gib)
		takers := []func(*process) error{
			func(x *process) error {
				_, err := x.Create(t.Context(), name, catalog.CreateOptions{Size: gib})
				return err
			},
			func(x *process) error {
				_, err := x.Clone(t.Context(), catalog.Ref{Volume: "from", Snapshot: "s1"}, name, catalog.CloneOptions{})
				return err
			},
			func(x *process) error { return x.Rename(t.Context(), "old", name) },
		}
		var mu sync.Mutex
		won := make([]int, len(takers))
		var wg sync.WaitGroup
		for _, x := range []*process{p, q} {
			for i, take := range takers {
				wg.Go(func() {
					err := take(x)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						won[i]++
					case errors.Is(err, catalog.ErrExists), errors.Is(err, locking.ErrHeld), errors.Is(err, catalog.ErrNotFound):
					default:
						t.Errorf("%v", err)
					}
				})
			}
		}
		wg.Wait()
		if won[2] == 2 {
			won[2] = 1 // the second found the first in between, and finished what that had begun
		}
		if won[0]+won[1]+won[2] != 1 {
			t.Fatalf("%d created, %d cloned, %d renamed", won[0], won[1], won[2])
		}
		p.wants(name, mib, mib, 0)
		p.remove(name)
		if _, err := p.Info(t.Context(), "old"); err == nil {
			p.remove("old")
		}
	}
	p.remove("from@s1")
	p.remove("from")
	if left := objects(t, b); len(left) != 0 {
		t.Fatalf("left: %q", left)
	}
}

func TestVolumesThatOthersHold(t *testing.T) {
	b, p := newPool(t)
	q := start(t, b)
	p.create("vm1", gib)
	p.write("vm1", 0, mib, 1)
	p.snapshot("vm1@s1")
	d := p.open("vm1")
	vm1, s1 := catalog.Ref{Volume: "vm1"}, catalog.Ref{Volume: "vm1", Snapshot: "s1"}
	_, openErr := q.OpenVolume(t.Context(), "vm1")
	_, snapErr := q.Snapshot(t.Context(), catalog.Ref{Volume: "vm1", Snapshot: "s2"})
	_, cloneErr := q.Clone(t.Context(), vm1, "vm2", catalog.CloneOptions{})
	_, rmSnapErr := q.Remove(t.Context(), s1, catalog.RemoveOptions{})
	for what, err := range map[string]error{"open": openErr, "snapshot": snapErr, "clone": cloneErr, "remove a snapshot": rmSnapErr, "rename": q.Rename(t.Context(), "vm1", "vm3")} {
		var held *locking.HeldError
		if !errors.As(err, &held) || held.Volume != "vm1" || held.Holder.Host != "test" {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, rmErr := q.Remove(t.Context(), vm1, catalog.RemoveOptions{Snapshots: true})
	_, rmOpenErr := p.Remove(t.Context(), vm1, catalog.RemoveOptions{Snapshots: true})
	_, openAgainErr := p.OpenVolume(t.Context(), "vm1")
	for what, err := range map[string]error{"remove": rmErr, "remove here": rmOpenErr, "roll back": q.Rollback(t.Context(), s1), "open again": openAgainErr, "rename here": p.Rename(t.Context(), "vm1", "vm3")} {
		if !errors.Is(err, catalog.ErrInUse) || errors.Is(err, locking.ErrHeld) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// R9: its snapshots are there for all, and the holder takes more.
	q.wants("vm1@s1", 0, mib, 1)
	q.clone("vm1@s1", "vm4", 0)
	q.wants("vm4", 0, mib, 1)
	if err := d.WriteAt(t.Context(), make([]byte, mib), 0); err != nil {
		t.Fatal(err)
	}
	hidden, err := p.SnapshotHidden(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Clone(t.Context(), vm1, "vm5", catalog.CloneOptions{Hidden: hidden.Serial}); err != nil {
		t.Fatal(err)
	}
	q.wants("vm5", 0, mib, 0)
	lease, err := q.Lease(t.Context(), "vm1")
	if err != nil || !lease.Held || !lease.Alive || lease.Here {
		t.Fatalf("the lease is %+v, %v", lease, err)
	}
	p.close(d)
	lease, err = q.Lease(t.Context(), "vm1")
	if err != nil || lease.Held {
		t.Fatalf("the lease is %+v, %v", lease, err)
	}
	q.wants("vm1", 0, mib, 0)
}

func TestImportAppearsWithItsCommit(t *testing.T) {
	b, p := newPool(t)
	q := start(t, b)
	for _, commit := range []bool{false, true} {
		c, err := p.Begin(t.Context(), "vm1", catalog.CreateOptions{Size: gib})
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, mib)
		data[0] = 1
		if err := c.Device().WriteAt(t.Context(), data, 0); err != nil {
			t.Fatal(err)
		}
		for _, x := range []*process{p, q} {
			if infos, err := x.List(t.Context()); err != nil || len(infos) != 0 {
				t.Fatalf("listed before its commit: %+v, %v", infos, err)
			}
			if _, err := x.OpenVolume(t.Context(), "vm1"); !errors.Is(err, catalog.ErrNotFound) {
				t.Fatalf("opened before its commit: %v", err)
			}
			if _, err := x.Create(t.Context(), "vm1", catalog.CreateOptions{Size: gib}); !errors.Is(err, catalog.ErrExists) {
				t.Fatalf("the name was taken twice: %v", err)
			}
		}
		if commit {
			if _, err := c.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Commit(t.Context()); err == nil {
				t.Fatal("committed twice")
			}
		}
		if err := c.Abort(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := objects(t, b); commit != (len(left) > 0) {
			t.Fatalf("after commit %v: %q", commit, left)
		}
	}
	q.wants("vm1", 0, 1, 1)
	q.wants("vm1", 1, mib-1, 0)
}

// TestCloneOfAFullVolumeReadsNoPage clones a volume of 4 TiB whose map is full.
func TestCloneOfAFullVolumeReadsNoPage(t *testing.T) {
	const size = 4 << 40
	b, p := newPool(t)
	info := p.create("big", size)
	e := drivers.NewEngine(b, drivers.Options{})
	defer e.Close()
	i := locking.NewInstance(e, locking.Identity{Host: "test"}, locking.Options{})
	l, err := i.Acquire(t.Context(), info.ID)
	if err != nil {
		t.Fatal(err)
	}
	geom, _ := chunk.NewGeometry(info.ChunkSize)
	var pages []mapper.PageRef // none of them is there
	for n := range mapper.PageCount(geom, size) {
		s, err := l.NextSerial()
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, mapper.PageRef{Number: n, Serial: s})
	}
	if err := l.Release(t.Context(), func(r *mapper.Root) { r.Pages = pages }); err != nil {
		t.Fatal(err)
	}
	if err := i.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	p.clone("big", "clone", 2*size)
	t.Logf("cloned %d pages in %v", len(pages), time.Since(begin))
	clone, err := p.Info(t.Context(), "clone")
	if err != nil || clone.Size != 2*size {
		t.Fatalf("the clone is %+v, %v", clone, err)
	}
}
