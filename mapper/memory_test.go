package mapper

import (
	"context"
	"runtime"
	"testing"

	"skerry/chunk"
)

// fullStore makes pages, all chunks of which have one full layer, as they are loaded.
type fullStore struct {
	volume chunk.VolumeID
	geom   chunk.Geometry
	loads  int
}

func (s *fullStore) Load(_ context.Context, name string) ([]byte, error) {
	s.loads++
	serial, _ := chunk.ParseSerialName(name)
	return fullPage(s.volume, s.geom, uint64(serial.Counter()-1), serial), nil
}

func fullPage(volume chunk.VolumeID, g chunk.Geometry, number uint64, serial chunk.Serial) []byte {
	c := &content{}
	for i := range c.entries {
		c.entries[i], _ = compact(0, chunk.MakeSerial(1, uint32(i+1)))
	}
	return encodePage(c, volume, number, serial, g, []chunk.VolumeID{volume})
}

// fullMap returns a map of a volume without a hole.
func fullMap(t testing.TB, size, limit int64) (*Map, *fullStore) {
	g := geometry(t, chunk.DefaultSize)
	s := &fullStore{volume: chunk.NewVolumeID(), geom: g}
	refs := make([]PageRef, PageCount(g, size))
	for i := range refs {
		refs[i] = PageRef{Number: uint64(i), Serial: chunk.MakeSerial(1, uint32(i+1))}
	}
	return New(s, s.volume, g, size, []chunk.VolumeID{s.volume}, refs, 0, limit), s
}

// heap returns the bytes in use after f, compared with before.
func heap(f func()) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

func TestMapsTakeLittleMemory(t *testing.T) {
	for _, c := range []struct {
		name       string
		size, most int64
		step       uint64 // pages
		fewer      bool   // not all fit
	}{
		{"4 TiB, all pages read", 4 << 40, 20 << 20, 1, false},
		{"1 PiB, some pages read", 1 << 50, 48 << 20, 50, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m *Map
			var s *fullStore
			used := heap(func() {
				m, s = fullMap(t, c.size, 32<<20)
				for n := uint64(0); n < uint64(len(m.table())); n += c.step {
					if err := m.Ready(t.Context(), n*PageChunks); err != nil {
						t.Fatal(err)
					}
					if segs, ok := m.PlanRead(n*PageChunks+n%PageChunks, 0, chunk.DefaultSize, nil); !ok || len(segs) != 1 {
						t.Fatalf("page %d: %v, %v", n, segs, ok)
					}
				}
			})
			t.Logf("%d pages loaded: %d KiB", s.loads, used>>10)
			if used > c.most {
				t.Errorf("%d bytes in use, want at most %d", used, c.most)
			}
			kept := 0
			for i := range m.table() {
				if m.table()[i].Load() != nil {
					kept++
				}
			}
			if (kept < s.loads) != c.fewer || kept == 0 {
				t.Errorf("%d of %d pages are kept", kept, s.loads)
			}
			runtime.KeepAlive(m)
		})
	}
}

// TestPebibyteTakesTwoGigabytesOfPages computes it from one page.
func TestPebibyteTakesTwoGigabytesOfPages(t *testing.T) {
	g := geometry(t, chunk.DefaultSize)
	page := int64(len(fullPage(chunk.NewVolumeID(), g, 1, 1)))
	if total := page * int64(PageCount(g, 1<<50)); total > 22e8 {
		t.Errorf("pages of %d bytes, %d altogether", page, total)
	}
}

// TestPlansAllocateNothing plans a read and a change of a chunk with one full layer, and of one with two.
func TestPlansAllocateNothing(t *testing.T) {
	m, _ := fullMap(t, 1<<40, 1<<20)
	if _, err := m.Publish(t.Context(), 1, chunk.MakeSerial(2, 1), 5, 9, false, nil); err != nil {
		t.Fatal(err)
	}
	var room [4]Segment
	for index, want := range []int{1, 3} {
		allocs := testing.AllocsPerRun(100, func() {
			if segs, ok := m.PlanRead(uint64(index), 0, chunk.DefaultSize, room[:0]); !ok || len(segs) != want {
				t.Errorf("%v, %v", segs, ok)
			}
			if plan, ok := m.Plan(uint64(index), 5, 9); !ok || !plan.InPlace {
				t.Errorf("%+v, %v", plan, ok)
			}
		})
		if allocs != 0 {
			t.Errorf("chunk %d: %v allocations", index, allocs)
		}
	}
}

// TestLoadingAPageAllocatesLittle keeps nothing for each of its entries.
func TestLoadingAPageAllocatesLittle(t *testing.T) {
	id, g := chunk.NewVolumeID(), geometry(t, chunk.DefaultSize)
	page := fullPage(id, g, 0, 1)
	want := pageIdentity{volume: id, serial: 1, geom: g}
	allocs := testing.AllocsPerRun(10, func() {
		if _, err := decodePage(page, want, func(chunk.VolumeID) (uint16, error) { return 0, nil }); err != nil {
			t.Error(err)
		}
	})
	if allocs > 10 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkPlanRead(b *testing.B) {
	m, _ := fullMap(b, 1<<40, 1<<20)
	if err := m.Ready(b.Context(), 0); err != nil {
		b.Fatal(err)
	}
	var room [4]Segment
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := m.PlanRead(5, 8192, 4096, room[:0]); !ok {
			b.Fatal("not in memory")
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	m, _ := fullMap(b, 1<<40, 1<<20)
	if err := m.Ready(b.Context(), 0); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if plan, ok := m.Plan(5, 2, 3); !ok || !plan.InPlace {
			b.Fatal("not in place")
		}
	}
}

// BenchmarkPublish grows one layer block by block.
func BenchmarkPublish(b *testing.B) {
	id, g := chunk.NewVolumeID(), geometry(b, chunk.DefaultSize)
	m := New(newMemStore(), id, g, g.Size(), []chunk.VolumeID{id}, nil, 0, 1<<20)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		block := i % g.Blocks()
		if _, err := m.Publish(b.Context(), 0, chunk.MakeSerial(1, uint32(1+i/g.Blocks())), block, block+1, false, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadPage(b *testing.B) {
	id, g := chunk.NewVolumeID(), geometry(b, chunk.DefaultSize)
	page := fullPage(id, g, 0, 1)
	want := pageIdentity{volume: id, serial: 1, geom: g}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodePage(page, want, func(chunk.VolumeID) (uint16, error) { return 0, nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// TestInheritedOfAnEmptyMapMakesNoPages: a huge volume has a million pages, nearly all of zeros.
func TestInheritedOfAnEmptyMapMakesNoPages(t *testing.T) {
	geom, err := chunk.NewGeometry(chunk.DefaultSize)
	if err != nil {
		t.Fatal(err)
	}
	id := chunk.NewVolumeID()
	m := New(nil, id, geom, MaxVolumeSize, []chunk.VolumeID{id}, nil, 0, 1<<20)
	for n := range m.PageCount() {
		if list, err := m.Inherited(t.Context(), n, nil); err != nil || len(list) > 0 || m.table()[n].Load() != nil {
			t.Fatalf("page %d: %v, %v", n, list, err)
		}
	}
}
