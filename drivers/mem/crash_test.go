package mem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"skerry/drivers"
	"skerry/drivers/mem"
)

// store makes short work of a backend.
type store struct {
	*testing.T
	b   *mem.Backend
	ctx context.Context
}

func newStore(t *testing.T, o mem.Options) store { return store{t, mem.New(o), t.Context()} }

func (s store) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s store) open(name string, mode drivers.Mode) drivers.Object {
	s.Helper()
	o, err := s.b.Open(s.ctx, name, mode)
	s.must(err)
	return o
}

func (s store) after(keep mem.Keep) store { return store{s.T, s.b.Crash(keep), s.ctx} }

// content returns an object's bytes, "-" if there is none.
func (s store) content(name string) string {
	s.Helper()
	data, err := s.b.Load(s.ctx, name)
	if errors.Is(err, drivers.ErrNotFound) {
		return "-"
	}
	s.must(err)
	return string(data)
}

func (s store) wants(name, want string) {
	s.Helper()
	if got := s.content(name); got != want {
		s.Errorf("%s is %.100q, want %.100q", name, got, want)
	}
}

func TestCrashKeepsWhatWasSynced(t *testing.T) {
	s := newStore(t, mem.Options{})
	o := s.open("g/o", drivers.Create)
	s.must(o.WriteAt([]byte("synced"), 0))
	s.must(o.Sync())
	s.after(mem.KeepNone).wants("g/o", "-") // the name was not
	s.after(mem.KeepAll).wants("g/o", "synced")
	s.must(s.b.SyncGroup(s.ctx, "other"))
	s.after(mem.KeepNone).wants("g/o", "-")
	s.must(s.b.SyncGroup(s.ctx, "g"))
	s.after(mem.KeepNone).wants("g/o", "synced")

	s.must(o.WriteAt([]byte("SY"), 0))
	s.after(mem.KeepNone).wants("g/o", "synced")
	s.after(mem.KeepAll).wants("g/o", "SYnced")
	s.must(s.b.SyncGroup(s.ctx, "g")) // which syncs no content
	s.after(mem.KeepNone).wants("g/o", "synced")
	s.wants("g/o", "SYnced") // the old backend has lost nothing

	s.must(s.b.Unlink(s.ctx, "g/o"))
	s.must(o.WriteAt([]byte("!"), 0)) // still open
	s.after(mem.KeepNone).wants("g/o", "synced")
	s.after(mem.KeepAll).wants("g/o", "-")
	s.must(s.b.SyncGroup(s.ctx, "g"))
	s.after(mem.KeepNone).wants("g/o", "-")
}

func TestReplaceIsDurableAtOnce(t *testing.T) {
	s := newStore(t, mem.Options{})
	s.must(s.b.Replace(s.ctx, "g/r", []byte("one"), drivers.Condition{}))
	s.after(mem.KeepNone).wants("g/r", "one")
	s.must(s.b.Replace(s.ctx, "g/r", []byte("two"), drivers.Condition{}))
	s.after(mem.KeepNone).wants("g/r", "two")
	// Not even an earlier removal that was not synced takes it away.
	s.must(s.b.Unlink(s.ctx, "g/r"))
	s.after(mem.KeepNone).wants("g/r", "two")
	s.must(s.b.Replace(s.ctx, "g/r", []byte("three"), drivers.Condition{Absent: true}))
	s.after(mem.KeepAll).wants("g/r", "three")
	s.after(mem.KeepNone).wants("g/r", "three")
	// A write to it is as volatile as any.
	s.must(s.open("g/r", drivers.ReadWrite).WriteAt([]byte("THREE"), 0))
	s.after(mem.KeepNone).wants("g/r", "three")
}

func TestDurableWritesSurvive(t *testing.T) {
	s := newStore(t, mem.Options{DurableWrites: true})
	o := s.open("o", drivers.Create)
	s.must(s.b.SyncGroup(s.ctx, ""))
	s.must(o.WriteAt([]byte("data"), 0))
	s.after(mem.KeepNone).wants("o", "data")
	p := s.open("p", drivers.Create)
	s.must(p.WriteAt([]byte("data"), 0))
	s.after(mem.KeepNone).wants("p", "-")
	if got := s.b.Pending(); !slices.Equal(got, []mem.Mutation{{Kind: drivers.OpCreate, Name: "p"}}) {
		t.Errorf("pending %v", got)
	}
}

func TestCrashKeepsSectorsThatItIsTold(t *testing.T) {
	s := newStore(t, mem.Options{})
	old, fresh := bytes.Repeat([]byte("o"), 2048), bytes.Repeat([]byte("N"), 1500)
	o := s.open("o", drivers.Create)
	s.must(o.WriteAt(old, 0))
	s.must(o.Sync())
	s.must(s.b.SyncGroup(s.ctx, ""))
	s.must(o.WriteAt(fresh, 100)) // touches the sectors 0 to 3
	var seen []mem.Mutation
	got := s.after(func(m mem.Mutation) mem.Kept {
		seen = append(seen, m)
		return mem.Sectors(func(i int) bool { return i == 0 || i == 2 })
	}).content("o")
	if len(seen) != 1 || seen[0].Sectors() != 4 || seen[0].Name != "o" || seen[0].Kind != drivers.OpWrite {
		t.Errorf("asked of %+v", seen)
	}
	want := bytes.Clone(old)
	copy(want[100:512], fresh)
	copy(want[1024:1536], fresh)
	if got != string(want) {
		t.Errorf("got %q", got)
	}
}

// TestNoSectorMixesTime: the second of two changes of one sector never shows without the first.
func TestNoSectorMixesTime(t *testing.T) {
	for name, second := range map[string]func(o drivers.Object) error{
		"write": func(o drivers.Object) error { return o.WriteAt([]byte("second"), 10) },
		"punch": func(o drivers.Object) error { return o.(drivers.Puncher).PunchHole(10, 6) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, mem.Options{})
			o := s.open("o", drivers.Create)
			s.must(o.WriteAt(make([]byte, 1024), 0))
			s.must(o.Sync())
			s.must(s.b.SyncGroup(s.ctx, ""))
			s.must(o.WriteAt([]byte("first"), 0))
			s.must(o.WriteAt([]byte("first"), 20))
			s.must(second(o))
			want := s.content("o")
			n := 0
			s.after(func(mem.Mutation) mem.Kept {
				if n++; n == 3 {
					return mem.Everything()
				}
				return mem.Nothing()
			}).wants("o", want)
		})
	}
}

func TestPunchOfPartsOfSectors(t *testing.T) {
	s := newStore(t, mem.Options{})
	o := s.open("o", drivers.Create)
	s.must(o.WriteAt(bytes.Repeat([]byte("x"), 20_000), 0))
	s.must(o.Sync())
	s.must(s.b.SyncGroup(s.ctx, ""))
	for _, r := range [][2]int64{{100, 50}, {511, 2}, {1024, 512}, {3000, 9000}, {19_990, 100}, {15_360, 600}, {30_000, 5}} {
		s.must(o.(drivers.Puncher).PunchHole(r[0], r[1]))
		s.after(mem.KeepAll).wants("o", s.content("o"))
	}
	s.after(mem.KeepNone).wants("o", string(bytes.Repeat([]byte("x"), 20_000)))
	s.must(o.Sync())
	s.after(mem.KeepNone).wants("o", s.content("o"))
}

// TestCrashIsOldOrNew: whatever is kept, each sector is one of the versions since the last sync.
func TestCrashIsOldOrNew(t *testing.T) {
	const seed, sectors = 42, 32
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		s := newStore(t, mem.Options{})
		o := s.open("o", drivers.Create)
		s.must(s.b.SyncGroup(s.ctx, ""))
		versions := make([]map[string]bool, sectors)
		note := func(reset bool) {
			p := make([]byte, sectors*mem.SectorSize)
			s.must(o.ReadAt(p, 0))
			for i := range versions {
				if reset {
					versions[i] = map[string]bool{}
				}
				versions[i][string(p[i*mem.SectorSize:][:mem.SectorSize])] = true
			}
		}
		s.must(o.WriteAt(make([]byte, sectors*mem.SectorSize), 0))
		s.must(o.Sync())
		note(true)
		for step := range 30 {
			off := rng.Int64N(sectors * mem.SectorSize)
			n := 1 + rng.Int64N(min(3000, sectors*mem.SectorSize-off))
			switch rng.IntN(8) {
			case 0:
				s.must(o.(drivers.Puncher).PunchHole(off, n))
				note(false)
			case 1:
				s.must(o.Sync())
				note(true)
			default:
				s.must(o.WriteAt(bytes.Repeat([]byte{byte(step + 1)}, int(n)), off))
				note(false)
			}
			got := s.after(mem.KeepRandom(rng)).content("o")
			for i := range versions {
				if !versions[i][got[i*mem.SectorSize:][:mem.SectorSize]] {
					t.Fatalf("step %d: sector %d is neither old nor new", step, i)
				}
			}
		}
	}
}

func TestKillKeepsEverythingButLocks(t *testing.T) {
	s := newStore(t, mem.Options{})
	o := s.open("o", drivers.Create)
	s.must(o.WriteAt([]byte("data"), 0))
	_, err := s.b.Lock(s.ctx, "i")
	s.must(err)
	k := store{t, s.b.Kill(), s.ctx}
	k.wants("o", "data")
	if got, want := fmt.Sprint(k.b.Pending()), fmt.Sprint(s.b.Pending()); got != want {
		t.Errorf("pending %v, want %v", got, want)
	}
	l, err := k.b.Lock(k.ctx, "i")
	k.must(err)
	k.must(l.Close())
	if _, err := s.b.Lock(s.ctx, "i"); !errors.Is(err, drivers.ErrLocked) {
		t.Errorf("the old backend lost its lock: %v", err)
	}
	// Each goes its own way.
	s.must(o.WriteAt([]byte("OLD "), 0))
	k.wants("o", "data")
	k.must(k.open("o", drivers.ReadWrite).WriteAt([]byte("NEW "), 0))
	s.wants("o", "OLD ")
	k.wants("o", "NEW ")
	k.after(mem.KeepNone).wants("o", "-") // a power loss after a death
	k.must(k.open("o", drivers.ReadOnly).Sync())
	k.must(k.b.SyncGroup(k.ctx, ""))
	k.after(mem.KeepNone).wants("o", "NEW ")
	s.after(mem.KeepNone).wants("o", "-")
}

func TestSpaceRunsOut(t *testing.T) {
	s := newStore(t, mem.Options{})
	s.b.SetSpace(5 * 4096)
	o := s.open("o", drivers.Create)
	s.must(o.WriteAt(make([]byte, 3*4096), 0))
	full := func(err error) {
		t.Helper()
		if !errors.Is(err, drivers.ErrNoSpace) {
			t.Errorf("got %v, want no space", err)
		}
	}
	full(o.WriteAt(make([]byte, 4*4096), 3*4096))
	if n, _ := o.Size(); n != 3*4096 || s.b.Used() != 3*4096 {
		t.Errorf("a failed write left size %d, used %d", n, s.b.Used())
	}
	s.must(o.WriteAt(make([]byte, 3*4096), 0)) // in place
	full(s.b.Replace(s.ctx, "r", make([]byte, 3*4096), drivers.Condition{}))
	s.wants("r", "-")
	s.must(o.(drivers.Allocator).Allocate(3*4096, 2*4096))
	full(s.b.Replace(s.ctx, "r", []byte("x"), drivers.Condition{}))
	s.must(o.WriteAt(make([]byte, 2*4096), 3*4096)) // which was reserved
	s.must(o.(drivers.Puncher).PunchHole(0, 4096))
	s.must(s.b.Replace(s.ctx, "r", []byte("x"), drivers.Condition{}))
	full(s.b.Replace(s.ctx, "r", []byte("y"), drivers.Condition{})) // needs both for a moment
	s.must(s.b.Unlink(s.ctx, "o"))
	if s.b.Used() != 4096 {
		t.Errorf("used %d, want 4096", s.b.Used())
	}
	s.must(o.WriteAt(make([]byte, 100*4096), 0)) // without a name it counts nothing
	if c := s.after(mem.KeepAll); c.b.Used() != 4096 {
		t.Errorf("after a crash used %d, want 4096", c.b.Used())
	}
	if k := s.b.Kill(); k.Used() != 4096 {
		t.Errorf("after a kill used %d, want 4096", k.Used())
	}
	s.b.SetSpace(0)
	s.must(s.b.Replace(s.ctx, "r", make([]byte, 10*4096), drivers.Condition{}))
}

// BenchmarkCrash is what one crash point costs with 4 MiB of content in 100 objects.
func BenchmarkCrash(b *testing.B) {
	m := mem.New(mem.Options{})
	for i := range 100 {
		o, err := m.Open(b.Context(), fmt.Sprintf("g/%d", i), drivers.Create)
		if err != nil {
			b.Fatal(err)
		}
		if err := o.WriteAt(make([]byte, 40<<10), 0); err != nil {
			b.Fatal(err)
		}
		if i%10 > 0 {
			if err := o.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		m.Crash(mem.KeepRandom(rng))
	}
}
