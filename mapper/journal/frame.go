package journal

import (
	"encoding/binary"
	"hash/crc32"

	"skerry/chunk"
)

const (
	magic         = "skryjrnl"
	formatVersion = 1
	headerSize    = 88
	checkOffset   = 84
)

// header is what a frame says about itself; doc.go has the layout.
type header struct {
	version    uint32
	generation uint32
	volume     chunk.VolumeID
	boot       [16]byte
	object     chunk.Serial
	seq        uint64
	synced     uint64
	lap        uint32
	body       uint32 // bytes of entries
	previous   uint32 // checksum of the frame before
	check      uint32
}

// frameLen returns the bytes that a frame with so many bytes of entries takes.
func frameLen(body int) int {
	return (headerSize + body + Align - 1) / Align * Align
}

// seal writes h into the first bytes of f, a whole frame, clears what lies past the entries, and returns the frame's checksum.
func (h *header) seal(f []byte) uint32 {
	copy(f, magic)
	binary.LittleEndian.PutUint32(f[8:], h.version)
	binary.LittleEndian.PutUint32(f[12:], h.generation)
	copy(f[16:], h.volume[:])
	copy(f[32:], h.boot[:])
	binary.LittleEndian.PutUint64(f[48:], uint64(h.object))
	binary.LittleEndian.PutUint64(f[56:], h.seq)
	binary.LittleEndian.PutUint64(f[64:], h.synced)
	binary.LittleEndian.PutUint32(f[72:], h.lap)
	binary.LittleEndian.PutUint32(f[76:], h.body)
	binary.LittleEndian.PutUint32(f[80:], h.previous)
	clear(f[headerSize+h.body:])
	check := checksum(f)
	binary.LittleEndian.PutUint32(f[checkOffset:], check)
	return check
}

// parseHeader reads the header at the start of b, at least headerSize bytes. It says false if there is none or if its
// length cannot be true; it does not verify the checksum.
func parseHeader(b []byte) (header, bool) {
	if string(b[:8]) != magic {
		return header{}, false
	}
	h := header{
		version:    binary.LittleEndian.Uint32(b[8:]),
		generation: binary.LittleEndian.Uint32(b[12:]),
		volume:     chunk.VolumeID(b[16:32]),
		boot:       [16]byte(b[32:48]),
		object:     chunk.Serial(binary.LittleEndian.Uint64(b[48:])),
		seq:        binary.LittleEndian.Uint64(b[56:]),
		synced:     binary.LittleEndian.Uint64(b[64:]),
		lap:        binary.LittleEndian.Uint32(b[72:]),
		body:       binary.LittleEndian.Uint32(b[76:]),
		previous:   binary.LittleEndian.Uint32(b[80:]),
		check:      binary.LittleEndian.Uint32(b[checkOffset:]),
	}
	return h, h.body <= MaxFrame
}

// checksum returns the CRC-32C of a whole frame without the checksum itself.
func checksum(f []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(f[:checkOffset], table), table, f[headerSize:])
}
