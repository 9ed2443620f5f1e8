package mapper

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"testing"

	"skerry/chunk"
)

// fuzzRecord decodes bodies of any bytes, with their checksum made right. What decodes must be stored as the same bytes.
func fuzzRecord(f *testing.F, name string) {
	var r record
	for _, r = range records() {
		if r.name == name {
			break
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10 {
		b := r.encode(r.some(rng))
		f.Add(b[:len(b)-4])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := sealed(body)
		if v, err := r.decode(b); err == nil && !bytes.Equal(r.encode(v), b) {
			t.Errorf("%x became %+v", body, v)
		}
	})
}

func FuzzRoot(f *testing.F)         { fuzzRecord(f, "root") }
func FuzzSnapshot(f *testing.F)     { fuzzRecord(f, "snapshot") }
func FuzzSeal(f *testing.F)         { fuzzRecord(f, "seal") }
func FuzzNameRecord(f *testing.F)   { fuzzRecord(f, "name") }
func FuzzPoolRecord(f *testing.F)   { fuzzRecord(f, "pool") }
func FuzzSource(f *testing.F)       { fuzzRecord(f, "source") }
func FuzzReaderRecord(f *testing.F) { fuzzRecord(f, "reader") }
func FuzzTrashRecord(f *testing.F)  { fuzzRecord(f, "trash") }

// FuzzPage decodes pages whose entries, but for the first ones, are zeros. What decodes must read the same after it was stored again,
// and be stored as the same bytes from then on.
func FuzzPage(f *testing.F) {
	const some = 8 * 8 // bytes of entries
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10 {
		g := someGeometry(rng)
		c, owners := somePage(rng, g)
		for i := range uint16(PageChunks) {
			if i >= some/8 {
				c.put(i, nil)
			}
		}
		b := encodePage(c, someID(rng), rng.Uint64N(1<<20), 1, g, owners)
		n := pageHeader + 16*int(binary.LittleEndian.Uint16(b[pageHeader-2:]))
		f.Add(b[:n], b[n:n+some], b[n+8*PageChunks:len(b)-4])
	}
	f.Fuzz(func(t *testing.T, header, entries, stacks []byte) {
		if len(entries) > some {
			return
		}
		b := append(bytes.Clone(header), entries...)
		b = append(b, make([]byte, 8*PageChunks-len(entries))...)
		b = sealed(append(b, stacks...))
		d := decoder{b: b[:len(b)-4]}
		d.header(pageMagic)
		want := pageIdentity{volume: d.id(), number: d.u64(), serial: d.serial(), geom: d.geometry()}
		ref := PageRef{Number: want.number, Serial: want.serial}
		layers := func(b []byte) (all []LayerRef, err error) {
			err = EachLayer(b, want.volume, ref, want.geom, func(l LayerRef) error {
				if l.Data < 0 || l.Data > want.geom.Blocks() || l.Chunk/PageChunks != want.number&(1<<54-1) {
					t.Errorf("layer %+v of page %d", l, want.number)
				}
				all = append(all, l)
				return nil
			})
			return all, err
		}
		first, err := layers(b)
		if err != nil {
			return
		}
		again := func(b []byte) []byte {
			c, owners, err := decode(b, want, nil)
			if err != nil {
				t.Fatal(err)
			}
			return encodePage(c, want.volume, want.number, want.serial, want.geom, owners)
		}
		second := again(b)
		got, err := layers(second)
		if err != nil || !reflect.DeepEqual(got, first) {
			t.Fatalf("layers %+v became %+v: %v", first, got, err)
		}
		if !bytes.Equal(again(second), second) {
			t.Fatal("a page that was stored again is stored as other bytes")
		}
		// A map reads all of it.
		m := New(&memStore{pages: map[string][]byte{chunk.SerialName(want.volume, chunk.Pages, want.serial): b}}, want.volume, want.geom,
			PageChunks*want.geom.Size(), []chunk.VolumeID{want.volume}, nil, 0, 0)
		if want.number == 0 && want.serial != 0 {
			m.refs[0] = ref
			for i := range uint64(some / 8) {
				if err := m.Ready(t.Context(), i); err != nil {
					t.Fatal(err)
				}
				m.PlanRead(i, 0, want.geom.Size(), nil)
				m.Plan(i, 0, want.geom.Blocks())
			}
		}
	})
}
