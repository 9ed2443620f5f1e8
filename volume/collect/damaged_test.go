package collect_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/mem"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// giveUp removes what is damaged.
func (p *process) giveUp(name string, o catalog.RemoveOptions) (catalog.DamagedRemoval, error) {
	p.t.Helper()
	return p.RemoveDamaged(p.t.Context(), ref(p.t, name), o)
}

// spoilRoot makes the root in force of a volume one that nobody can read.
func spoilRoot(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
	t.Helper()
	names := objects(t, b, chunk.GroupName(id, chunk.Roots))
	slices.Sort(names)
	spoilRecord(t, b, names[len(names)-1])
}

// alone is a pool with vm1, which has snapshots, and golden, which shares nothing with it.
func alone(t *testing.T) (*mem.Backend, *process, chunk.VolumeID) {
	t.Helper()
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("golden", mib)
	p.write("golden", 0, mib, 7)
	p.snapshot("golden@v1")
	p.clone("golden@v1", "vm1")
	p.write("vm1", 0, mib/2, 1)
	p.snapshot("vm1@s1")
	p.write("vm1", 0, mib/4, 2)
	p.snapshot("vm1@s2")
	id, err := p.Lookup(t.Context(), "vm1")
	p.ok(err)
	return b, p, id
}

func TestB04DamagedVolumesCanBeRemoved(t *testing.T) {
	for what, c := range map[string]struct {
		harm func(*testing.T, *mem.Backend, chunk.VolumeID)
		byID bool
	}{
		"root":           {harm: spoilRoot},
		"root by its id": {harm: spoilRoot, byID: true},
		"lost name":      {harm: func(t *testing.T, b *mem.Backend, _ chunk.VolumeID) { lose(t, b, chunk.NameRecord("vm1")) }, byID: true},
		"name":           {harm: func(t *testing.T, b *mem.Backend, _ chunk.VolumeID) { spoilRecord(t, b, chunk.NameRecord("vm1")) }, byID: true},
		"snapshot": {harm: func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			spoilRecord(t, b, first(t, b, id, chunk.Snapshots))
		}},
		"root and snapshots": {harm: func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			spoilRoot(t, b, id)
			for _, name := range objects(t, b, chunk.GroupName(id, chunk.Snapshots)) {
				spoilRecord(t, b, name)
			}
		}},
	} {
		t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
			b, p, id := alone(t)
			c.harm(t, b, id)
			name := "vm1"
			if c.byID {
				name = id.String()
			}
			if what != "root and snapshots" {
				if _, err := p.giveUp(name, catalog.RemoveOptions{}); !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), "s2") {
					t.Fatalf("removed with its snapshots unasked: %v", err)
				}
			}
			d, err := p.giveUp(name, catalog.RemoveOptions{Snapshots: true})
			p.ok(err)
			if d.ID != id || d.Left > 0 {
				t.Fatalf("removed %+v", d)
			}
			p.collect()
			if what == "name" {
				p.repair()
			}
			p.clean()
			p.create("vm1", mib)
			p.wants("vm1", 0, mib, 0)
			p.wants("golden", 0, mib, 7)
			p.remove("golden@v1")
			p.remove("golden")
			p.remove("vm1")
			p.collect()
			if left := objects(t, b, "v"); len(left) > 0 {
				t.Fatalf("left: %q", left)
			}
		})
	}
}

func TestDamagedSnapshotsCanBeRemoved(t *testing.T) {
	b, p, id := alone(t)
	name := first(t, b, id, chunk.Snapshots)
	spoilRecord(t, b, name)
	serial := "vm1@" + name[strings.LastIndexByte(name, '/')+1:]
	for wrong, target := range map[string]error{"vm1@s2": drivers.ErrInvalid, "vm1@9.9": catalog.ErrNotFound, "none@1.1": catalog.ErrNotFound, "golden": drivers.ErrInvalid} {
		if _, err := p.giveUp(wrong, catalog.RemoveOptions{}); !errors.Is(err, target) {
			t.Errorf("%s: %v, want %v", wrong, err, target)
		}
	}
	_, err := p.giveUp(serial, catalog.RemoveOptions{})
	p.ok(err)
	p.collect()
	p.clean()
	if got := p.volumes(); got != "golden@v1 vm1@s2 " {
		t.Fatalf("the pool has %q", got)
	}
	p.wants("vm1@s2", 0, mib/4, 2)
	p.wants("vm1", mib/4, mib/4, 1)
}

// TestSharedDataIsNotGivenUp shows that what a clone needs is not removed, however much is damaged.
func TestSharedDataIsNotGivenUp(t *testing.T) {
	for what, harm := range map[string]func(*testing.T, *mem.Backend, chunk.VolumeID){
		"root": spoilRoot,
		"root, registration lost": func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			spoilRoot(t, b, id)
			lose(t, b, first(t, b, id, chunk.Registrations))
		},
		"snapshot": func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			spoilRecord(t, b, first(t, b, id, chunk.Snapshots))
		},
		"snapshot, registration lost": func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			spoilRecord(t, b, first(t, b, id, chunk.Snapshots))
			lose(t, b, first(t, b, id, chunk.Registrations))
		},
	} {
		t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
			b, p, id := family(t)
			record := first(t, b, id, chunk.Snapshots)
			harm(t, b, id)
			names := []string{"vm1"}
			if strings.HasPrefix(what, "snapshot") {
				names = append(names, "vm1@"+record[strings.LastIndexByte(record, '/')+1:])
			}
			for _, name := range names {
				o := catalog.RemoveOptions{Snapshots: name == "vm1"}
				if _, err := p.giveUp(name, o); !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), "vm2") {
					t.Fatalf("%s: %v", name, err)
				}
			}
			p.wants("vm2", 0, mib/2, 1)
			p.remove("vm2")
			_, err := p.giveUp("vm1", catalog.RemoveOptions{Snapshots: true})
			p.ok(err)
			p.collect()
			p.clean()
			if left := objects(t, b, "v"); len(left) > 0 {
				t.Fatalf("left: %q", left)
			}
		})
	}
}

// TestDamagedClonesAreRemovedFirst shows that two damaged volumes do not hold each other.
func TestDamagedClonesAreRemovedFirst(t *testing.T) {
	b, p, id := family(t)
	clone, err := p.Lookup(t.Context(), "vm2")
	p.ok(err)
	spoilRoot(t, b, id)
	spoilRoot(t, b, clone)
	if _, err := p.giveUp("vm1", catalog.RemoveOptions{Snapshots: true}); !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), clone.String()) {
		t.Fatalf("removed before its damaged clone: %v", err)
	}
	for _, name := range []string{"vm2", "vm1"} {
		_, err := p.giveUp(name, catalog.RemoveOptions{Snapshots: true})
		p.ok(err)
	}
	p.collect()
	p.clean()
	if left := objects(t, b, "v"); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

func TestDamagedVolumesInUseStay(t *testing.T) {
	b, p, id := alone(t)
	q := start(t, b, 1)
	dev, err := q.OpenVolume(t.Context(), "vm1")
	p.ok(err)
	names := objects(t, b, chunk.GroupName(id, chunk.Roots))
	slices.Sort(names)
	name := names[len(names)-1]
	sound, err := b.Load(t.Context(), name)
	p.ok(err)
	p.ok(b.Replace(t.Context(), name, append(slices.Clone(sound[:len(sound)-1]), sound[len(sound)-1]^1), drivers.Condition{}))
	if _, err := p.giveUp("vm1", catalog.RemoveOptions{Snapshots: true}); !errors.Is(err, catalog.ErrInUse) {
		t.Fatalf("removed while a living process has it: %v", err)
	}
	p.ok(b.Replace(t.Context(), name, sound, drivers.Condition{}))
	p.ok(dev.Close(t.Context()))
	p.clean()
	// What another version wrote is not damaged.
	p.ok(b.Replace(t.Context(), chunk.RootName(id, 99), mapper.PoolRecord{}.Encode(), drivers.Condition{}))
	if _, err := p.giveUp("vm1", catalog.RemoveOptions{Snapshots: true}); !errors.Is(err, drivers.ErrInvalid) {
		t.Fatalf("removed what another version wrote: %v", err)
	}
}

// TestRemovalsOfTheDamagedThatAreCutOffAreFinished crashes before every call, with the power or without.
func TestRemovalsOfTheDamagedThatAreCutOffAreFinished(t *testing.T) {
	for what, harm := range map[string]func(*testing.T, *mem.Backend, chunk.VolumeID){
		"root": spoilRoot,
		"name": func(t *testing.T, b *mem.Backend, _ chunk.VolumeID) { spoilRecord(t, b, chunk.NameRecord("vm1")) },
		"snapshot": func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			spoilRecord(t, b, first(t, b, id, chunk.Snapshots))
		},
	} {
		t.Run(what, func(t *testing.T) {
			storage, p, id := alone(t)
			p.stop()
			harm(t, storage, id)
			for k := int64(1); ; k++ {
				for _, keep := range []mem.Keep{mem.KeepAll, mem.KeepNone} {
					b := storage.Kill()
					p := start(t, b, 1)
					crashed := p.cutOffBefore(k, func() *mem.Backend { return b.Crash(keep) })
					_, err := p.giveUp(id.String(), catalog.RemoveOptions{Snapshots: true})
					p.die()
					after := crashed()
					if after == nil {
						p.ok(err)
						return
					}
					q := start(t, after, 2)
					if _, err := q.giveUp(id.String(), catalog.RemoveOptions{Snapshots: true}); err != nil && !errors.Is(err, catalog.ErrNotFound) {
						t.Fatalf("cut off before call %d: %v", k, err)
					}
					q.repair()
					q.collect()
					q.clean()
					q.wants("golden", 0, mib, 7)
					if left := objects(t, after, chunk.VolumeGroup(id)); len(left) > 0 {
						t.Fatalf("cut off before call %d, left: %q", k, left)
					}
					q.stop()
				}
			}
		})
	}
}
