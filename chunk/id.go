package chunk

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// VolumeID identifies a volume for ever; a name is only a record that points to it.
type VolumeID [16]byte

// NewVolumeID returns a random identifier.
func NewVolumeID() VolumeID {
	var id VolumeID
	rand.Read(id[:]) // never fails, says its documentation
	return id
}

// ParseVolumeID reads the 32 hexadecimal digits that String writes.
func ParseVolumeID(s string) (VolumeID, error) {
	var id VolumeID
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("volume id %q: want 32 hexadecimal digits", s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return VolumeID{}, fmt.Errorf("volume id %q: %w", s, err)
	}
	if id.String() != s {
		return VolumeID{}, fmt.Errorf("volume id %q: want lower case", s)
	}
	return id, nil
}

// String returns 32 lower-case hexadecimal digits.
func (id VolumeID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is the zero value, which names no volume.
func (id VolumeID) IsZero() bool { return id == VolumeID{} }

// Serial is (generation, counter), ordered as a number. Every object of a volume is
// named by a fresh one: the generation is that of the grant, the counter belongs to the grant and only grows.
type Serial uint64

// MakeSerial joins a generation and a counter.
func MakeSerial(generation, counter uint32) Serial {
	return Serial(generation)<<32 | Serial(counter)
}

// Generation returns the number of the grant.
func (s Serial) Generation() uint32 { return uint32(s >> 32) }

// Counter returns the number within the grant.
func (s Serial) Counter() uint32 { return uint32(s) }

// String returns "generation.counter" in hexadecimal.
func (s Serial) String() string { return fmt.Sprintf("%x.%x", s.Generation(), s.Counter()) }
