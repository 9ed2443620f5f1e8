package mapper

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"skerry/chunk"
	"skerry/mapper/journal"
)

// ErrDamaged says that something stored is not what was written.
var ErrDamaged = errors.New("damaged")

// State is where a volume stands in its life.
type State uint8

// The states of a volume. It counts only while Live, and only with a name record that points to it. A Trashed one was
// removed and can be restored until Root.Until.
const (
	Creating State = iota + 1
	Live
	Deleted
	Trashed
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case Creating:
		return "creating"
	case Live:
		return "live"
	case Deleted:
		return "deleted"
	case Trashed:
		return "trashed"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Kept reports whether all that a volume in this state reaches must stay: it is live, or can be restored.
func (s State) Kept() bool { return s == Live || s == Trashed }

// Holder says which process a volume's right to write was granted to.
type Holder struct {
	Host     string    // host name, for people
	HostID   [16]byte  // identity of the host
	Boot     [16]byte  // boot id of its kernel
	Instance [16]byte  // nonce of the process, names its instance file
	PID      uint32    // for people
	Socket   string    // control socket of the process, may be empty
	Since    time.Time // of the grant
}

// PageRef says where a map page is stored: page Number as written under Serial by the volume Owners[Owner].
type PageRef struct {
	Number uint64
	Owner  uint16
	Serial chunk.Serial
}

// JournalRef names a journal that must be folded into the map before it is used.
type JournalRef struct {
	Generation uint32
	Boot       [16]byte // boot id of the kernel under which it was written
	Start      journal.Position
}

// Parent is the snapshot that a clone began as. The zero value: none.
type Parent struct {
	Volume   chunk.VolumeID
	Snapshot chunk.Serial
}

// Root is the truth about a volume under one grant: what it is, who holds it, and where its
// map begins. The root in force is that of the highest generation. The holder replaces its
// own root; a new grant is a new root.
type Root struct {
	Volume     chunk.VolumeID
	Generation uint32
	Sequence   uint64   // counts the switches under this grant
	Nonce      [16]byte // of the grant, random: tells who won a race

	State    State
	Held     bool // false after a clean release
	Failed   bool // a sync failed under this grant or the last unclean one: treat as power loss
	Holder   Holder
	Name     string
	Size     int64 // bytes
	Geometry chunk.Geometry
	Created  time.Time
	Parent   Parent
	Until    time.Time        // a Trashed or Creating volume is kept until then; zero: no longer than it is held
	Source   []byte           // where content comes from that the volume does not have yet, at most MaxSource bytes; nil: it has all
	Mark     chunk.Serial     // objects up to here are shared
	Owners   []chunk.VolumeID // the first is Volume itself
	Pages    []PageRef        // by ascending number; a page that is missing here is all zeros
	Journals []JournalRef     // to be folded in this order
}

// Bounds of what a root may hold.
const (
	MaxNameLength = 127
	MaxOwners     = 1 << 12
	MaxPages      = 1 << 21
	MaxJournals   = 4
	MaxSource     = 8 << 10
	maxText       = 255
	rootMagic     = "SKRT"
)

// RootPrefix is the length of the part of an encoded root that tells one version of it
// from all others: a switch of the root is conditional on it.
const RootPrefix = 4 + 2 + 16 + 4 + 8 + 16

// Encode returns the root as it is stored. The first RootPrefix bytes are unique to this
// grant and sequence.
func (r *Root) Encode() []byte {
	e := encoder{b: make([]byte, 0, 512+16*len(r.Pages))}
	e.bytes([]byte(rootMagic))
	e.u16(formatVersion)
	e.id(r.Volume)
	e.u32(r.Generation)
	e.u64(r.Sequence)
	e.bytes(r.Nonce[:])
	e.u8(uint8(r.State))
	e.flag(r.Held)
	e.flag(r.Failed)
	e.holder(r.Holder)
	e.text(r.Name)
	e.u64(uint64(r.Size))
	e.u8(shift(r.Geometry))
	e.u64(uint64(unixNano(r.Created)))
	e.id(r.Parent.Volume)
	e.serial(r.Parent.Snapshot)
	e.u64(uint64(unixNano(r.Until)))
	e.text(string(r.Source))
	e.serial(r.Mark)
	encodeRefs(&e, r.Owners, r.Pages)
	e.u32(uint32(len(r.Journals)))
	for _, j := range r.Journals {
		e.u32(j.Generation)
		e.bytes(j.Boot[:])
		e.b = j.Start.AppendTo(e.b)
	}
	return e.seal()
}

// DecodeRoot reads what Encode wrote. It allocates no more than a small multiple of len(b).
func DecodeRoot(b []byte) (*Root, error) {
	d := unseal(b)
	d.header(rootMagic)
	r := &Root{Volume: d.id(), Generation: d.u32(), Sequence: d.u64(), Nonce: d.nonce()}
	r.State = State(d.u8())
	r.Held = d.flag()
	r.Failed = d.flag()
	r.Holder = d.holder()
	r.Name = d.text(MaxNameLength)
	r.Size = int64(d.u64())
	r.Geometry = d.geometry()
	r.Created = fromUnixNano(int64(d.u64()))
	r.Parent = Parent{Volume: d.id(), Snapshot: d.serial()}
	r.Until = fromUnixNano(int64(d.u64()))
	r.Source = d.opaque(MaxSource)
	r.Mark = d.serial()
	r.Owners, r.Pages = decodeRefs(&d)
	for range d.count(MaxJournals, 20+journal.PositionSize) {
		j := JournalRef{Generation: d.u32(), Boot: d.nonce()}
		if b := d.take(journal.PositionSize); b != nil {
			if err := j.Start.Decode(b); err != nil {
				d.fail("%v", err)
			}
		}
		r.Journals = append(r.Journals, j)
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode root: %w", err)
	}
	if err := r.valid(); err != nil {
		return nil, fmt.Errorf("decode root: %w: %w", ErrDamaged, err)
	}
	return r, nil
}

func (r *Root) valid() error {
	switch {
	case r.State < Creating || r.State > Trashed:
		return fmt.Errorf("%v", r.State)
	case r.Generation == 0:
		return errors.New("generation 0")
	case r.Size <= 0 || r.Size > MaxVolumeSize:
		return fmt.Errorf("size %d", r.Size)
	case len(r.Owners) == 0 || r.Owners[0] != r.Volume:
		return errors.New("first owner is not the volume itself")
	}
	return validRefs(r.Owners, r.Pages, PageCount(r.Geometry, r.Size))
}

// Clone returns a copy that shares nothing with r.
func (r *Root) Clone() *Root {
	c := *r
	c.Owners, c.Pages, c.Journals = slices.Clone(r.Owners), slices.Clone(r.Pages), slices.Clone(r.Journals)
	c.Source = slices.Clone(r.Source)
	return &c
}

// MaxVolumeSize is the largest size of a volume in bytes: 4 PiB.
const MaxVolumeSize = 4 << 50

func shift(g chunk.Geometry) (s uint8) {
	for size := g.Size(); size > 1; size >>= 1 {
		s++
	}
	return s
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromUnixNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func (e *encoder) holder(h Holder) {
	e.text(h.Host)
	e.bytes(h.HostID[:])
	e.bytes(h.Boot[:])
	e.bytes(h.Instance[:])
	e.u32(h.PID)
	e.text(h.Socket)
	e.u64(uint64(unixNano(h.Since)))
}

func (d *decoder) holder() Holder {
	return Holder{
		Host: d.text(maxText), HostID: d.nonce(), Boot: d.nonce(), Instance: d.nonce(), PID: d.u32(), Socket: d.text(maxText),
		Since: fromUnixNano(int64(d.u64())),
	}
}

// encodeRefs writes a table of owners and the page references that use it.
func encodeRefs(e *encoder, owners []chunk.VolumeID, pages []PageRef) {
	e.u32(uint32(len(owners)))
	for _, o := range owners {
		e.id(o)
	}
	e.u32(uint32(len(pages)))
	for _, p := range pages {
		e.u32(uint32(p.Number))
		e.u16(p.Owner)
		e.serial(p.Serial)
	}
}

func decodeRefs(d *decoder) (owners []chunk.VolumeID, pages []PageRef) {
	n := d.count(MaxOwners, 16)
	owners = make([]chunk.VolumeID, n)
	for i := range owners {
		owners[i] = d.id()
	}
	n = d.count(MaxPages, 14)
	pages = make([]PageRef, n)
	for i := range pages {
		pages[i] = PageRef{Number: uint64(d.u32()), Owner: d.u16(), Serial: d.serial()}
	}
	return owners, pages
}

func validRefs(owners []chunk.VolumeID, pages []PageRef, count uint64) error {
	for i, p := range pages {
		switch {
		case i > 0 && p.Number <= pages[i-1].Number:
			return fmt.Errorf("page %d is out of order", p.Number)
		case p.Number >= count:
			return fmt.Errorf("page %d lies beyond the end", p.Number)
		case int(p.Owner) >= len(owners):
			return fmt.Errorf("page %d has owner %d of %d", p.Number, p.Owner, len(owners))
		}
	}
	return nil
}
