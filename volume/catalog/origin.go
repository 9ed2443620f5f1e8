package catalog

import (
	"encoding/binary"
	"fmt"

	"skerry/chunk"
	"skerry/mapper"
)

// Origin says what a volume that is being created is a copy of, and how far the copy is. It is what the root of such a volume has as
// its source.
type Origin struct {
	Pool     [16]byte       // id of the pool that it is copied from
	Volume   chunk.VolumeID // the volume there
	Snapshot chunk.Serial   // the last snapshot to be copied
	Pin      chunk.VolumeID // keeps Snapshot
	Hidden   bool           // Snapshot was taken for the copy, of the volume as it was
	All      bool           // the named snapshots before Snapshot are copied too

	Stage chunk.Serial // the snapshot that is being copied
	Done  int64        // bytes of it that are copied and durable
}

const (
	originMagic   = "SKCO"
	originVersion = 1
	originSize    = 4 + 2 + 16 + 16 + 8 + 16 + 1 + 8 + 8
)

// Encode returns the origin as a root has it: see docs/storage-format.md.
func (o Origin) Encode() []byte {
	b := make([]byte, 0, originSize)
	b = append(b, originMagic...)
	b = binary.LittleEndian.AppendUint16(b, originVersion)
	b = append(b, o.Pool[:]...)
	b = append(b, o.Volume[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(o.Snapshot))
	b = append(b, o.Pin[:]...)
	var flags byte
	if o.Hidden {
		flags |= 1
	}
	if o.All {
		flags |= 2
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(o.Stage))
	return binary.LittleEndian.AppendUint64(b, uint64(o.Done))
}

// DecodeOrigin reads what Encode wrote. It fails with [mapper.ErrDamaged] if b is no origin of this version.
func DecodeOrigin(b []byte) (Origin, error) {
	var o Origin
	if len(b) != originSize || string(b[:4]) != originMagic || binary.LittleEndian.Uint16(b[4:]) != originVersion || b[62] > 3 {
		return o, fmt.Errorf("decode origin: %w", mapper.ErrDamaged)
	}
	copy(o.Pool[:], b[6:])
	copy(o.Volume[:], b[22:])
	o.Snapshot = chunk.Serial(binary.LittleEndian.Uint64(b[38:]))
	copy(o.Pin[:], b[46:])
	o.Hidden, o.All = b[62]&1 != 0, b[62]&2 != 0
	o.Stage = chunk.Serial(binary.LittleEndian.Uint64(b[63:]))
	o.Done = int64(binary.LittleEndian.Uint64(b[71:]))
	if o.Done < 0 || o.Done > mapper.MaxVolumeSize {
		return o, fmt.Errorf("decode origin: %w: %d bytes done", mapper.ErrDamaged, o.Done)
	}
	return o, nil
}
