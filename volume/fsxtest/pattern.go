package fsxtest

import "encoding/binary"

// word returns the eight bytes that the write with this number writes at a place that is a multiple of eight.
func word(number int, place int64) uint64 {
	x := uint64(number+1)*0x9e3779b97f4a7c15 + uint64(place)*0xbf58476d1ce4e5b9
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// fill gives p, which lies at off, what the write with this number writes there.
func fill(p []byte, number int, off int64) {
	var b [8]byte
	for len(p) > 0 {
		within := off % 8
		if within == 0 && len(p) >= 8 {
			binary.LittleEndian.PutUint64(p, word(number, off))
			p, off = p[8:], off+8
			continue
		}
		binary.LittleEndian.PutUint64(b[:], word(number, off-within))
		n := copy(p, b[within:])
		p, off = p[n:], off+int64(n)
	}
}

// junk gives p what nobody wrote, so that what a read leaves out is not what an earlier one left there.
func junk(p []byte) {
	if len(p) == 0 {
		return
	}
	p[0] = 0xa5
	for n := 1; n < len(p); n *= 2 {
		copy(p[n:], p[:n])
	}
}
