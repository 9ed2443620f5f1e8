package collect_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"skerry/drivers"
	"skerry/drivers/mem"
	"skerry/volume/catalog"
)

// modelVolume is what a volume must be.
type modelVolume struct {
	data      []byte
	snapshots map[string][]byte
	parent    *modelVolume
	from      string // the snapshot of parent; "": a hidden one
	name      string
}

// model is what a pool must be, beside the pool.
type model struct {
	t       *testing.T
	rng     *rand.Rand
	storage *mem.Backend
	boot    byte
	p       *process
	volumes map[string]*modelVolume
	trash   []*modelVolume // the newest last
	reader  reader         // of a snapshot, for long
}

// modelSeed returns the seed of a random test: SKERRY_SEED, or a new one.
func modelSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("SKERRY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SKERRY_SEED=%d", seed)
	return seed
}

// TestModelOfNames does a random list of operations on a pool and on a model of it, with processes and machines that die between.
func TestModelOfNames(t *testing.T) {
	seed := modelSeed(t)
	for run := range max(1, 40/stride) {
		m := &model{
			t: t, rng: rand.New(rand.NewPCG(seed, uint64(run))), storage: newStorage(t), boot: 1, volumes: make(map[string]*modelVolume),
		}
		m.p = start(t, m.storage, m.boot)
		for range 60 {
			m.step()
		}
		m.endReading()
		m.verify()
		m.removeAll()
	}
}

// pick returns one of the names of a map, or a name that is not there.
func pick[V any](m *model, of map[string]V) string {
	if len(of) == 0 || m.rng.IntN(10) == 0 {
		return "none"
	}
	return slices.Sorted(maps.Keys(of))[m.rng.IntN(len(of))]
}

func (m *model) step() {
	t, ctx := m.t, m.t.Context()
	name := pick(m, m.volumes)
	v := m.volumes[name]
	fresh := fmt.Sprintf("vm%d", m.rng.IntN(6))
	snap := fmt.Sprintf("s%d", m.rng.IntN(3))
	var err, want error
	what := ""
	if v == nil {
		want = catalog.ErrNotFound
	}
	taken := func(name string) error {
		if m.volumes[name] != nil {
			return catalog.ErrExists
		}
		return nil
	}
	switch m.rng.IntN(21) {
	case 0:
		what, want = "create "+fresh, taken(fresh)
		_, err = m.p.Create(ctx, fresh, catalog.CreateOptions{Size: mib, ChunkSize: chunkSize})
		if want == nil {
			m.volumes[fresh] = &modelVolume{name: fresh, data: make([]byte, mib), snapshots: map[string][]byte{}}
		}
	case 1, 2, 3:
		if v != nil {
			what = "write " + name
			off, b := m.rng.Int64N(int64(len(v.data))/chunkSize)*chunkSize+2048, byte(m.rng.IntN(256))
			n := min(chunkSize, int64(len(v.data))-off)
			m.p.write(name, off, n, b)
			copy(v.data[off:], bytes.Repeat([]byte{b}, int(n)))
			want = nil
		}
	case 4:
		what = "snapshot " + name + "@" + snap
		_, err = m.p.Snapshot(ctx, catalog.Ref{Volume: name, Snapshot: snap})
		if v != nil && v.snapshots[snap] != nil {
			want = catalog.ErrExists
		} else if v != nil {
			v.snapshots[snap] = bytes.Clone(v.data)
		}
	case 5:
		what = "clone " + name + "@" + snap + " " + fresh
		_, err = m.p.Clone(ctx, catalog.Ref{Volume: name, Snapshot: snap}, fresh, catalog.CloneOptions{})
		switch {
		case taken(fresh) != nil:
			want = catalog.ErrExists
		case v == nil || v.snapshots[snap] == nil:
			want = catalog.ErrNotFound
		default:
			m.volumes[fresh] = &modelVolume{name: fresh, data: bytes.Clone(v.snapshots[snap]), snapshots: map[string][]byte{}, parent: v, from: snap}
		}
	case 6:
		what = "clone " + name + " " + fresh
		_, err = m.p.Clone(ctx, catalog.Ref{Volume: name}, fresh, catalog.CloneOptions{})
		if taken(fresh) != nil {
			want = catalog.ErrExists
		} else if v != nil {
			m.volumes[fresh] = &modelVolume{name: fresh, data: bytes.Clone(v.data), snapshots: map[string][]byte{}, parent: v}
		}
	case 7:
		what = "rename " + name + " " + fresh
		err = m.p.Rename(ctx, name, fresh)
		switch {
		case v == nil || name == fresh:
		case taken(fresh) != nil:
			want = catalog.ErrExists
		default:
			delete(m.volumes, name)
			m.volumes[fresh], v.name = v, fresh
		}
	case 8:
		what = "remove " + name
		with := m.rng.IntN(2) == 0
		_, err = m.p.Remove(ctx, catalog.Ref{Volume: name}, catalog.RemoveOptions{Snapshots: with})
		switch {
		case v == nil:
		case !with && len(v.snapshots) > 0:
			want = catalog.ErrInUse
		default:
			want = m.mayGo(err, v, "")
			if err == nil {
				delete(m.volumes, name)
			}
		}
	case 9:
		what = "remove " + name + "@" + snap
		_, err = m.p.Remove(ctx, catalog.Ref{Volume: name, Snapshot: snap}, catalog.RemoveOptions{})
		if v == nil || v.snapshots[snap] == nil {
			want = catalog.ErrNotFound
			break
		}
		want = m.mayGo(err, v, snap)
		if err == nil {
			delete(v.snapshots, snap)
		}
	case 10:
		what = "roll back " + name + "@" + snap
		err = m.p.Rollback(ctx, catalog.Ref{Volume: name, Snapshot: snap})
		if v == nil || v.snapshots[snap] == nil {
			want = catalog.ErrNotFound
		} else {
			v.data = bytes.Clone(v.snapshots[snap])
		}
	case 11:
		m.restart()
		return
	case 12:
		what = "remove " + name + " to the trash"
		_, err = m.p.Remove(ctx, catalog.Ref{Volume: name}, catalog.RemoveOptions{Snapshots: true, Trash: time.Hour})
		if v != nil {
			want = m.mayGo(err, v, "")
			if err == nil {
				delete(m.volumes, name)
				m.trash = append(m.trash, v)
			}
		}
	case 13:
		what, err, want = m.restore(fresh)
	case 14:
		what, err, want = m.purge(fresh)
	case 20:
		m.harm()
		return
	case 15, 16:
		what, err, want = m.read(name, snap)
	case 17:
		what = "flatten " + name
		err = m.p.Flatten(ctx, name, nil)
	case 18, 19:
		o := catalog.ResizeOptions{Size: 512 * (1 + m.rng.Int64N(2*mib/512)), Shrink: m.rng.IntN(2) == 0}
		o.Size = max(o.Size, chunkSize)
		if v != nil && m.rng.IntN(2) == 0 {
			o.Size, o.By = o.Size-int64(len(v.data)), true
		}
		what = fmt.Sprintf("resize %s %+v", name, o)
		_, err = m.p.Resize(ctx, name, o)
		if v == nil {
			break
		}
		if o.By {
			o.Size += int64(len(v.data))
		}
		if o.Size < int64(len(v.data)) && !o.Shrink {
			want = drivers.ErrInvalid
			break
		}
		v.data = append(v.data[:min(len(v.data), int(o.Size))], make([]byte, max(0, int(o.Size)-len(v.data)))...)
	}
	if what != "" && !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

// mayGo returns what a removal of a volume, or of one of its snapshots, must have said. Clones that reach nothing of it any more may, but need
// not, stand in the way.
func (m *model) mayGo(err error, v *modelVolume, snap string) error {
	if m.reader.dev != nil && m.reader.of == v && (snap == "" || snap == m.reader.snap) {
		return catalog.ErrInUse
	}
	for _, c := range slices.Concat(slices.Collect(maps.Values(m.volumes)), m.trash) {
		if c.parent != v || snap != "" && c.from != snap {
			continue
		}
		if errors.Is(err, catalog.ErrInUse) {
			return catalog.ErrInUse
		}
		c.parent = nil // it was collected as one that has parted
	}
	return nil
}

// restart goes on in a new process, after a clean end, the death of the process or that of the machine, and sometimes collects.
func (m *model) restart() {
	m.t.Helper()
	switch m.rng.IntN(3) {
	case 0:
		m.endReading()
		m.p.stop()
	case 1:
		m.storage = m.storage.Kill()
		m.p.die()
	case 2:
		m.storage = m.storage.Crash(mem.KeepRandom(m.rng))
		m.p.die()
		m.boot++
	}
	m.abandonReading()
	m.p = start(m.t, m.storage, m.boot)
	m.p.check()
	if m.rng.IntN(2) == 0 {
		m.p.collect()
		m.p.clean()
	}
	if m.rng.IntN(2) == 0 {
		m.p.sound()
	}
	m.verify()
}

// verify compares all there is.
func (m *model) verify() {
	m.t.Helper()
	infos, err := m.p.List(m.t.Context())
	m.p.ok(err)
	if len(infos) != len(m.volumes) {
		m.t.Fatalf("the pool has %d volumes, the model %d", len(infos), len(m.volumes))
	}
	trash, err := m.p.Trash(m.t.Context())
	m.p.ok(err)
	if len(trash) != len(m.trash) {
		m.t.Fatalf("the trash has %+v, the model %d", trash, len(m.trash))
	}
	for _, i := range infos {
		v := m.volumes[i.Name]
		if v == nil || len(v.snapshots) != len(i.Snapshots) || i.Size != int64(len(v.data)) {
			m.t.Fatalf("the pool has %+v", i)
		}
		m.same(i.Name, v.data)
		for s, data := range v.snapshots {
			m.same(i.Name+"@"+s, data)
		}
	}
}

func (m *model) same(name string, want []byte) {
	m.t.Helper()
	got := m.p.content(name, int64(len(want)))
	if !bytes.Equal(got, want) {
		m.t.Fatalf("%s is not what it should be", name)
	}
}

// removeAll removes everything, clones first, and wants nothing left.
func (m *model) removeAll() {
	m.t.Helper()
	for n := len(m.trash); n > 0; n = len(m.trash) {
		name := "restored" + strconv.Itoa(n)
		if _, err, want := m.restoreAs(m.trash[n-1].name, name); err != nil || want != nil {
			m.t.Fatalf("restore %s: %v, want %v", name, err, want)
		}
	}
	m.verify()
	for len(m.volumes) > 0 {
		before := len(m.volumes)
		for _, name := range slices.Sorted(maps.Keys(m.volumes)) {
			_, err := m.p.Remove(m.t.Context(), catalog.Ref{Volume: name}, catalog.RemoveOptions{Snapshots: true})
			if err == nil {
				delete(m.volumes, name)
			} else if !errors.Is(err, catalog.ErrInUse) {
				m.t.Fatal(err)
			}
		}
		if len(m.volumes) == before {
			m.t.Fatalf("%d volumes cannot be removed", before)
		}
	}
	m.p.collect()
	m.p.stop()
	if left := objects(m.t, m.storage, "v"); len(left) > 0 {
		m.t.Fatalf("left: %q", left)
	}
}
