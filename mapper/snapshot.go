package mapper

import (
	"errors"
	"fmt"
	"time"

	"skerry/chunk"
)

// Snapshot is the record of a snapshot, and the only truth about it: a picture of the
// volume with its own page references.
type Snapshot struct {
	Volume   chunk.VolumeID
	Serial   chunk.Serial // names the record; never used twice
	Name     string       // empty for a hidden one, which dies with its last clone
	Deleting bool         // on its way out: no new clone may register
	Size     int64        // bytes
	Geometry chunk.Geometry
	Created  time.Time
	Parent   Parent // of the volume at that moment
	Owners   []chunk.VolumeID
	Pages    []PageRef
}

const snapshotMagic = "SKSN"

// SnapshotPrefix is the length of the part of an encoded record that tells its versions apart.
const SnapshotPrefix = 4 + 2 + 16 + 8 + 1

// Encode returns the record as it is stored.
func (s *Snapshot) Encode() []byte {
	e := encoder{b: make([]byte, 0, 256+16*len(s.Pages))}
	e.bytes([]byte(snapshotMagic))
	e.u16(formatVersion)
	e.id(s.Volume)
	e.serial(s.Serial)
	e.flag(s.Deleting)
	e.text(s.Name)
	e.u64(uint64(s.Size))
	e.u8(shift(s.Geometry))
	e.u64(uint64(unixNano(s.Created)))
	e.id(s.Parent.Volume)
	e.serial(s.Parent.Snapshot)
	encodeRefs(&e, s.Owners, s.Pages)
	return e.seal()
}

// DecodeSnapshot reads what Encode wrote. It allocates no more than a small multiple of len(b).
func DecodeSnapshot(b []byte) (*Snapshot, error) {
	d := unseal(b)
	d.header(snapshotMagic)
	s := &Snapshot{Volume: d.id(), Serial: d.serial(), Deleting: d.flag(), Name: d.text(MaxNameLength), Size: int64(d.u64()), Geometry: d.geometry(), Created: fromUnixNano(int64(d.u64())), Parent: Parent{Volume: d.id(), Snapshot: d.serial()}}
	s.Owners, s.Pages = decodeRefs(&d)
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	var err error
	switch {
	case s.Size <= 0 || s.Size > MaxVolumeSize:
		err = fmt.Errorf("size %d", s.Size)
	case len(s.Owners) == 0 || s.Owners[0] != s.Volume:
		err = errors.New("first owner is not the volume itself")
	default:
		err = validRefs(s.Owners, s.Pages, PageCount(s.Geometry, s.Size))
	}
	if err != nil {
		return nil, fmt.Errorf("decode snapshot: %w: %w", ErrDamaged, err)
	}
	return s, nil
}

// Hidden reports whether the snapshot was taken for a clone and has no name of its own.
func (s *Snapshot) Hidden() bool { return s.Name == "" }
