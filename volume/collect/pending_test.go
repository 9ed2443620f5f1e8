package collect_test

import (
	"errors"
	"testing"
	"time"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// later starts a process whose clock is ahead.
func later(t *testing.T, b drivers.Backend, ahead time.Duration) *process {
	t.Helper()
	p := &process{t: t, faults: faulty.Wrap(b)}
	p.engine = drivers.NewEngine(p.faults, drivers.Options{})
	var err error
	p.Pool, err = catalog.Open(t.Context(), p.engine, catalog.Options{
		Identity: locking.Identity{Host: "test", Boot: [16]byte{1}, PID: 1},
		Volume:   volume.Options{JournalSize: 64 << 10},
		Now:      func() time.Time { return time.Now().Add(ahead) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.die)
	return p
}

func anySource([]byte) error { return nil }

// begin makes a creation that is kept for an hour, with half a MiB and a snapshot.
func (p *process) begin(name string) *catalog.Creation {
	p.t.Helper()
	c, err := p.Begin(p.t.Context(), name, catalog.CreateOptions{Size: mib, ChunkSize: chunkSize, Keep: time.Hour, Source: []byte("a")})
	p.ok(err)
	p.ok(c.Device().WriteAt(p.t.Context(), make([]byte, chunkSize), 0))
	p.ok(c.Device().WriteAt(p.t.Context(), []byte{1}, mib/2))
	_, err = c.Device().Snapshot(p.t.Context(), "s1")
	p.ok(err)
	p.ok(c.Device().WriteAt(p.t.Context(), []byte{2}, mib/2))
	p.ok(c.Checkpoint(p.t.Context(), []byte("b")))
	return c
}

// pending fails unless a check finds so many pending volumes, and nothing else.
func (p *process) pending(n int) {
	p.t.Helper()
	r := p.check()
	for _, problem := range r.Problems {
		if problem.Kind != collect.Pending && problem.Kind != collect.Stale {
			p.t.Errorf("%+v", problem)
		}
		if problem.Kind == collect.Pending {
			n--
		}
	}
	if n != 0 {
		p.t.Errorf("%d pending volumes too few: %+v", n, r.Problems)
	}
}

func TestCreationIsResumedAfterItsProcessDied(t *testing.T) {
	for _, power := range []bool{false, true} {
		b := newStorage(t)
		p := start(t, b, 1)
		p.begin("vm1")
		if _, err := p.Resume(t.Context(), "vm1", time.Hour, anySource); !errors.Is(err, catalog.ErrExists) {
			t.Fatalf("resumed beside its process: %v", err)
		}
		after := b.Kill()
		if power {
			after = b.Crash(mem.KeepNone)
		}
		p.die()
		q := start(t, after, 2)
		q.pending(1)
		q.collect()
		if l := q.volumes(); l != "" {
			t.Fatalf("the pool has %q", l)
		}
		if _, err := q.Create(t.Context(), "vm1", catalog.CreateOptions{Size: mib}); !errors.Is(err, catalog.ErrExists) {
			t.Fatalf("the name is not reserved: %v", err)
		}
		mismatch := errors.New("another source")
		if _, err := q.Resume(t.Context(), "vm1", time.Hour, func([]byte) error { return mismatch }); !errors.Is(err, mismatch) {
			t.Fatal(err)
		}
		c, err := q.Resume(t.Context(), "vm1", time.Hour, func(s []byte) error {
			if string(s) != "b" {
				return mismatch
			}
			return nil
		})
		q.ok(err)
		q.ok(c.Suspend(t.Context()))
		q.ok(c.Suspend(t.Context()))
		q.pending(1)
		c, err = q.Resume(t.Context(), "vm1", time.Hour, anySource)
		q.ok(err)
		all, err := c.Snapshots(t.Context())
		q.ok(err)
		if len(all) != 1 || all[0].Name != "s1" {
			t.Fatalf("snapshots %v", all)
		}
		_, err = c.Commit(t.Context())
		q.ok(err)
		if l := q.volumes(); l != "vm1@s1 " {
			t.Fatalf("the pool has %q", l)
		}
		q.wants("vm1", mib/2, 1, 2)
		q.wants("vm1@s1", mib/2, 1, 1)
		q.collect()
		q.clean()
		if _, err := q.Resume(t.Context(), "vm1", time.Hour, anySource); !errors.Is(err, catalog.ErrNotFound) {
			t.Fatalf("a live volume was resumed: %v", err)
		}
	}
}

func TestPendingCreationEndsByItsNameOrItsTime(t *testing.T) {
	for _, byName := range []bool{false, true} {
		b := newStorage(t)
		p := start(t, b, 1)
		c := p.begin("vm1")
		if _, err := p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{}); !errors.Is(err, locking.ErrHeld) && !errors.Is(err, catalog.ErrInUse) {
			t.Fatalf("removed beside its process: %v", err)
		}
		p.ok(c.Suspend(t.Context()))
		p.stop()
		q := later(t, b, 59*time.Minute)
		q.collect()
		q.pending(1)
		if byName {
			_, err := q.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{})
			q.ok(err)
		} else {
			q.stop()
			q = later(t, b, 61*time.Minute)
			q.collect()
		}
		q.clean()
		if left := objects(t, b, "v"); len(left) > 0 {
			t.Fatalf("left: %q", left)
		}
		q.create("vm1", mib)
	}
}

func TestPinKeepsAHiddenSnapshot(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib/2, 1)
	info, err := p.Pin(t.Context(), ref(t, "vm1"), time.Hour)
	p.ok(err)
	p.write("vm1", 0, mib/2, 2)
	p.collect()
	p.pending(1)
	pin, err := p.OpenPin(t.Context(), info.ID, 2*time.Hour)
	p.ok(err)
	p.collect() // does not wait for the pin
	dev, err := p.OpenSerial(t.Context(), info.Volume, info.Snapshot)
	p.ok(err)
	got := make([]byte, mib/2)
	p.ok(dev.ReadAt(t.Context(), got, 0))
	p.ok(dev.Close(t.Context()))
	if got[0] != 1 || got[mib/2-1] != 1 {
		t.Fatal("the snapshot is not what the volume was")
	}
	// Another process heeds the pin while it is held, and ends it for a removal when it is not.
	q := start(t, b, 1)
	if _, err := q.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{}); !errors.Is(err, catalog.ErrInUse) {
		t.Fatalf("removed beside a copy: %v", err)
	}
	p.ok(pin.Release(t.Context()))
	p.stop()
	q.collect()
	q.pending(1)
	_, err = q.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{})
	q.ok(err)
	if _, err := q.OpenPin(t.Context(), info.ID, time.Hour); !errors.Is(err, catalog.ErrNotFound) {
		t.Fatalf("the pin is still there: %v", err)
	}
	q.collect()
	q.clean()
	if left := objects(t, b, "v"); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

func TestEndOfAPinRemovesItsHiddenSnapshot(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.snapshot("vm1@s1")
	for _, from := range []string{"vm1", "vm1@s1"} {
		info, err := p.Pin(t.Context(), ref(t, from), time.Hour)
		p.ok(err)
		pin, err := p.OpenPin(t.Context(), info.ID, time.Hour)
		p.ok(err)
		p.ok(pin.End(t.Context()))
		p.collect()
		p.clean()
	}
	info, err := p.Info(t.Context(), "vm1")
	p.ok(err)
	if info.Hidden != 0 || len(info.Snapshots) != 1 {
		t.Fatalf("%+v", info)
	}
	// Of a pin whose process died before it told anybody of it nothing is left after its time.
	_, err = p.Pin(t.Context(), ref(t, "vm1"), time.Minute)
	p.ok(err)
	p.stop()
	q := later(t, b, time.Hour)
	q.collect()
	q.clean()
}
