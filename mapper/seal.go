package mapper

import (
	"fmt"
	"time"

	"skerry/chunk"
)

// Seal is the record of what a snapshot held when it was sealed: the hash of its content and those of its parts, as docs/hash.md
// defines them.
type Seal struct {
	Volume   chunk.VolumeID
	Snapshot chunk.Serial
	Created  time.Time
	Size     int64 // bytes of content
	Sum      [32]byte
	Grain    uint8      // a part is 2^Grain leaves
	Cells    []SealCell // by ascending index; a part that is missing is zeros
}

// SealCell is the hash of one part of a sealed content.
type SealCell struct {
	Index uint32
	Hash  [32]byte
}

const (
	sealMagic = "SKSL"
	// MaxSealCells bounds the parts of a seal.
	MaxSealCells = 1 << 20
)

// Encode returns the record as it is stored.
func (s *Seal) Encode() []byte {
	e := encoder{b: make([]byte, 0, 128+36*len(s.Cells))}
	e.bytes([]byte(sealMagic))
	e.u16(formatVersion)
	e.id(s.Volume)
	e.serial(s.Snapshot)
	e.u64(uint64(unixNano(s.Created)))
	e.u64(uint64(s.Size))
	e.bytes(s.Sum[:])
	e.u8(s.Grain)
	e.u32(uint32(len(s.Cells)))
	for _, c := range s.Cells {
		e.u32(c.Index)
		e.bytes(c.Hash[:])
	}
	return e.seal()
}

// DecodeSeal reads what Encode wrote. It allocates no more than a small multiple of len(b).
func DecodeSeal(b []byte) (*Seal, error) {
	d := unseal(b)
	d.header(sealMagic)
	s := &Seal{Volume: d.id(), Snapshot: d.serial(), Created: fromUnixNano(int64(d.u64())), Size: int64(d.u64())}
	copy(s.Sum[:], d.take(len(s.Sum)))
	s.Grain = d.u8()
	s.Cells = make([]SealCell, d.count(MaxSealCells, 36))
	for i := range s.Cells {
		c := &s.Cells[i]
		c.Index = d.u32()
		copy(c.Hash[:], d.take(len(c.Hash)))
		if i > 0 && c.Index <= s.Cells[i-1].Index {
			d.fail("part %d is out of order", c.Index)
			break
		}
	}
	err := d.end()
	if err == nil && (s.Size <= 0 || s.Size > MaxVolumeSize) {
		err = fmt.Errorf("%w: size %d", ErrDamaged, s.Size)
	}
	if err == nil && s.Grain > 30 {
		err = fmt.Errorf("%w: grain %d", ErrDamaged, s.Grain)
	}
	if err != nil {
		return nil, fmt.Errorf("decode seal: %w", err)
	}
	return s, nil
}
