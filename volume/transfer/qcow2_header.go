package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

const (
	qcow2Magic = "QFI\xfb"

	// Limits of the format and of qemu.
	qcow2HeaderV2       = 72
	qcow2HeaderV3       = 104
	qcow2HeaderLong     = 112
	qcow2MinClusterBits = 9
	qcow2MaxClusterBits = 21
	qcow2MaxL1          = 32 << 20 / 8 // entries
	qcow2MaxRefTable    = 8 << 20      // bytes
	qcow2MaxBacking     = 1023         // bytes of a name

	// Incompatible features.
	qcow2Corrupt      = 1 << 1
	qcow2ExternalData = 1 << 2
	qcow2Compression  = 1 << 3
	qcow2ExtendedL2   = 1 << 4
	qcow2Known        = 1<<5 - 1

	// Header extensions.
	qcow2ExtBackingFormat = 0xe2792aca
	qcow2ExtEncryption    = 0x0537be77

	// Compression types.
	qcow2Zlib = 0 // deflate without a header
	qcow2Zstd = 1
)

// qcow2Header is what the header of an image says, checked.
type qcow2Header struct {
	size        int64 // of the disk, in bytes
	version     uint32
	clusterBits uint
	extended    bool // entries of level 2 have subclusters
	compression byte

	l1Off     int64
	l1Size    int   // entries that the table has
	l1Need    int   // entries that the disk needs
	refOff    int64 // of the table of refcount blocks
	refLength int64 // of it, in bytes

	backing       string // name of the backing file as the image has it; empty: none
	backingFormat string // empty: the image does not say
}

func (h qcow2Header) cluster() int64 { return 1 << h.clusterBits }

// entry returns the length of an entry of level 2.
func (h qcow2Header) entry() int64 {
	if h.extended {
		return 16
	}
	return 8
}

// perL2 returns how many clusters a table of level 2 describes.
func (h qcow2Header) perL2() int64 { return h.cluster() / h.entry() }

// readQcow2Header checks all that the header says against the format's limits and the length of the file.
func readQcow2Header(r io.ReaderAt, fileSize int64) (qcow2Header, error) {
	bad := func(format string, args ...any) (qcow2Header, error) {
		return qcow2Header{}, fmt.Errorf("qcow2 header: "+format+": %w", append(args, ErrDamaged)...)
	}
	b, err := readUpTo(r, fileSize, qcow2HeaderLong)
	if err != nil {
		return qcow2Header{}, err
	}
	if len(b) < qcow2HeaderV2 || string(b[:4]) != qcow2Magic {
		return bad("too short or without magic")
	}
	be := binary.BigEndian
	h := qcow2Header{version: be.Uint32(b[4:]), clusterBits: uint(be.Uint32(b[20:]))}
	if h.version != 2 && h.version != 3 {
		return qcow2Header{}, fmt.Errorf("qcow2 header: version %d, want 2 or 3; convert it with qemu-img convert: %w", h.version, ErrFormat)
	}
	if h.clusterBits < qcow2MinClusterBits || h.clusterBits > qcow2MaxClusterBits {
		return bad("clusters of 2^%d bytes", h.clusterBits)
	}
	length := qcow2HeaderV2
	if h.version == 3 {
		if len(b) < qcow2HeaderV3 {
			return bad("too short")
		}
		l := be.Uint32(b[100:])
		if l < qcow2HeaderV3 || int64(l) > min(h.cluster(), fileSize) || l%8 != 0 {
			return bad("length %d", l)
		}
		length = int(l)
		if err := h.readFeatures(b, length); err != nil {
			return qcow2Header{}, fmt.Errorf("qcow2 header: %w", err)
		}
	}
	if be.Uint32(b[32:]) != 0 {
		return qcow2Header{}, fmt.Errorf("qcow2 header: the image is encrypted; decrypt it with qemu-img convert: %w", ErrFormat)
	}
	if err := h.readPlaces(b, fileSize); err != nil {
		return qcow2Header{}, fmt.Errorf("qcow2 header: %w: %w", err, ErrDamaged)
	}
	first, err := readUpTo(r, fileSize, h.cluster())
	if err != nil {
		return qcow2Header{}, err
	}
	if err := h.readExtensions(first, length); err != nil {
		return qcow2Header{}, fmt.Errorf("qcow2 header: %w", err)
	}
	return h, nil
}

// readFeatures reads what version 3 adds to the header, which has length bytes.
func (h *qcow2Header) readFeatures(b []byte, length int) error {
	be := binary.BigEndian
	features := be.Uint64(b[72:])
	if length >= qcow2HeaderLong {
		h.compression = b[104]
	}
	h.extended = features&qcow2ExtendedL2 != 0
	switch {
	case features&qcow2Corrupt != 0:
		return fmt.Errorf("marked as corrupt; see: qemu-img check: %w", ErrDamaged)
	case features&qcow2ExternalData != 0:
		return fmt.Errorf("the data is in an external file; convert it with qemu-img convert: %w", ErrFormat)
	case features&^uint64(qcow2Known) != 0:
		return fmt.Errorf("unknown features %#x; convert it with qemu-img convert: %w", features, ErrFormat)
	case h.compression > qcow2Zstd:
		return fmt.Errorf("unknown compression type %d; convert it with qemu-img convert: %w", h.compression, ErrFormat)
	case (features&qcow2Compression != 0) != (h.compression != qcow2Zlib):
		return fmt.Errorf("compression type %d with features %#x: %w", h.compression, features, ErrDamaged)
	case be.Uint32(b[96:]) > 6:
		return fmt.Errorf("refcounts of 2^%d bits: %w", be.Uint32(b[96:]), ErrDamaged)
	case h.extended && h.clusterBits < 14:
		return fmt.Errorf("subclusters in clusters of 2^%d bytes: %w", h.clusterBits, ErrDamaged)
	}
	return nil
}

// readPlaces reads the size, and where the tables are.
func (h *qcow2Header) readPlaces(b []byte, fileSize int64) error {
	be := binary.BigEndian
	size := be.Uint64(b[24:])
	if size == 0 || size > math.MaxInt64-segmentSize {
		return fmt.Errorf("virtual size %d", size)
	}
	h.size = int64(size)
	cluster := uint64(h.cluster())
	inFile := func(off, length uint64) bool {
		return off != 0 && off%cluster == 0 && off <= uint64(fileSize) && length <= uint64(fileSize)-off
	}
	l1Size, l1Off := be.Uint32(b[36:]), be.Uint64(b[40:])
	perL1 := uint64(h.perL2()) * cluster
	need := size / perL1
	if size%perL1 != 0 {
		need++
	}
	if l1Size > qcow2MaxL1 || uint64(l1Size) < need {
		return fmt.Errorf("level 1 table of %d entries for %d bytes", l1Size, size)
	}
	if !inFile(l1Off, uint64(l1Size)*8) {
		return fmt.Errorf("level 1 table at %d with %d entries in a file of %d bytes", l1Off, l1Size, fileSize)
	}
	h.l1Off, h.l1Size, h.l1Need = int64(l1Off), int(l1Size), int(need)
	refOff, refClusters := be.Uint64(b[48:]), uint64(be.Uint32(b[56:]))
	if refClusters == 0 || refClusters > max(1, uint64(qcow2MaxRefTable)>>h.clusterBits) || !inFile(refOff, refClusters*cluster) {
		return fmt.Errorf("refcount table at %d with %d clusters in a file of %d bytes", refOff, refClusters, fileSize)
	}
	h.refOff, h.refLength = int64(refOff), int64(refClusters*cluster)
	return nil
}

// readExtensions reads header extensions and the name of the backing file, which lie in the first cluster, behind
// the header.
func (h *qcow2Header) readExtensions(first []byte, length int) error {
	be := binary.BigEndian
	off, n := be.Uint64(first[8:]), uint64(be.Uint32(first[16:]))
	end := uint64(len(first))
	if off != 0 {
		if n == 0 || n > qcow2MaxBacking || off < uint64(length) || off > end || n > end-off {
			return fmt.Errorf("name of the backing file at %d with %d bytes: %w", off, n, ErrDamaged)
		}
		h.backing = string(first[off:][:n])
		end = off
	}
	for p := first[length:end]; len(p) >= 8; {
		kind, n := be.Uint32(p), uint64(be.Uint32(p[4:]))
		p = p[8:]
		if n > uint64(len(p)) {
			return fmt.Errorf("extension %#x of %d bytes: %w", kind, n, ErrDamaged)
		}
		switch kind {
		case 0:
			return nil
		case qcow2ExtBackingFormat:
			if n > 16 {
				return fmt.Errorf("name of the backing format of %d bytes: %w", n, ErrDamaged)
			}
			h.backingFormat = string(p[:n])
		case qcow2ExtEncryption:
			return fmt.Errorf("the image is encrypted; decrypt it with qemu-img convert: %w", ErrFormat)
		}
		p = p[min(uint64(len(p)), (n+7)&^7):]
	}
	return nil
}

// compressed returns where the compressed cluster of an entry lies: in bytes, its end rounded up to a sector.
func (h qcow2Header) compressed(entry uint64) (off, length int64) {
	x := 62 - (h.clusterBits - 8)
	desc := entry & (1<<62 - 1)
	off = int64(desc & (1<<x - 1))
	return off, (int64(desc>>x)+1)*512 - off%512
}

// readUpTo reads the first n bytes, or all if the file has fewer.
func readUpTo(r io.ReaderAt, fileSize, n int64) ([]byte, error) {
	b := make([]byte, min(n, fileSize))
	if err := readFull(r, b, 0); err != nil {
		return nil, err
	}
	return b, nil
}

// readTable reads a table of 64-bit numbers.
func readTable(r io.ReaderAt, off int64, entries int) ([]uint64, error) {
	t := make([]uint64, entries)
	b := make([]byte, min(len(t)*8, 1<<20))
	for i := 0; i < len(t); {
		part := b[:min(len(b), (len(t)-i)*8)]
		if err := readFull(r, part, off+int64(i)*8); err != nil {
			return nil, err
		}
		for ; len(part) > 0; part = part[8:] {
			t[i] = binary.BigEndian.Uint64(part)
			i++
		}
	}
	return t, nil
}

// clusterSet is a set of clusters of a file.
type clusterSet []uint64

func newClusterSet(n int64) clusterSet { return make(clusterSet, (n+63)/64) }

func (s clusterSet) has(i int64) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s clusterSet) add(i int64) { s[i/64] |= 1 << (i % 64) }

var errOverlap = errors.New("lies where something else does")
