package mapper

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"skerry/chunk"
)

// castagnoli is the polynomial of all checksums on storage (CRC-32C, RFC 3720 appendix B.4).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encoder appends little-endian fields to b.
type encoder struct{ b []byte }

func (e *encoder) u8(v uint8)            { e.b = append(e.b, v) }
func (e *encoder) u16(v uint16)          { e.b = binary.LittleEndian.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32)          { e.b = binary.LittleEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64)          { e.b = binary.LittleEndian.AppendUint64(e.b, v) }
func (e *encoder) bytes(v []byte)        { e.b = append(e.b, v...) }
func (e *encoder) id(v chunk.VolumeID)   { e.b = append(e.b, v[:]...) }
func (e *encoder) serial(v chunk.Serial) { e.u64(uint64(v)) }

func (e *encoder) text(v string) {
	e.u16(uint16(len(v)))
	e.b = append(e.b, v...)
}

func (e *encoder) flag(v bool) {
	if v {
		e.u8(1)
		return
	}
	e.u8(0)
}

// seal appends the checksum of all that was encoded.
func (e *encoder) seal() []byte {
	e.u32(crc32.Checksum(e.b, castagnoli))
	return e.b
}

// decoder takes little-endian fields off b. The first thing that does not fit sets err; after
// that every field is zero, so that callers check once.
type decoder struct {
	b   []byte
	err error
}

// unseal returns a decoder of what seal sealed.
func unseal(b []byte) decoder {
	if len(b) < 4 {
		return decoder{err: fmt.Errorf("%w: %d bytes are too few", ErrDamaged, len(b))}
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return decoder{err: fmt.Errorf("%w: checksum does not match", ErrDamaged)}
	}
	return decoder{b: body}
}

// Intact reports whether a record has the checksum of its bytes: these are as they were written. It can be damaged all the same
// for this version, if another one wrote it.
func Intact(b []byte) bool { return unseal(b).err == nil }

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.b) {
		d.fail("cut short")
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8() uint8 {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if v := d.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if v := d.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if v := d.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (d *decoder) id() (v chunk.VolumeID) {
	copy(v[:], d.take(len(v)))
	return v
}

func (d *decoder) nonce() (v [16]byte) {
	copy(v[:], d.take(len(v)))
	return v
}

func (d *decoder) serial() chunk.Serial { return chunk.Serial(d.u64()) }

// opaque takes bytes that have their length before them; nil if there are none.
func (d *decoder) opaque(limit int) []byte {
	n := int(d.u16())
	if n > limit {
		d.fail("%d bytes, more than %d", n, limit)
	}
	if n == 0 {
		return nil
	}
	return slices.Clone(d.take(n))
}

func (d *decoder) text(limit int) string {
	n := int(d.u16())
	if n > limit {
		d.fail("text of %d bytes, at most %d are allowed", n, limit)
		return ""
	}
	return string(d.take(n))
}

func (d *decoder) flag() bool {
	v := d.u8()
	if v > 1 {
		d.fail("flag is %d", v)
	}
	return v == 1
}

// count reads a number of items that take at least size bytes each.
func (d *decoder) count(limit, size int) int {
	n := int(d.u32())
	if d.err == nil && (n > limit || n*size > len(d.b)) {
		d.fail("count %d is too large", n)
	}
	if d.err != nil {
		return 0
	}
	return n
}

// geometry reads the binary logarithm of a chunk size.
func (d *decoder) geometry() chunk.Geometry {
	shift := d.u8()
	if shift > 62 {
		d.fail("chunk size 2^%d", shift)
		return chunk.Geometry{}
	}
	g, err := chunk.NewGeometry(1 << shift)
	if err != nil && d.err == nil {
		d.fail("%v", err)
	}
	return g
}

// header checks a magic number and a format version.
func (d *decoder) header(magic string) {
	if got := d.take(4); string(got) != magic && d.err == nil {
		d.fail("magic is %q, not %q", got, magic)
	}
	if v := d.u16(); v != formatVersion && d.err == nil {
		d.err = fmt.Errorf("%w: format version %d, this program knows %d", ErrDamaged, v, formatVersion)
	}
}

// end fails if bytes are left.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return d.err
}

// formatVersion is that of all objects of this package.
const formatVersion = 1
