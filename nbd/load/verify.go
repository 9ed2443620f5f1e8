package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
)

// ErrMismatch says that a server returned other data than was written.
var ErrMismatch = errors.New("wrong data")

const (
	sector = 512
	magic  = 0x736b72794c4f4144 // "skryLOAD"
)

// State of a slot: a bit for "in use", what the slot holds, and the version, which counts the changes.
const (
	busy        = 1 << 31
	holdsShift  = 29
	unknown     = 0 << holdsShift // not changed by this run, or discarded
	written     = 1 << holdsShift
	zeroed      = 2 << holdsShift
	holdsMask   = 3 << holdsShift
	versionMask = 1<<holdsShift - 1
)

// table holds the state of every slot of a range that is verified. It may be used concurrently.
type table struct {
	key   uint64
	slots []atomic.Uint32
}

func newTable(key uint64, slots int64) *table {
	return &table{key: key, slots: make([]atomic.Uint32, slots)}
}

// take takes slot s, or the next one that is free, for a request, and returns it with its state.
func (t *table) take(s int64) (int64, uint32) {
	for {
		if v := t.slots[s].Load(); v&busy == 0 && t.slots[s].CompareAndSwap(v, v|busy) {
			return s, v
		}
		if s++; s == int64(len(t.slots)) {
			s = 0
		}
	}
}

// give ends the use of a slot.
func (t *table) give(s int64, state uint32) { t.slots[s].Store(state) }

// changed returns the state of a slot after one more change, by a request of kind k.
func changed(state uint32, k int) uint32 {
	version := (state + 1) & versionMask
	switch k {
	case write:
		return version | written
	case zero:
		return version | zeroed
	}
	return version | unknown
}

// fill makes p the data of a version of what lies at offset.
func (t *table) fill(p []byte, offset int64, version uint32) {
	for at := 0; at < len(p); at += sector {
		describe(p[at:at+sector], t.key, uint64(offset)+uint64(at), uint64(version))
	}
}

// describe fills one sector.
func describe(p []byte, key, offset, version uint64) {
	binary.BigEndian.PutUint64(p, magic)
	binary.BigEndian.PutUint64(p[8:], key)
	binary.BigEndian.PutUint64(p[16:], offset)
	binary.BigEndian.PutUint64(p[24:], version)
	x := mix(key^mix(offset^mix(version))) | 1
	for at := 32; at < sector; at += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.BigEndian.PutUint64(p[at:], x)
	}
}

// finding is what a read that was not wrong has shown.
type finding int

const (
	foreign finding = iota // what was there before this run, in part at least, and does not describe itself
	earlier                // what an earlier run wrote, whole and in its place
	right                  // what this run wrote last
)

// check compares what was read at offset from a slot in a state.
func (t *table) check(p []byte, offset int64, state uint32) (finding, error) {
	var want [sector]byte
	found := right
	if state&holdsMask == unknown {
		found = earlier
	}
	for at := 0; at < len(p); at += sector {
		got, off := p[at:at+sector], uint64(offset)+uint64(at)
		switch state & holdsMask {
		case written:
			describe(want[:], t.key, off, uint64(state&versionMask))
		case zeroed:
			clear(want[:])
		default:
			if binary.BigEndian.Uint64(got) != magic {
				found = foreign
				continue
			}
			describe(want[:], binary.BigEndian.Uint64(got[8:]), off, binary.BigEndian.Uint64(got[24:]))
		}
		if !bytes.Equal(got, want[:]) {
			return foreign, fmt.Errorf("sector at %d: %w: %s", off, ErrMismatch, t.explain(got, off, state))
		}
	}
	return found, nil
}

// explain says what a sector holds instead of what it should.
func (t *table) explain(got []byte, offset uint64, state uint32) string {
	want := "what an earlier run wrote there"
	switch state & holdsMask {
	case written:
		want = fmt.Sprintf("version %d of it", state&versionMask)
	case zeroed:
		want = "zeros"
	}
	key, off, version := binary.BigEndian.Uint64(got[8:]), binary.BigEndian.Uint64(got[16:]), binary.BigEndian.Uint64(got[24:])
	var whole [sector]byte
	describe(whole[:], key, off, version)
	switch {
	case bytes.Equal(got, make([]byte, sector)):
		return "has zeros, want " + want
	case !bytes.Equal(got, whole[:]):
		return "has damaged or foreign data, want " + want
	case off != offset:
		return fmt.Sprintf("has data of offset %d, want %s", off, want)
	case key != t.key:
		return "has data of an earlier run, want " + want
	}
	return fmt.Sprintf("has old data, version %d of it, want %s", version, want)
}
