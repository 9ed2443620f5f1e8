package collect_test

import (
	"strings"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/mem"
	"skerry/mapper"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// family is a pool with vm1, its snapshot s1, and vm2, a clone of that.
func family(t *testing.T) (*mem.Backend, *process, chunk.VolumeID) {
	t.Helper()
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib/2, 1)
	p.snapshot("vm1@s1")
	p.clone("vm1@s1", "vm2")
	p.write("vm1", 0, mib/4, 2)
	p.collect()
	p.clean()
	id, err := p.Lookup(t.Context(), "vm1")
	p.ok(err)
	return b, p, id
}

// first returns the name of the first object of a group of a volume.
func first(t *testing.T, b drivers.Backend, id chunk.VolumeID, g chunk.Group) string {
	t.Helper()
	names := objects(t, b, chunk.GroupName(id, g))
	if len(names) == 0 {
		t.Fatalf("no object in group %s", g)
	}
	return names[0]
}

func TestCheckFindsDamage(t *testing.T) {
	unlink := func(g chunk.Group) func(*testing.T, *mem.Backend, chunk.VolumeID) {
		return func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			if err := b.Unlink(t.Context(), first(t, b, id, g)); err != nil {
				t.Fatal(err)
			}
		}
	}
	spoil := func(g chunk.Group) func(*testing.T, *mem.Backend, chunk.VolumeID) {
		return func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			name := first(t, b, id, g)
			data, err := b.Load(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := b.Replace(t.Context(), name, data, drivers.Condition{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for what, c := range map[string]struct {
		harm func(*testing.T, *mem.Backend, chunk.VolumeID)
		text string
	}{
		"missing chunk":        {unlink(chunk.Data), "is missing"},
		"missing page":         {unlink(chunk.Pages), "no such object"},
		"spoiled page":         {spoil(chunk.Pages), "checksum"},
		"spoiled snapshot":     {spoil(chunk.Snapshots), "checksum"},
		"missing registration": {unlink(chunk.Registrations), "no such object"},
		"missing snapshot":     {unlink(chunk.Snapshots), "no such object"},
		"missing name": {func(t *testing.T, b *mem.Backend, _ chunk.VolumeID) {
			if err := b.Unlink(t.Context(), chunk.NameRecord("vm1")); err != nil {
				t.Fatal(err)
			}
		}, "no name record"},
		"spoiled roots": {func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			for _, name := range objects(t, b, chunk.GroupName(id, chunk.Roots)) {
				if err := b.Replace(t.Context(), name, []byte("rubbish"), drivers.Condition{}); err != nil {
					t.Fatal(err)
				}
			}
		}, "root"},
	} {
		t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
			b, p, id := family(t)
			c.harm(t, b, id)
			r, err := collect.Check(t.Context(), p.Pool, collect.CheckOptions{})
			p.ok(err)
			found := false
			for _, problem := range r.Problems {
				found = found || problem.Kind == collect.Damage && strings.Contains(problem.Text, c.text)
				if strings.HasSuffix(what, " page") && problem.Kind == collect.Leak && strings.Contains(problem.Text, "reached by nothing") {
					t.Errorf("what the page shows counts as a leak: %s", problem.Text)
				}
			}
			if !found || !r.Damaged() {
				t.Fatalf("not found: %+v", r.Problems)
			}
			// Where something is not understood, nothing is collected.
			before := len(objects(t, b, chunk.GroupName(id, chunk.Data)))
			if _, err := collect.Collect(t.Context(), p.Pool, collect.Options{}); err != nil {
				t.Fatal(err)
			}
			if after := len(objects(t, b, chunk.GroupName(id, chunk.Data))); after != before {
				t.Fatalf("%d objects before the collection, %d after", before, after)
			}
		})
	}
}

// TestLeftoversAreFoundAndCollected makes what late deliveries and crashes can leave.
func TestLeftoversAreFoundAndCollected(t *testing.T) {
	b, p, id := family(t)
	put := func(name string, data []byte) {
		t.Helper()
		p.ok(b.Replace(t.Context(), name, data, drivers.Condition{Absent: true}))
	}
	gone, shell := chunk.NewVolumeID(), chunk.NewVolumeID()
	geom, err := chunk.NewGeometry(chunkSize)
	p.ok(err)
	late := &mapper.Root{Volume: shell, Generation: 3, State: mapper.Live, Name: "late", Size: mib, Geometry: geom, Owners: []chunk.VolumeID{shell}}
	put(chunk.DataName(id, 3, chunk.MakeSerial(1, 99)), []byte("an object without a map"))
	put(chunk.SerialName(id, chunk.Pages, chunk.MakeSerial(1, 98)), []byte("a page without a root"))
	put(chunk.NameRecord("nowhere"), mapper.NameRecord{Name: "nowhere", Volume: gone}.Encode())
	put(chunk.NameRecord("old"), mapper.NameRecord{Name: "old", Volume: id}.Encode())
	put(chunk.DataName(gone, 0, chunk.MakeSerial(1, 1)), []byte("an object without a volume"))
	put(chunk.RootName(shell, 3), late.Encode())
	put(chunk.RegistrationName(id, chunk.MakeSerial(1, 1), gone), nil)
	put(chunk.InstanceName(gone.String()), nil)

	r := p.check()
	for _, text := range []string{"2 objects", "nowhere", "old", gone.String(), shell.String(), "is registered", "instance"} {
		found := false
		for _, problem := range r.Problems {
			found = found || strings.Contains(problem.Volume+" "+problem.Text, text)
		}
		if !found {
			t.Errorf("nothing about %s in %+v", text, r.Problems)
		}
	}
	p.collect()
	p.clean()
	if left := objects(t, b, chunk.InstanceGroup); len(left) != 1 {
		t.Errorf("instance files: %q", left)
	}
	for _, x := range []chunk.VolumeID{gone, shell} {
		if left := objects(t, b, chunk.VolumeGroup(x)); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	}
	if got := p.volumes(); got != "vm1@s1 vm2 " {
		t.Errorf("the pool has %q", got)
	}
	p.wants("vm1", 0, mib/4, 2)
	p.wants("vm2", 0, mib/2, 1)
}

func TestCheckFoldsJournalsAfterAPowerLoss(t *testing.T) {
	b, p, _ := family(t)
	d, err := p.OpenVolume(t.Context(), "vm1")
	p.ok(err)
	for i := range int64(8) {
		p.ok(d.WriteAt(t.Context(), make([]byte, 4*kib), mib/2+i*chunkSize))
	}
	p.ok(d.Flush(t.Context()))
	p.ok(d.WriteAt(t.Context(), make([]byte, 64*kib), 0)) // this may be lost
	for what, keep := range map[string]mem.Keep{"nothing": mem.KeepNone, "all": mem.KeepAll} {
		q := start(t, b.Crash(keep), 2)
		r := q.check()
		for _, problem := range r.Problems {
			if problem.Kind == collect.Leak && keep == nil {
				t.Errorf("%s kept: %+v", what, problem)
			}
		}
		q.collect()
		q.check()
		q.wants("vm1", mib/2, mib/2, 0)
		q.collect()
		q.clean()
		q.stop()
	}
}

func TestClonesThatAreNotRegisteredKeepTheirParentWhole(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	p.clone("vm1", "vm2") // by a hidden snapshot
	p.write("vm1", 0, mib, 2)
	id, err := p.Lookup(t.Context(), "vm1")
	p.ok(err)
	p.ok(b.Unlink(t.Context(), first(t, b, id, chunk.Registrations)))
	for _, o := range []collect.Options{{}, {Volume: "vm1"}} {
		r, err := collect.Collect(t.Context(), p.Pool, o)
		p.ok(err)
		if len(r.Problems) != 1 || r.Problems[0].Volume != "vm1" || r.Objects != 0 {
			t.Fatalf("collected: %+v", r)
		}
		p.wants("vm2", 0, mib, 1)
	}
}

func TestManyMissingObjectsAreCounted(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", 4*mib)
	p.write("vm1", 0, 4*mib, 1)
	id, err := p.Lookup(t.Context(), "vm1")
	p.ok(err)
	for _, name := range objects(t, b, chunk.GroupName(id, chunk.Data)) {
		p.ok(b.Unlink(t.Context(), name))
	}
	r, err := collect.Check(t.Context(), p.Pool, collect.CheckOptions{})
	p.ok(err)
	if n := len(r.Problems); n != 21 || r.Problems[n-1].Text != "44 more objects are missing" {
		t.Fatalf("found: %+v", r.Problems)
	}
}

func TestNamesOfUnreadableVolumesStay(t *testing.T) {
	b, p, id := family(t)
	for _, name := range objects(t, b, chunk.GroupName(id, chunk.Roots)) {
		p.ok(b.Replace(t.Context(), name, nil, drivers.Condition{}))
	}
	r, err := collect.Collect(t.Context(), p.Pool, collect.Options{})
	p.ok(err)
	if len(r.Problems) == 0 {
		t.Fatalf("collected: %+v", r)
	}
	if _, err := b.Stat(t.Context(), chunk.NameRecord("vm1")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Remove(t.Context(), catalog.Ref{Volume: "vm1"}, catalog.RemoveOptions{}); err == nil {
		t.Fatal("removed")
	}
}
