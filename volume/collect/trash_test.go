package collect_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// trashOperations are those that move volumes to the trash and from there.
func trashOperations(t *testing.T) []operation {
	remove := func(p *process, o catalog.RemoveOptions) error {
		_, err := p.Remove(t.Context(), ref(t, "vm1"), o)
		return err
	}
	written := func(p *process) {
		p.create("vm1", mib)
		p.write("vm1", 0, mib/2, 1)
		p.snapshot("vm1@s1")
		p.write("vm1", 0, mib/4, 1)
	}
	trashed := func(p *process) {
		written(p)
		p.ok(remove(p, catalog.RemoveOptions{Snapshots: true, Trash: time.Hour}))
	}
	content := func(p *process) {
		if name := strings.TrimSpace(p.volumes()); name != "" {
			p.wants(name, 0, mib/2, 1)
			p.wants(strings.TrimSuffix(name, "@s1"), 0, mib/2, 1)
		}
	}
	restored := func(p *process) {
		_, err := p.Restore(t.Context(), "vm1", "")
		p.ok(err)
		p.clean()
		content(p)
		p.ok(remove(p, catalog.RemoveOptions{Snapshots: true}))
	}
	return []operation{
		{
			name: "removal to the trash", before: "vm1@s1 ", after: "", done: catalog.ErrNotFound, prepare: written, content: content, finish: restored,
			do: func(p *process) error { return remove(p, catalog.RemoveOptions{Snapshots: true, Trash: time.Hour}) },
		}, {
			name: "restoration", before: "", after: "vm2@s1 ", done: catalog.ErrNotFound, prepare: trashed, content: content,
			do: func(p *process) error {
				_, err := p.Restore(t.Context(), "vm1", "vm2")
				return err
			},
		}, {
			name: "removal from the trash", before: "", after: "", done: catalog.ErrNotFound, prepare: trashed,
			do: func(p *process) error { return remove(p, catalog.RemoveOptions{Now: true}) },
		}, {
			name: "collection of the trash", before: "vm1@s1 ", after: "vm1@s1 ", content: content,
			prepare: func(p *process) {
				written(p)
				p.clone("vm1@s1", "vm2")
				p.write("vm2", 0, mib/2, 2)
				p.snapshot("vm2@s2")
				_, err := p.Remove(t.Context(), ref(t, "vm2"), catalog.RemoveOptions{Snapshots: true, Trash: 1})
				p.ok(err)
			},
			do: func(p *process) error {
				_, err := collect.Collect(t.Context(), p.Pool, collect.Options{})
				return err
			},
		},
	}
}

func TestTrashKeepsVolumesUntilTheirTimeIsOver(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	r, err := p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Trash: time.Hour})
	p.ok(err)
	if r.Until.IsZero() || r.Objects != 0 || p.volumes() != "" {
		t.Fatalf("removed: %+v; the pool has %q", r, p.volumes())
	}
	if _, err := p.OpenVolume(t.Context(), "vm1"); !errors.Is(err, catalog.ErrNotFound) {
		t.Fatalf("opened: %v", err)
	}
	if _, err := p.Clone(t.Context(), ref(t, "vm1"), "vm2", catalog.CloneOptions{}); !errors.Is(err, catalog.ErrNotFound) {
		t.Fatalf("cloned: %v", err)
	}
	// The name can be used at once, also for the next in the trash.
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 2)
	if _, err := p.Restore(t.Context(), "vm1", ""); !errors.Is(err, catalog.ErrExists) {
		t.Fatalf("restored over another: %v", err)
	}
	_, err = p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Trash: 2 * time.Hour})
	p.ok(err)
	p.collect()
	p.clean()
	trash, err := p.Trash(t.Context())
	p.ok(err)
	if len(trash) != 2 || trash[0].Name != "vm1" || !trash[0].Until.After(trash[1].Until) || trash[1].Size != mib {
		t.Fatalf("the trash has %+v", trash)
	}
	if _, err := p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Now: true}); !errors.Is(err, catalog.ErrExists) || !strings.Contains(err.Error(), trash[1].ID.String()) {
		t.Fatalf("one of two was removed: %v", err)
	}
	if _, err := p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{}); !errors.Is(err, catalog.ErrNotFound) {
		t.Fatalf("removed from the trash unasked: %v", err)
	}
	_, err = p.Restore(t.Context(), "vm1", "")
	p.ok(err)
	p.wants("vm1", 0, mib, 2)
	_, err = p.Restore(t.Context(), trash[1].ID.String(), "old")
	p.ok(err)
	p.wants("old", 0, mib, 1)
	p.clean()
	_, err = p.Remove(t.Context(), ref(t, "old"), catalog.RemoveOptions{Trash: 1})
	p.ok(err)
	if r := p.check(); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Text, "time there is over") {
		t.Fatalf("found %+v", r.Problems)
	}
	if r := p.collect(); r.Bytes < mib || r.Unnamed != 1 {
		t.Fatalf("collected %+v", r)
	}
	p.clean()
	if left := objects(t, b, chunk.VolumeGroup(trash[1].ID)); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

func TestTrashHoldsWhatItWasClonedFrom(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	p.snapshot("vm1@s1")
	p.clone("vm1@s1", "vm2")
	if _, err := p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Snapshots: true, Trash: time.Hour}); !errors.Is(err, catalog.ErrInUse) {
		t.Fatalf("removed a volume with clones: %v", err)
	}
	_, err := p.Remove(t.Context(), ref(t, "vm2"), catalog.RemoveOptions{Trash: time.Hour})
	p.ok(err)
	p.write("vm1", 0, mib, 2)
	for _, o := range []catalog.RemoveOptions{{Snapshots: true}, {Snapshots: true, Trash: time.Hour}} {
		if _, err := p.Remove(t.Context(), ref(t, "vm1"), o); !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), "vm2 (in the trash") {
			t.Fatalf("removed what a volume in the trash needs: %v", err)
		}
	}
	p.collect()
	p.clean()
	_, err = p.Restore(t.Context(), "vm2", "")
	p.ok(err)
	p.wants("vm2", 0, mib, 1)
}

// TestAbsurdTimesInTheTrashNeverEnd shows that a root whose time is not what a removal writes is kept.
func TestAbsurdTimesInTheTrashNeverEnd(t *testing.T) {
	for _, until := range []time.Time{{}, time.Unix(-1, 0), time.Unix(0, 1), time.Unix(0, -1<<63)} {
		b := newStorage(t)
		p := start(t, b, 1)
		p.create("vm1", mib)
		p.write("vm1", 0, mib, 1)
		_, err := p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Trash: time.Hour})
		p.ok(err)
		trash, err := p.Trash(t.Context())
		p.ok(err)
		root, err := p.Inspect(t.Context(), trash[0].ID)
		p.ok(err)
		root.Until = until
		p.ok(b.Replace(t.Context(), chunk.RootName(root.Volume, root.Generation), root.Encode(), drivers.Condition{}))
		p.collect()
		_, err = p.Restore(t.Context(), "vm1", "")
		p.ok(err)
		p.wants("vm1", 0, mib, 1)
	}
	p := start(t, newStorage(t), 1)
	p.create("vm1", mib)
	for _, keep := range []time.Duration{-1, catalog.MaxTrash + 1} {
		if _, err := p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Trash: keep}); !errors.Is(err, drivers.ErrInvalid) {
			t.Fatalf("%v in the trash: %v", keep, err)
		}
	}
}

func TestRecordsOfTheTrashThatDoNotCountGo(t *testing.T) {
	b, p, id := family(t)
	gone := chunk.NewVolumeID()
	for _, r := range []mapper.TrashRecord{{Name: "vm1", Volume: id}, {Name: "x", Volume: gone}} {
		p.ok(b.Replace(t.Context(), chunk.TrashRecord(r.Volume), r.Encode(), drivers.Condition{}))
	}
	if r := p.check(); len(r.Problems) != 2 {
		t.Fatalf("found %+v", r.Problems)
	}
	p.collect()
	p.clean()
	if left := objects(t, b, chunk.TrashGroup); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

// named returns the place of the newest volume in the model's trash of a name, and how many there are.
func (m *model) named(name string) (last, n int) {
	last = -1
	for i, v := range m.trash {
		if v.name == name {
			last = i
			n++
		}
	}
	return last, n
}

func (m *model) restore(name string) (what string, err, want error) { return m.restoreAs(name, name) }

func (m *model) restoreAs(which, name string) (what string, err, want error) {
	last, _ := m.named(which)
	_, err = m.p.Restore(m.t.Context(), which, name)
	switch {
	case last < 0:
		want = catalog.ErrNotFound
	case m.volumes[name] != nil:
		want = catalog.ErrExists
	default:
		v := m.trash[last]
		m.trash = slices.Delete(m.trash, last, last+1)
		m.volumes[name], v.name = v, name
	}
	return "restore " + which + " as " + name, err, want
}

// purge removes a volume for good that may be in the trash.
func (m *model) purge(name string) (what string, err, want error) {
	_, err = m.p.Remove(m.t.Context(), catalog.Ref{Volume: name}, catalog.RemoveOptions{Snapshots: true, Now: true})
	last, n := m.named(name)
	v := m.volumes[name]
	switch {
	case v == nil && n == 0:
		return "purge " + name, err, catalog.ErrNotFound
	case v == nil && n > 1:
		return "purge " + name, err, catalog.ErrExists
	case v == nil:
		v = m.trash[last]
	}
	if want = m.mayGo(err, v, ""); err == nil && m.volumes[name] == v {
		delete(m.volumes, name)
	} else if err == nil {
		m.trash = slices.Delete(m.trash, last, last+1)
	}
	return "purge " + name, err, want
}
