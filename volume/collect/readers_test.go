package collect_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// pictured returns a pool with vm1, and with vm1@s1, which alone has half of the data.
func pictured(t *testing.T) (*mem.Backend, *process) {
	t.Helper()
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	p.snapshot("vm1@s1")
	p.write("vm1", 0, mib/2, 2)
	return b, p
}

// reads fails unless the device has what vm1@s1 has.
func (p *process) reads(d *volume.Device) {
	p.t.Helper()
	got := make([]byte, mib)
	p.ok(d.ReadAt(p.t.Context(), got, 0))
	if !bytes.Equal(got, bytes.Repeat([]byte{1}, mib)) {
		p.t.Fatal("the snapshot is not what it was")
	}
}

func TestSnapshotsThatAreReadStay(t *testing.T) {
	b, p := pictured(t)
	q := start(t, b, 1)
	dev, err := q.OpenSnapshot(t.Context(), ref(t, "vm1@s1"))
	p.ok(err)
	for _, by := range []*process{p, q} { // also for the process that reads
		for name, o := range map[string]catalog.RemoveOptions{"vm1@s1": {}, "vm1": {Snapshots: true}} {
			_, err := by.Remove(t.Context(), ref(t, name), o)
			if !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), "process 1 on host test") {
				t.Fatalf("removed %s: %v", name, err)
			}
		}
	}
	p.collect()
	p.clean()
	q.reads(dev)
	p.ok(dev.Close(t.Context()))
	p.remove("vm1@s1")
	p.collect()
	p.clean()
	if left := objects(t, b, "v"); strings.Contains(strings.Join(left, " "), "/reader/") {
		t.Fatalf("left: %q", left)
	}
}

func TestDeadReadersHoldNothing(t *testing.T) {
	for what, remove := range map[string]func(*process){
		"remove":  func(p *process) { p.remove("vm1@s1") },
		"collect": func(p *process) { p.collect() },
	} {
		b, p := pictured(t)
		q := start(t, b, 1)
		dev, err := q.OpenSnapshot(t.Context(), ref(t, "vm1@s1"))
		p.ok(err)
		q.die()
		dev.Close(t.Context()) // of a dead process: it fails, or not
		if r := p.check(); len(r.Problems) != 2 || r.Problems[0].Kind != collect.Stale || r.Problems[1].Kind != collect.Stale {
			t.Fatalf("%s: found %+v", what, r.Problems)
		}
		remove(p)
		p.collect()
		p.clean()
	}
}

// TestSnapshotsAreEitherReadOrRemoved has one of the two, reading and removing, come between any two calls of the other.
func TestSnapshotsAreEitherReadOrRemoved(t *testing.T) {
	type result struct {
		dev *volume.Device
		err error
	}
	open := func(p *process) (r result) {
		r.dev, r.err = p.OpenSnapshot(t.Context(), ref(t, "vm1@s1"))
		return r
	}
	remove := func(p *process) result {
		_, err := p.Remove(t.Context(), ref(t, "vm1@s1"), catalog.RemoveOptions{})
		return result{err: err}
	}
	for _, outer := range []string{"open", "remove"} {
		for k, passed := int64(1), false; !passed; k++ {
			b, p := pictured(t)
			q := start(t, b, 1)
			first, passed2 := p.faults.Calls(), true
			var opened, removed result
			p.faults.SetHook(func(c faulty.Call) faulty.Action {
				if c.N-first == k {
					passed2 = false
					if outer == "open" {
						removed = remove(q)
					} else {
						opened = open(q)
					}
				}
				return faulty.Pass()
			})
			reader := q
			if outer == "open" {
				opened, reader = open(p), p
			} else {
				removed = remove(p)
			}
			p.faults.SetHook(nil)
			if passed = passed2; passed {
				if opened.dev != nil {
					p.ok(opened.dev.Close(t.Context()))
				}
				break
			}
			what := fmt.Sprintf("%s, the other one before its call %d: opened %v, removed %v", outer, k, opened.err, removed.err)
			if opened.err == nil {
				collected, err := collect.Collect(t.Context(), q.Pool, collect.Options{})
				p.ok(err)
				if len(collected.Problems) > 0 || removed.err == nil || !errors.Is(removed.err, catalog.ErrInUse) {
					t.Fatal(what)
				}
				reader.reads(opened.dev)
				p.ok(opened.dev.Close(t.Context()))
			} else if !errors.Is(opened.err, catalog.ErrNotFound) || removed.err != nil && !errors.Is(removed.err, catalog.ErrInUse) {
				t.Fatal(what)
			}
			p.collect()
			p.clean()
			q.stop()
			p.stop()
		}
	}
}

func TestSnapshotsCanBeReadWherePoolsCannotBeWritten(t *testing.T) {
	for what, failure := range map[string]error{"read-only": drivers.ErrReadOnly, "full": drivers.ErrNoSpace} {
		b, p := pictured(t)
		p.stop()
		q := start(t, b, 2)
		q.faults.SetHook(func(c faulty.Call) faulty.Action {
			switch c.Kind {
			case drivers.OpLoad, drivers.OpList, drivers.OpStat, drivers.OpOpen, drivers.OpRead:
				return faulty.Pass()
			}
			return faulty.Fail(failure)
		})
		dev, err := q.OpenSnapshot(t.Context(), ref(t, "vm1@s1"))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		q.reads(dev)
		q.ok(dev.Close(t.Context()))
		q.faults.SetHook(nil)
	}
}

// TestReadersThatAreCutOffLeaveNothing ends the process before each call of opening a snapshot and closing it.
func TestReadersThatAreCutOffLeaveNothing(t *testing.T) {
	for k := int64(1); ; k++ {
		b, p := pictured(t)
		p.stop()
		q := start(t, b, 1)
		crashed := q.cutOffBefore(k, b.Kill)
		dev, err := q.OpenSnapshot(t.Context(), ref(t, "vm1@s1"))
		if err == nil {
			dev.Close(t.Context()) // it may fail
		} else if !errors.Is(err, errDead) {
			t.Fatalf("cut off before call %d: %v", k, err)
		}
		q.die()
		after := crashed()
		if after == nil {
			return
		}
		r := start(t, after, 1)
		r.check()
		r.remove("vm1@s1")
		r.collect()
		r.clean()
		r.stop()
	}
}

// TestReadersOfOneSnapshotLeaveOthersFree shows that a record holds one snapshot.
func TestReadersOfOneSnapshotLeaveOthersFree(t *testing.T) {
	b, p := pictured(t)
	p.snapshot("vm1@s2")
	dev, err := p.OpenSnapshot(t.Context(), ref(t, "vm1@s1"))
	p.ok(err)
	p.remove("vm1@s2")
	p.ok(dev.Close(t.Context()))
	if left := objects(t, b, chunk.VolumesGroup()); strings.Contains(strings.Join(left, " "), "/reader/") {
		t.Fatalf("left: %q", left)
	}
}

// reader is a snapshot that is open for long.
type reader struct {
	dev  *volume.Device
	of   *modelVolume
	snap string
	data []byte
}

// read opens a snapshot for long, or ends that.
func (m *model) read(name, snap string) (what string, err, want error) {
	m.t.Helper()
	if m.reader.dev != nil {
		m.endReading()
		return "", nil, nil
	}
	dev, err := m.p.OpenSnapshot(m.t.Context(), catalog.Ref{Volume: name, Snapshot: snap})
	v := m.volumes[name]
	if v == nil || v.snapshots[snap] == nil {
		return "read " + name + "@" + snap, err, catalog.ErrNotFound
	}
	m.reader = reader{dev, v, snap, bytes.Clone(v.snapshots[snap])}
	return "read " + name + "@" + snap, err, nil
}

// endReading compares what is being read, and closes it.
func (m *model) endReading() {
	m.t.Helper()
	if m.reader.dev == nil {
		return
	}
	got := make([]byte, len(m.reader.data))
	m.p.ok(m.reader.dev.ReadAt(m.t.Context(), got, 0))
	if !bytes.Equal(got, m.reader.data) {
		m.t.Fatal("what is read for long is not what it was")
	}
	m.p.ok(m.reader.dev.Close(m.t.Context()))
	m.reader = reader{}
}

// abandonReading forgets the reader, whose process has ended.
func (m *model) abandonReading() {
	if m.reader.dev != nil {
		m.reader.dev.Close(context.Background()) // of a dead process: it fails, or not
	}
	m.reader = reader{}
}
