package collect_test

import (
	"testing"

	"skerry/volume/collect"
)

func TestL02SpaceOfRemovedSnapshotsComesBack(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	before := b.Used()
	p.snapshot("vm1@s1")
	p.write("vm1", 0, mib, 2)
	if b.Used() < before+mib {
		t.Fatal("the snapshot shares nothing")
	}
	if r := p.collect(); r.Objects != 0 {
		t.Fatalf("removed with the snapshot there: %+v", r)
	}
	p.wants("vm1@s1", 0, mib, 1)
	p.remove("vm1@s1")
	if r := p.collect(); r.Bytes < mib {
		t.Fatalf("given back: %+v", r)
	}
	p.wants("vm1", 0, mib, 2)
	if b.Used() > before+64*kib {
		t.Fatalf("%d bytes are used, %d before the snapshot", b.Used(), before)
	}
	p.clean()
}

func TestCollectionLeavesWhatClonesNeed(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	p.clone("vm1", "vm2")
	p.clone("vm2", "vm3")
	p.write("vm1", 0, mib, 2)
	p.write("vm2", 0, mib/2, 3)
	p.collect()
	p.clean()
	p.wants("vm1", 0, mib, 2)
	p.wants("vm2", 0, mib/2, 3)
	p.wants("vm2", mib/2, mib/2, 1)
	p.wants("vm3", 0, mib, 1)

	p.remove("vm3")
	p.write("vm2", 0, mib, 4)
	p.collect() // vm2 reaches nothing of vm1 any more
	info, err := p.Info(t.Context(), "vm1")
	p.ok(err)
	if info.Hidden != 0 {
		t.Fatalf("%d hidden snapshots are left", info.Hidden)
	}
	p.remove("vm1")
	p.wants("vm2", 0, mib, 4)
	p.remove("vm2")
	p.collect()
	if left := objects(t, b, "v"); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

func TestCollectionOfAnOpenVolume(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	p.snapshot("vm1@s1")
	d, err := p.OpenVolume(t.Context(), "vm1")
	p.ok(err)
	p.ok(d.WriteAt(t.Context(), make([]byte, 128*kib), 0))
	p.remove("vm1@s1")
	before := len(objects(t, b, "v"))
	if r := p.collect(); r.Objects == 0 || len(r.Skipped) > 0 {
		t.Fatalf("collected: %+v", r)
	}
	if after := len(objects(t, b, "v")); after >= before {
		t.Fatalf("%d objects before, %d after", before, after)
	}
	p.check()
	p.ok(d.WriteAt(t.Context(), make([]byte, 64*kib), 256*kib))
	p.ok(d.Close(t.Context()))
	p.wants("vm1", 0, 128*kib, 0)
	p.wants("vm1", 128*kib, 128*kib, 1)
	p.wants("vm1", 256*kib, 64*kib, 0)
	p.wants("vm1", 320*kib, mib-320*kib, 1)
	p.collect() // the old chunk lay below the mark of the snapshot that is gone
	p.clean()
}

func TestVolumesOfOtherProcessesAreSkipped(t *testing.T) {
	b := newStorage(t)
	p, q := start(t, b, 1), start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	p.snapshot("vm1@s1")
	p.write("vm1", 0, mib, 2)
	p.remove("vm1@s1")
	d, err := p.OpenVolume(t.Context(), "vm1")
	p.ok(err)
	r := q.collect()
	if r.Objects != 0 || len(r.Skipped) != 1 || r.Skipped[0].Volume != "vm1" || r.Skipped[0].Holder == nil {
		t.Fatalf("collected: %+v", r)
	}
	q.check()
	p.ok(d.Close(t.Context()))
	if r := q.collect(); r.Objects == 0 {
		t.Fatalf("collected: %+v", r)
	}
	q.clean()
}

func TestDryRunChangesNothing(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	p.snapshot("vm1@s1")
	p.write("vm1", 0, mib, 2)
	p.remove("vm1@s1")
	before := objects(t, b, "v")
	dry, err := collect.Collect(t.Context(), p.Pool, collect.Options{DryRun: true})
	p.ok(err)
	after := objects(t, b, "v")
	if len(before) != len(after) {
		t.Fatalf("%d objects before, %d after", len(before), len(after))
	}
	if r := p.collect(); r.Objects != dry.Objects || r.Bytes != dry.Bytes || r.Objects == 0 {
		t.Fatalf("collected %+v, foretold %+v", r, dry)
	}
}

func TestJournalsAreNotAppliedByACollection(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	p.snapshot("vm1@s1")
	d, err := p.OpenVolume(t.Context(), "vm1")
	p.ok(err)
	p.ok(d.WriteAt(t.Context(), make([]byte, 128*kib), 0))
	killed := b.Kill()
	p.die()

	q := start(t, killed, 1)
	if r := q.check(); len(r.Problems) == 0 {
		t.Fatal("the stale lease was not found")
	}
	q.collect()
	q.check()
	info, err := q.Info(t.Context(), "vm1")
	q.ok(err)
	if !info.Unclean {
		t.Fatal("the journal was applied")
	}
	q.wants("vm1", 0, 128*kib, 0)
	q.wants("vm1", 128*kib, mib-128*kib, 1)
	q.wants("vm1@s1", 0, mib, 1)
	q.collect()
	q.clean()
}
