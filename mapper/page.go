package mapper

import (
	"fmt"

	"skerry/chunk"
)

// PageChunks is the number of chunks whose entries lie in one page.
const PageChunks = 1024

// PageCount returns how many pages the map of a volume of size bytes has.
func PageCount(g chunk.Geometry, size int64) uint64 {
	return (g.Count(size) + PageChunks - 1) / PageChunks
}

// An entry of a page is 64 bits: 0 is zeros; with the top bit clear it is one full layer, 7 bits of owner, 28 of
// generation, 28 of counter; with the top bit set the layers are stored apart.
const (
	stacked       = 1 << 63
	compactBits   = 28
	compactLimit  = 1 << compactBits
	compactOwners = 1 << 7
)

func compact(owner uint16, s chunk.Serial) (uint64, bool) {
	if owner >= compactOwners || s.Generation() >= compactLimit || s.Counter() >= compactLimit || s.Generation() == 0 {
		return 0, false
	}
	return uint64(owner)<<(2*compactBits) | uint64(s.Generation())<<compactBits | uint64(s.Counter()), true
}

func expand(e uint64) (owner uint16, s chunk.Serial) {
	const mask = compactLimit - 1
	return uint16(e >> (2 * compactBits)), chunk.MakeSerial(uint32(e>>compactBits&mask), uint32(e&mask))
}

const (
	pageMagic  = "SKPG"
	maxLayers  = 64
	pageHeader = 4 + 2 + 16 + 8 + 8 + 1 + 2
)

// content is the decoded content of a page. Owners are indices of the table of the map that it belongs to.
type content struct {
	entries [PageChunks]uint64
	stacks  map[uint16]stack
}

// empty reports whether all chunks are zeros.
func (c *content) empty() bool {
	for _, e := range c.entries {
		if e != 0 {
			return false
		}
	}
	return true
}

// get returns the layers of entry i. one is room for a single full layer.
func (c *content) get(i uint16, one *[1]layer) stack {
	e := c.entries[i]
	switch {
	case e == 0:
		return nil
	case e&stacked != 0:
		return c.stacks[i]
	}
	owner, serial := expand(e)
	one[0] = layer{owner: owner, serial: serial, full: true}
	return one[:]
}

// put sets the layers of entry i. It keeps s.
func (c *content) put(i uint16, s stack) {
	if c.entries[i]&stacked != 0 && len(s) == 0 {
		delete(c.stacks, i)
	}
	if len(s) == 0 {
		c.entries[i] = 0
		return
	}
	if len(s) == 1 && s[0].full {
		if e, ok := compact(s[0].owner, s[0].serial); ok {
			delete(c.stacks, i)
			c.entries[i] = e
			return
		}
	}
	if c.stacks == nil {
		c.stacks = make(map[uint16]stack)
	}
	c.entries[i], c.stacks[i] = stacked, s
}

// encodePage returns a page as it is stored. owners is the table that the content's owners are
// indices of; only those in use are stored.
func encodePage(c *content, volume chunk.VolumeID, number uint64, serial chunk.Serial, g chunk.Geometry, owners []chunk.VolumeID) []byte {
	e := encoder{b: make([]byte, 0, pageHeader+16+8*PageChunks+len(c.stacks)*(16+g.Blocks()/8))}
	e.bytes([]byte(pageMagic))
	e.u16(formatVersion)
	e.id(volume)
	e.u64(number)
	e.serial(serial)
	e.u8(shift(g))
	local, used := localOwners(c, len(owners))
	e.u16(uint16(len(used)))
	for _, o := range used {
		e.id(owners[o])
	}
	for _, v := range c.entries {
		if v != 0 && v&stacked == 0 {
			owner, serial := expand(v)
			v, _ = compact(local[owner], serial) // a local index is never larger
		}
		e.u64(v)
	}
	for i, v := range c.entries {
		if v&stacked != 0 {
			encodeStack(&e, c.stacks[uint16(i)], local)
		}
	}
	return e.seal()
}

// localOwners numbers the owners that a content uses: local maps them, used lists them. The indices never grow by it.
func localOwners(c *content, n int) (local []uint16, used []uint16) {
	in := make([]bool, n)
	for _, v := range c.entries {
		if v != 0 && v&stacked == 0 {
			owner, _ := expand(v)
			in[owner] = true
		}
	}
	for _, s := range c.stacks {
		for _, l := range s {
			in[l.owner] = true
		}
	}
	local = make([]uint16, n)
	for o, yes := range in {
		if yes {
			local[o] = uint16(len(used))
			used = append(used, uint16(o))
		}
	}
	return local, used
}

// The kinds of blocks that a stored layer has, as bits.
const (
	layerFull = 1 << iota
	layerData
	layerZero
)

func encodeStack(e *encoder, s stack, local []uint16) {
	e.u8(uint8(len(s)))
	for _, l := range s {
		var kind uint8
		switch {
		case l.full:
			kind = layerFull
		default:
			if !l.data.Empty() {
				kind |= layerData
			}
			if l.zero != nil {
				kind |= layerZero
			}
		}
		e.u16(local[l.owner])
		e.serial(l.serial)
		e.u8(kind)
		if kind&layerData != 0 {
			encodeBitmap(e, l.data)
		}
		if kind&layerZero != 0 {
			encodeBitmap(e, l.zero)
		}
	}
}

func encodeBitmap(e *encoder, b chunk.Bitmap) {
	for _, w := range b {
		e.u64(w)
	}
}

// pageIdentity says which page is expected.
type pageIdentity struct {
	volume chunk.VolumeID
	number uint64
	serial chunk.Serial
	geom   chunk.Geometry
}

// decodePage reads what encodePage wrote. owner translates the page's owners to the
// caller's indices.
func decodePage(b []byte, want pageIdentity, owner func(chunk.VolumeID) (uint16, error)) (*content, error) {
	d := unseal(b)
	d.header(pageMagic)
	got := pageIdentity{volume: d.id(), number: d.u64(), serial: d.serial(), geom: d.geometry()}
	if d.err == nil && got != want {
		d.fail("it is page %d %v of volume %v", got.number, got.serial, got.volume)
	}
	n := int(d.u16())
	if n > MaxOwners {
		d.fail("%d owners", n)
	}
	var owners []uint16
	for range n {
		id := d.id()
		if d.err != nil {
			break
		}
		o, err := owner(id)
		if err != nil {
			d.fail("%v", err)
		}
		owners = append(owners, o)
	}
	c := &content{}
	for i := range c.entries {
		c.entries[i] = d.u64()
	}
	for i, v := range c.entries {
		if d.err != nil {
			break
		}
		c.entries[i] = 0
		switch {
		case v == stacked:
			c.put(uint16(i), decodeStack(&d, owners, want.geom.Blocks()))
		case v&stacked != 0:
			d.fail("entry %d is %x", i, v)
		case v != 0:
			o, serial := expand(v)
			if int(o) >= len(owners) || serial.Generation() == 0 {
				d.fail("entry %d is %x", i, v)
				break
			}
			if v, ok := compact(owners[o], serial); ok {
				c.entries[i] = v
				break
			}
			c.put(uint16(i), stack{{owner: owners[o], serial: serial, full: true}})
		}
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode page %d: %w", want.number, err)
	}
	return c, nil
}

func decodeStack(d *decoder, owners []uint16, blocks int) stack {
	n := int(d.u8())
	if n == 0 || n > maxLayers {
		d.fail("%d layers", n)
		return nil
	}
	var s stack
	for range n {
		o, serial, kind := d.u16(), d.serial(), d.u8()
		if d.err != nil {
			return nil
		}
		if int(o) >= len(owners) || kind == 0 || kind > layerData|layerZero && kind != layerFull || kind&layerFull != 0 && kind != layerFull {
			d.fail("layer %v has owner %d, kind %d", serial, o, kind)
			return nil
		}
		l := layer{owner: owners[o], serial: serial, full: kind == layerFull}
		if !l.full {
			l.data = chunk.NewBitmap(blocks)
		}
		if kind&layerData != 0 {
			decodeBitmap(d, l.data, blocks)
		}
		if kind&layerZero != 0 {
			l.zero = chunk.NewBitmap(blocks)
			decodeBitmap(d, l.zero, blocks)
		}
		s = append(s, l)
	}
	return s
}

func decodeBitmap(d *decoder, b chunk.Bitmap, blocks int) {
	for i := range b {
		b[i] = d.u64()
	}
	if rest := blocks % 64; rest != 0 && b[len(b)-1]>>rest != 0 {
		d.fail("blocks beyond the chunk's end")
	}
}

// LayerRef is a layer as [EachLayer] shows it.
type LayerRef struct {
	Chunk  uint64
	Owner  chunk.VolumeID
	Serial chunk.Serial
	Data   int // blocks that its object holds; 0: there need not be an object

	blocks chunk.Bitmap // that show; nil: all
}

// AddTo adds the blocks that show to a set: those that the layer's object holds and that no newer layer covers.
func (l LayerRef) AddTo(set chunk.Bitmap) {
	if l.blocks == nil {
		set.Set(0, l.Data)
		return
	}
	for i, w := range l.blocks {
		set[i] |= w
	}
}

// EachLayer calls fn for every layer in an encoded page, which must be the one that ref and its owner say.
func EachLayer(b []byte, volume chunk.VolumeID, ref PageRef, g chunk.Geometry, fn func(LayerRef) error) error {
	var owners []chunk.VolumeID
	want := pageIdentity{volume: volume, number: ref.Number, serial: ref.Serial, geom: g}
	c, err := decodePage(b, want, func(id chunk.VolumeID) (uint16, error) {
		owners = append(owners, id)
		return uint16(len(owners) - 1), nil
	})
	if err != nil {
		return err
	}
	var one [1]layer
	for i := range c.entries {
		s := c.get(uint16(i), &one)
		for k, l := range s {
			blocks := g.Blocks()
			if !l.full {
				blocks = l.data.Count()
			}
			if l.full && k > 0 {
				l.data = s[:k].uncovered(blocks) // else what is covered is not in the layer
			}
			if err := fn(LayerRef{Chunk: ref.Number*PageChunks + uint64(i), Owner: owners[l.owner], Serial: l.serial, Data: blocks, blocks: l.data}); err != nil {
				return err
			}
		}
	}
	return nil
}
