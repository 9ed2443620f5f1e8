package mapper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"skerry/chunk"
)

// somePage returns a page's content as a map has it, and its table of owners.
func somePage(rng *rand.Rand, g chunk.Geometry) (*content, []chunk.VolumeID) {
	owners := make([]chunk.VolumeID, 1+rng.IntN(200))
	for i := range owners {
		owners[i] = someID(rng)
	}
	c := &content{}
	for range rng.IntN(50) {
		i := uint16(rng.IntN(PageChunks))
		var s stack
		for range 1 + rng.IntN(5) {
			first := rng.IntN(g.Blocks())
			l := layer{owner: uint16(rng.IntN(len(owners))), serial: chunk.MakeSerial(1+rng.Uint32N(1<<29), rng.Uint32N(1<<29)), data: chunk.NewBitmap(g.Blocks())}
			switch rng.IntN(4) {
			case 0:
				l.data.Set(first, g.Blocks())
			case 1:
				l.zero = chunk.NewBitmap(g.Blocks())
				l.zero.Set(0, first+1)
			case 2:
				l.full, l.data = true, nil
			default:
				l.zero = chunk.NewBitmap(g.Blocks())
				l.data.Set(0, first)
				l.zero.Set(first, g.Blocks())
			}
			s = append(s, l)
			if l.full {
				break
			}
		}
		c.put(i, s)
	}
	return c, owners
}

// decode decodes a page for a map with this table of owners.
func decode(b []byte, want pageIdentity, owners []chunk.VolumeID) (*content, []chunk.VolumeID, error) {
	m := &Map{}
	m.owners.Store(&owners)
	c, err := decodePage(b, want, m.ownerIndex)
	return c, *m.owners.Load(), err
}

func TestPagesReadBack(t *testing.T) {
	rng := random(t)
	for range 100 {
		g := someGeometry(rng)
		c, owners := somePage(rng, g)
		want := pageIdentity{volume: someID(rng), number: rng.Uint64N(1 << 20), serial: chunk.Serial(rng.Uint64()), geom: g}
		b := encodePage(c, want.volume, want.number, want.serial, g, owners)
		got, _, err := decode(b, want, owners)
		if err != nil || got.entries != c.entries {
			t.Fatalf("entries differ: %v", err)
		}
		for i, s := range c.stacks {
			if !reflect.DeepEqual(got.stacks[i], s) {
				t.Fatalf("entry %d became %+v, want %+v", i, got.stacks[i], s)
			}
		}
		if len(got.stacks) != len(c.stacks) || got.empty() != c.empty() {
			t.Fatalf("%d stacks, want %d", len(got.stacks), len(c.stacks))
		}
		// Another map has other numbers for the owners, and stores the same of them.
		other := []chunk.VolumeID{someID(rng), owners[len(owners)-1]}
		moved, table, err := decode(b, want, other)
		if err != nil {
			t.Fatal(err)
		}
		var a, z []LayerRef
		each := func(b []byte, refs *[]LayerRef) {
			t.Helper()
			err := EachLayer(b, want.volume, PageRef{Number: want.number, Serial: want.serial}, g, func(l LayerRef) error {
				*refs = append(*refs, l)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		each(b, &a)
		each(encodePage(moved, want.volume, want.number, want.serial, g, table), &z)
		if !reflect.DeepEqual(a, z) {
			t.Fatalf("layers %+v, want %+v", z, a)
		}
	}
}

func TestDamagedPagesAreRefused(t *testing.T) {
	rng := random(t)
	c, owners := fixedPage()
	g := geometry(t, chunk.MinSize)
	want := pageIdentity{volume: someID(rng), number: 1, serial: 2, geom: g}
	b := encodePage(c, want.volume, want.number, want.serial, g, owners)
	checkDamage(t, rng, b, func(b []byte) error {
		_, _, err := decode(b, want, owners)
		return err
	})
}

// TestAnotherPageIsRefused loads a whole page in the place of another.
func TestAnotherPageIsRefused(t *testing.T) {
	c, owners := fixedPage()
	want := pageIdentity{volume: owners[0], number: 1, serial: 2, geom: geometry(t, chunk.MinSize)}
	b := encodePage(c, want.volume, want.number, want.serial, want.geom, owners)
	for what, change := range map[string]func(p *pageIdentity){
		"volume":     func(p *pageIdentity) { p.volume[3]++ },
		"number":     func(p *pageIdentity) { p.number++ },
		"serial":     func(p *pageIdentity) { p.serial++ },
		"chunk size": func(p *pageIdentity) { p.geom = geometry(t, 2*chunk.MinSize) },
	} {
		other := want
		change(&other)
		if _, _, err := decode(b, other, owners); !errors.Is(err, ErrDamaged) {
			t.Errorf("a page of another %s: %v", what, err)
		}
	}
}

// TestPagesThatCannotBeAreRefused changes fields of a page and makes its checksum right.
func TestPagesThatCannotBeAreRefused(t *testing.T) {
	c, owners := fixedPage()
	want := pageIdentity{volume: owners[0], number: 1, serial: 2, geom: geometry(t, chunk.MinSize)}
	b := encodePage(c, want.volume, want.number, want.serial, want.geom, owners)
	entries := pageHeader + 3*16
	stacks := entries + 8*PageChunks
	for what, change := range map[string]func(b []byte){
		"more owners than allowed":  func(b []byte) { binary.LittleEndian.PutUint16(b[pageHeader-2:], MaxOwners+1) },
		"an owner that is missing":  func(b []byte) { binary.LittleEndian.PutUint64(b[entries:], 3<<56|1<<28|1) },
		"generation 0":              func(b []byte) { binary.LittleEndian.PutUint64(b[entries:], 1) },
		"bits beside the stack bit": func(b []byte) { binary.LittleEndian.PutUint64(b[entries+16:], stacked|1) },
		"a stack more":              func(b []byte) { binary.LittleEndian.PutUint64(b[entries+8*9:], stacked) },
		"a stack less":              func(b []byte) { binary.LittleEndian.PutUint64(b[entries+16:], 0) },
		"no layers":                 func(b []byte) { b[stacks] = 0 },
		"too many layers":           func(b []byte) { b[stacks] = maxLayers + 1 },
		"a layer's missing owner":   func(b []byte) { b[stacks+1] = 3 },
		"a layer of no kind":        func(b []byte) { b[stacks+11] = 0 },
		"a layer of two kinds":      func(b []byte) { b[stacks+11] = layerFull | layerData },
		"a layer of unknown kind":   func(b []byte) { b[stacks+11] = 8 },
		"blocks past the end":       func(b []byte) { b[stacks+12+12+3] = 1 },
	} {
		body := bytes.Clone(b[:len(b)-4])
		change(body)
		if _, _, err := decode(sealed(body), want, owners); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestPagesClaimNoMemory cuts a page to 1 KiB and claims the most of everything.
func TestPagesClaimNoMemory(t *testing.T) {
	c, owners := fixedPage()
	want := pageIdentity{volume: owners[0], number: 1, serial: 2, geom: geometry(t, chunk.MaxSize)}
	body := encodePage(c, want.volume, want.number, want.serial, want.geom, owners)[:1<<10]
	binary.LittleEndian.PutUint16(body[pageHeader-2:], MaxOwners)
	b := sealed(body)
	if n := allocated(func() { decode(b, want, owners) }); n > 32<<10 {
		t.Errorf("%d bytes allocated", n)
	}
	// All entries claim layers.
	body = body[:pageHeader]
	binary.LittleEndian.PutUint16(body[pageHeader-2:], 0)
	for range PageChunks {
		body = binary.LittleEndian.AppendUint64(body, stacked)
	}
	b = sealed(append(body, maxLayers))
	if n := allocated(func() { decode(b, want, nil) }); n > 32<<10 {
		t.Errorf("%d bytes allocated for stacks", n)
	}
}

func TestEachLayerStops(t *testing.T) {
	c, owners := fixedPage()
	g := geometry(t, chunk.MinSize)
	b := encodePage(c, owners[0], 1, 2, g, owners)
	stop, calls := errors.New("stop"), 0
	err := EachLayer(b, owners[0], PageRef{Number: 1, Serial: 2}, g, func(LayerRef) error {
		calls++
		return stop
	})
	if err != stop || calls != 1 {
		t.Errorf("%v after %d layers", err, calls)
	}
}

func TestPageCount(t *testing.T) {
	for _, c := range []struct {
		chunk, size int64
		want        uint64
	}{
		{chunk.DefaultSize, 1, 1},
		{chunk.DefaultSize, PageChunks * chunk.DefaultSize, 1},
		{chunk.DefaultSize, PageChunks*chunk.DefaultSize + 1, 2},
		{chunk.DefaultSize, 1 << 50, 1 << 18},
		{chunk.MaxSize, MaxVolumeSize, 1 << 17},
		{chunk.DefaultSize, MaxVolumeSize, 1 << 20},
	} {
		if got := PageCount(geometry(t, c.chunk), c.size); got != c.want {
			t.Errorf("%d bytes in chunks of %d: %d pages, want %d", c.size, c.chunk, got, c.want)
		}
	}
}
