package collect_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/mapper"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// repair repairs, and returns what was done in short.
func (p *process) repair() string {
	p.t.Helper()
	r, err := collect.Repair(p.t.Context(), p.Pool)
	p.ok(err)
	if len(r.Skipped) > 0 {
		p.t.Fatalf("skipped %+v", r.Skipped)
	}
	var all []string
	for _, done := range r.Repaired {
		all = append(all, done.Volume+": "+done.Text)
	}
	return strings.Join(all, "; ")
}

// spoilRecord makes a record one that no version wrote.
func spoilRecord(t *testing.T, b drivers.Backend, name string) {
	t.Helper()
	data, err := b.Load(t.Context(), name)
	if err == nil {
		data[len(data)/2] ^= 1
		err = b.Replace(t.Context(), name, data, drivers.Condition{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lose removes an object.
func lose(t *testing.T, b drivers.Backend, name string) {
	t.Helper()
	err := b.Unlink(t.Context(), name)
	if err == nil {
		err = b.SyncGroup(t.Context(), drivers.Group(name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// repairable is damage that a repair mends.
type repairable struct {
	name    string
	prepare func(*process)
	harm    func(*testing.T, *mem.Backend, chunk.VolumeID) // of vm1
	says    string
	volumes string // of the pool afterwards
}

func repairables(t *testing.T) []repairable {
	none := func(*process) {}
	spoil := func(name string) func(*testing.T, *mem.Backend, chunk.VolumeID) {
		return func(t *testing.T, b *mem.Backend, _ chunk.VolumeID) { spoilRecord(t, b, name) }
	}
	trashed := func(p *process) {
		_, err := p.Remove(t.Context(), ref(t, "vm2"), catalog.RemoveOptions{Trash: time.Hour})
		p.ok(err)
	}
	inTrash := func(t *testing.T, b *mem.Backend) string { return objects(t, b, chunk.TrashGroup)[0] }
	return []repairable{
		{"spoiled name", none, spoil(chunk.NameRecord("vm1")), "vm1: wrote its name record anew", "vm1@s1 vm2 "},
		{"empty name", none, func(t *testing.T, b *mem.Backend, _ chunk.VolumeID) {
			if err := b.Replace(t.Context(), chunk.NameRecord("vm1"), nil, drivers.Condition{}); err != nil {
				t.Fatal(err)
			}
		}, "vm1: wrote its name record anew", "vm1@s1 vm2 "},
		{"name of nothing", func(p *process) { p.create("x", mib) }, func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			q := start(t, b, 1)
			x, err := q.Lookup(t.Context(), "x")
			q.ok(err)
			q.stop()
			for _, name := range objects(t, b, chunk.VolumeGroup(x)) {
				lose(t, b, name)
			}
			spoilRecord(t, b, chunk.NameRecord("x"))
		}, "x: removed its damaged name record", "vm1@s1 vm2 "},
		{"lost name", none, func(t *testing.T, b *mem.Backend, _ chunk.VolumeID) { lose(t, b, chunk.NameRecord("vm1")) }, "gave volume", "vm1@s1 vm2 "},
		{"lost name that is taken", none, func(t *testing.T, b *mem.Backend, _ chunk.VolumeID) {
			lose(t, b, chunk.NameRecord("vm2"))
			q := start(t, b, 1)
			q.create("vm2", mib)
			q.stop()
		}, "the name recovered-", "recovered-? vm1@s1 vm2 "},
		{"lost registration", none, func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			lose(t, b, first(t, b, id, chunk.Registrations))
		}, "vm2: registered it again", "vm1@s1 vm2 "},
		{"spoiled record of the trash", trashed, func(t *testing.T, b *mem.Backend, _ chunk.VolumeID) { spoilRecord(t, b, inTrash(t, b)) }, "vm2: wrote the record", "vm1@s1 "},
		{"lost record of the trash", trashed, func(t *testing.T, b *mem.Backend, _ chunk.VolumeID) { lose(t, b, inTrash(t, b)) }, "vm2: wrote the record", "vm1@s1 "},
	}
}

// whole fails unless the pool has what family made, under these names.
func (p *process) whole(want string) {
	p.t.Helper()
	p.collect()
	p.clean()
	names := strings.Fields(p.volumes())
	for i, name := range names {
		if strings.HasPrefix(name, "recovered-") {
			p.wants(name, 0, mib/2, 1)
			names[i] = "recovered-?"
		}
	}
	if got := strings.Join(names, " ") + " "; got != want {
		p.t.Fatalf("the pool has %q", got)
	}
	if !strings.Contains(want, "vm2") {
		_, err := p.Restore(p.t.Context(), "vm2", "")
		p.ok(err)
	}
	p.wants("vm1", 0, mib/4, 2)
	p.wants("vm1@s1", 0, mib/2, 1)
	if !strings.Contains(want, "recovered") {
		p.wants("vm2", 0, mib/2, 1)
	}
}

func TestRepairMendsWhatOtherRecordsProve(t *testing.T) {
	for _, c := range repairables(t) {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			b, p, id := family(t)
			c.prepare(p)
			c.harm(t, b, id)
			if got := p.repair(); !strings.Contains(got, c.says) {
				t.Fatalf("repaired %q", got)
			}
			if got := p.repair(); got != "" {
				t.Fatalf("repaired once more: %q", got)
			}
			p.whole(c.volumes)
		})
	}
}

// cutOffBefore has call k from now on, and all that follow, fail. The result is what crash made of the storage before it, nil if there was
// no such call.
func (p *process) cutOffBefore(k int64, crash func() *mem.Backend) func() *mem.Backend {
	var mu sync.Mutex
	var after *mem.Backend
	first := p.faults.Calls()
	p.faults.SetHook(func(call faulty.Call) faulty.Action {
		if call.N-first < k {
			return faulty.Pass()
		}
		mu.Lock()
		defer mu.Unlock()
		if after == nil {
			after = crash()
		}
		return faulty.Fail(errDead)
	})
	return func() *mem.Backend {
		mu.Lock()
		defer mu.Unlock()
		return after
	}
}

// TestRepairsThatAreCutOffAreRepeated crashes before every call of a repair.
func TestRepairsThatAreCutOffAreRepeated(t *testing.T) {
	seed := modelSeed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, c := range repairables(t) {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			storage, p, id := family(t)
			c.prepare(p)
			p.stop()
			c.harm(t, storage, id)
			for k := int64(1); ; k++ {
				b := storage.Kill()
				p := start(t, b, 1)
				crashed := p.cutOffBefore(k, func() *mem.Backend { return b.Crash(mem.KeepRandom(rng)) })
				_, err := collect.Repair(t.Context(), p.Pool)
				p.die()
				after := crashed()
				if after == nil {
					p.ok(err)
					return
				}
				q := start(t, after, 2)
				q.repair()
				q.whole(c.volumes)
				q.stop()
			}
		})
	}
}

func TestRepairLeavesWhatItCannotProve(t *testing.T) {
	for what, harm := range map[string]func(*testing.T, *mem.Backend, chunk.VolumeID){
		"page":           func(t *testing.T, b *mem.Backend, id chunk.VolumeID) { spoilRecord(t, b, first(t, b, id, chunk.Pages)) },
		"missing object": func(t *testing.T, b *mem.Backend, id chunk.VolumeID) { lose(t, b, first(t, b, id, chunk.Data)) },
		"snapshot": func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			spoilRecord(t, b, first(t, b, id, chunk.Snapshots))
		},
		"missing snapshot": func(t *testing.T, b *mem.Backend, id chunk.VolumeID) { lose(t, b, first(t, b, id, chunk.Snapshots)) },
		"root": func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			names := objects(t, b, chunk.GroupName(id, chunk.Roots))
			slices.Sort(names)
			spoilRecord(t, b, names[len(names)-1])
		},
		"root and name": func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			for _, name := range objects(t, b, chunk.GroupName(id, chunk.Roots)) {
				spoilRecord(t, b, name)
			}
			spoilRecord(t, b, chunk.NameRecord("vm1"))
		},
		"name of another version": func(t *testing.T, b *mem.Backend, id chunk.VolumeID) {
			pool := mapper.PoolRecord{}.Encode() // whole, and no name record
			if err := b.Replace(t.Context(), chunk.NameRecord("vm1"), pool, drivers.Condition{}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
			b, p, id := family(t)
			harm(t, b, id)
			before := objects(t, b, "")
			if got := p.repair(); got != "" {
				t.Fatalf("repaired %q", got)
			}
			if r, err := collect.Check(t.Context(), p.Pool, collect.CheckOptions{}); err != nil || !r.Damaged() {
				t.Fatalf("found %+v, %v", r, err)
			}
			for _, name := range before {
				if _, err := b.Stat(t.Context(), name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func TestRepairOfThePoolRecord(t *testing.T) {
	for what, harm := range map[string]func(*testing.T, *mem.Backend){
		"missing": func(t *testing.T, b *mem.Backend) { lose(t, b, chunk.PoolName) },
		"spoiled": func(t *testing.T, b *mem.Backend) { spoilRecord(t, b, chunk.PoolName) },
	} {
		b, p, _ := family(t)
		p.stop()
		harm(t, b)
		e := drivers.NewEngine(b, drivers.Options{})
		made, err := catalog.RepairPool(t.Context(), e)
		if err != nil || !made {
			t.Fatalf("%s: %v, %v", what, made, err)
		}
		if made, err := catalog.RepairPool(t.Context(), e); err != nil || made {
			t.Fatalf("%s, repaired twice: %v, %v", what, made, err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		start(t, b, 1).whole("vm1@s1 vm2 ")
	}
	b := mem.New(mem.Options{})
	e := drivers.NewEngine(b, drivers.Options{})
	if made, err := catalog.RepairPool(t.Context(), e); err != nil || made {
		t.Fatalf("made a pool of nothing: %v, %v", made, err)
	}
	if err := b.Replace(t.Context(), chunk.PoolName, mapper.NameRecord{}.Encode(), drivers.Condition{}); err != nil {
		t.Fatal(err)
	}
	if made, err := catalog.RepairPool(t.Context(), e); !errors.Is(err, drivers.ErrInvalid) || made {
		t.Fatalf("wrote over the record of another version: %v, %v", made, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// harm spoils or loses a record that a repair mends, and repairs.
func (m *model) harm() {
	m.t.Helper()
	var names []string
	groups := []string{chunk.NamesGroup, chunk.VolumesGroup()}
	if len(m.trash) == 1 { // of several of a name, only the records tell which is the newest
		groups = append(groups, chunk.TrashGroup)
	}
	for _, group := range groups {
		for _, name := range objects(m.t, m.storage, group) {
			if _, g, ok := chunk.ParseVolume(name); !ok || g == chunk.Registrations {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	name := names[m.rng.IntN(len(names))]
	what := "spoiled"
	switch _, _, registration := chunk.ParseVolume(name); {
	case registration, m.rng.IntN(2) == 0 && m.mayLose(name):
		what = "lost"
		lose(m.t, m.storage, name)
	default:
		spoilRecord(m.t, m.storage, name)
	}
	r, err := collect.Repair(m.t.Context(), m.p.Pool)
	m.p.ok(err)
	if found := m.p.check(); len(found.Problems) > 0 && m.t.Failed() {
		m.t.Fatalf("%s %s: repaired %+v, found %+v", what, name, r, found.Problems)
	}
	m.verify()
}

// mayLose reports whether a record can be lost without its volume: one that has nothing else is taken for the rest of a removal.
func (m *model) mayLose(name string) bool {
	m.t.Helper()
	b, err := m.storage.Load(m.t.Context(), name)
	m.p.ok(err)
	id, inTrash := chunk.ParseTrashRecord(name)
	if !inTrash {
		r, err := mapper.DecodeNameRecord(b)
		m.p.ok(err)
		id = r.Volume
	}
	root, err := m.p.Inspect(m.t.Context(), id)
	if errors.Is(err, drivers.ErrNotFound) {
		return true // it stands for nothing
	}
	m.p.ok(err)
	bare, err := m.p.Bare(m.t.Context(), root)
	m.p.ok(err)
	return !bare
}
