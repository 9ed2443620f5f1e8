package chunk_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"skerry/chunk"
)

// someNumber favours the edges.
func someNumber(rng *rand.Rand) uint64 {
	switch rng.IntN(4) {
	case 0:
		return []uint64{0, 1, 9, 10, 15, 16, 255, 256, math.MaxUint32, math.MaxUint64, 1 << 16, 1<<16 - 1, 1 << 28}[rng.IntN(13)]
	default:
		return rng.Uint64() >> rng.IntN(64)
	}
}

func someSerial(rng *rand.Rand) chunk.Serial {
	return chunk.MakeSerial(uint32(someNumber(rng)), uint32(someNumber(rng)))
}

func TestNamesReadBack(t *testing.T) {
	rng := random(t)
	for range 2000 {
		id, clone, s, index := chunk.NewVolumeID(), chunk.NewVolumeID(), someSerial(rng), someNumber(rng)
		if got, err := chunk.ParseVolumeID(id.String()); err != nil || got != id {
			t.Fatalf("id %v became %v: %v", id, got, err)
		}
		if g, ok := chunk.ParseRootName(chunk.RootName(id, s.Generation())); !ok || g != s.Generation() {
			t.Fatalf("root of generation %x became %x, %v", s.Generation(), g, ok)
		}
		for _, group := range []chunk.Group{chunk.Pages, chunk.Journals, chunk.Snapshots} {
			name := chunk.SerialName(id, group, s)
			if got, ok := chunk.ParseSerialName(name); !ok || got != s {
				t.Fatalf("%s became %v, %v", name, got, ok)
			}
			if gotID, gotGroup, ok := chunk.ParseVolume(name); !ok || gotID != id || gotGroup != group {
				t.Fatalf("%s became %v %v, %v", name, gotID, gotGroup, ok)
			}
		}
		name := chunk.RegistrationName(id, s, clone)
		if snap, c, ok := chunk.ParseRegistrationName(name); !ok || snap != s || c != clone {
			t.Fatalf("%s became %v %v, %v", name, snap, c, ok)
		}
		name = chunk.ReaderName(id, s, clone, index)
		if snap, c, n, ok := chunk.ParseReaderName(name); !ok || snap != s || c != clone || n != index {
			t.Fatalf("%s became %v %x %x, %v", name, snap, c, n, ok)
		}
		name = chunk.DataName(id, index, s)
		if i, got, ok := chunk.ParseDataName(name); !ok || i != index || got != s {
			t.Fatalf("%s became %x %v, %v", name, i, got, ok)
		}
		if group, _, _ := cutLast(name); group != chunk.DataGroup(id, index) {
			t.Fatalf("%s does not lie in %s", name, chunk.DataGroup(id, index))
		}
		if gotID, group, ok := chunk.ParseVolume(name); !ok || gotID != id || group != chunk.Data {
			t.Fatalf("%s became %v %v, %v", name, gotID, group, ok)
		}
	}
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '/')
	return s[:max(i, 0)], s[i+1:], i >= 0
}

// TestNamesStay shows all names as text: what is stored is found again by later versions.
func TestNamesStay(t *testing.T) {
	id := chunk.VolumeID{0: 0x0f, 15: 0xa0}
	clone := chunk.VolumeID{15: 1}
	s := chunk.MakeSerial(0x1a, 0xff)
	const v = "v/0f0000000000000000000000000000a0"
	for got, want := range map[string]string{
		chunk.PoolName:                                      "pool",
		chunk.NameRecord("vm1"):                             "names/vm1",
		chunk.TrashRecord(id):                               "trash/0f0000000000000000000000000000a0",
		chunk.InstanceName("n0"):                            "instances/n0",
		chunk.VolumesGroup():                                "v",
		chunk.VolumeGroup(id):                               v,
		chunk.GroupName(id, chunk.Registrations):            v + "/reg",
		chunk.RootName(id, 0x1a):                            v + "/root/0000001a",
		chunk.RootName(id, math.MaxUint32):                  v + "/root/ffffffff",
		chunk.SerialName(id, chunk.Pages, s):                v + "/page/1a.ff",
		chunk.SerialName(id, chunk.Journals, s):             v + "/journal/1a.ff",
		chunk.SerialName(id, chunk.Snapshots, s):            v + "/snap/1a.ff",
		chunk.RegistrationName(id, s, clone):                v + "/reg/1a.ff+00000000000000000000000000000001",
		chunk.ReaderName(id, s, clone, 0x1f):                v + "/reader/1a.ff+00000000000000000000000000000001.1f",
		chunk.DataName(id, 0xffff, s):                       v + "/data/0/ffff.1a.ff",
		chunk.DataName(id, 0x10000, s):                      v + "/data/1/10000.1a.ff",
		chunk.DataName(id, math.MaxUint64, ^s&s):            v + "/data/ffffffffffff/ffffffffffffffff.0.0",
		chunk.DataGroup(id, 0x2ffff):                        v + "/data/2",
		string(chunk.AppendDataName([]byte("x"), id, 0, s)): "x" + v + "/data/0/0.1a.ff",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestNamesOfDifferentThingsDiffer(t *testing.T) {
	// Each of these would be the other's if parts were joined without care.
	id := chunk.VolumeID{1}
	seen := map[string]bool{}
	for _, index := range []uint64{0, 1, 0x11, 0x111, 0x1111111111} {
		for _, g := range []uint32{1, 0x11, 0x111} {
			for _, c := range []uint32{1, 0x11, 0x111} {
				name := chunk.DataName(id, index, chunk.MakeSerial(g, c))
				if seen[name] {
					t.Errorf("%s is used twice", name)
				}
				seen[name] = true
			}
		}
	}
}

// TestB11OnlyWhatWasWrittenParses takes what looks like a name and is none.
func TestB11OnlyWhatWasWrittenParses(t *testing.T) {
	id := strings.Repeat("0a", 16)
	for _, s := range []string{
		"", "0", id[1:], id + "0", id + "\n", " " + id[1:], strings.ToUpper(id), id[:31] + "g", id[:30] + "0x", strings.Repeat("é", 16),
		"{" + id[1:31] + "}", "urn:uuid:" + id[9:],
	} {
		if got, err := chunk.ParseVolumeID(s); err == nil {
			t.Errorf("id %q became %v", s, got)
		} else if !got.IsZero() {
			t.Errorf("id %q: %v in spite of %v", s, got, err)
		}
	}
	for _, s := range []string{"", "1", "0000001", "000000001", "0000000A", "+0000001", "-0000001", "0x000001", "00_00001", "0000001\x00", "00000001 ", "0000001g", "00000001.1", "00000001/"} {
		if g, ok := chunk.ParseRootName("v/x/root/" + s); ok {
			t.Errorf("root %q became %x", s, g)
		}
	}
	for _, s := range []string{
		"", ".", "1", "1.", ".1", "1.1.1", "01.1", "1.01", "00.0", "1.A", "A.1", "+1.1", "1.-1", "0x1.1", "1_0.1", " 1.1", "1.1 ", "1.1+", "100000000.1", "1.100000000",
		"1.1\n", "1..1", "1,1", "1.1.tmp",
	} {
		if serial, ok := chunk.ParseSerialName("v/x/page/" + s); ok {
			t.Errorf("serial %q became %v", s, serial)
		}
		if i, serial, ok := chunk.ParseDataName("v/x/data/0/7." + s); ok {
			t.Errorf("data 7.%q became %x %v", s, i, serial)
		}
		if snap, c, ok := chunk.ParseRegistrationName("v/x/reg/" + s + "+" + id); ok {
			t.Errorf("registration %q became %v %v", s, snap, c)
		}
	}
	for _, s := range []string{"", "1.1", "07.1.1", "x.1.1", "A.1.1", "-7.1.1", "+7.1.1", "10000000000000000.1.1", "7.1.1.1", "7.1.1~", ".1.1"} {
		if i, serial, ok := chunk.ParseDataName("v/x/data/0/" + s); ok {
			t.Errorf("data %q became %x %v", s, i, serial)
		}
	}
	for _, s := range []string{"1.1", "1.1+", "1.1+" + id[1:], "1.1+" + id + "0", "1.1+" + strings.ToUpper(id), "1.1++" + id, "+" + id, "1.1 " + id, id + "+1.1"} {
		if snap, c, ok := chunk.ParseRegistrationName("v/x/reg/" + s); ok {
			t.Errorf("registration %q became %v %v", s, snap, c)
		}
	}
	for _, s := range []string{"", "v", "v/", "v/" + id, "v/" + id + "/root", "V/" + id + "/root/1", "v/" + id[1:] + "/root/1", "/v/" + id + "/root/1", "v//" + id + "/root", "names/" + id + "/root/1"} {
		if got, group, ok := chunk.ParseVolume(s); ok {
			t.Errorf("%q became %v %v", s, got, group)
		}
	}
}

func TestSerialsAreOrdered(t *testing.T) {
	rng := random(t)
	for range 1000 {
		g, c, h, d := uint32(someNumber(rng)), uint32(someNumber(rng)), uint32(someNumber(rng)), uint32(someNumber(rng))
		a, b := chunk.MakeSerial(g, c), chunk.MakeSerial(h, d)
		if a.Generation() != g || a.Counter() != c {
			t.Fatalf("(%x, %x) became %v", g, c, a)
		}
		if (a < b) != (g < h || g == h && c < d) {
			t.Fatalf("order of %v and %v", a, b)
		}
	}
}

func TestVolumeIDsAreFresh(t *testing.T) {
	seen := map[chunk.VolumeID]bool{{}: true}
	for range 1000 {
		id := chunk.NewVolumeID()
		if seen[id] || id.IsZero() {
			t.Fatalf("id %v again", id)
		}
		seen[id] = true
	}
	if !(chunk.VolumeID{}).IsZero() || (chunk.VolumeID{15: 1}).IsZero() {
		t.Error("IsZero is wrong")
	}
}

func TestAppendDataNameAllocatesNothing(t *testing.T) {
	id, buf := chunk.NewVolumeID(), make([]byte, 0, 128)
	allocs := testing.AllocsPerRun(100, func() {
		buf = chunk.AppendDataName(buf[:0], id, math.MaxUint64, ^chunk.Serial(0))
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkAppendDataName(b *testing.B) {
	id, buf := chunk.NewVolumeID(), make([]byte, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		buf = chunk.AppendDataName(buf[:0], id, 0x123456, chunk.MakeSerial(3, 0x1234))
	}
}

// FuzzParse shows that each name that parses is the one that is written for what it became.
func FuzzParse(f *testing.F) {
	id := chunk.VolumeID{1, 2, 3}
	s := chunk.MakeSerial(7, 0x1f)
	for _, name := range []string{
		id.String(), chunk.RootName(id, 7), chunk.SerialName(id, chunk.Pages, s), chunk.RegistrationName(id, s, id), chunk.ReaderName(id, s, id, 7), chunk.DataName(id, 0x12345, s), "", "/", "v//data/0/..",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		_, last, _ := cutLast(name)
		same := func(ok bool, written string) {
			if _, w, _ := cutLast(written); ok && w != last {
				t.Errorf("%q parses, but what it became is written %q", last, w)
			}
		}
		if got, err := chunk.ParseVolumeID(name); err == nil && got.String() != name {
			t.Errorf("id %q became %v", name, got)
		}
		g, ok := chunk.ParseRootName(name)
		same(ok, chunk.RootName(id, g))
		serial, ok := chunk.ParseSerialName(name)
		same(ok, chunk.SerialName(id, chunk.Pages, serial))
		trashed, ok := chunk.ParseTrashRecord(name)
		same(ok, chunk.TrashRecord(trashed))
		snap, clone, ok := chunk.ParseRegistrationName(name)
		same(ok, chunk.RegistrationName(id, snap, clone))
		snap, instance, n, ok := chunk.ParseReaderName(name)
		same(ok, chunk.ReaderName(id, snap, instance, n))
		index, serial, ok := chunk.ParseDataName(name)
		same(ok, chunk.DataName(id, index, serial))
		if got, group, ok := chunk.ParseVolume(name); ok && !strings.HasPrefix(name, chunk.GroupName(got, group)+"/") {
			t.Errorf("%q became %v %v", name, got, group)
		}
	})
}
