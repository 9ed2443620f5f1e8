package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/lima-vm/go-qcow2reader/image/qcow2"
)

const (
	qcow2Magic = qcow2.Magic

	// Limits of the format and of qemu.
	qcow2HeaderV2       = 72
	qcow2HeaderV3       = 104
	qcow2MinClusterBits = 9
	qcow2MaxClusterBits = 21
	qcow2MaxL1          = 32 << 20 / 8 // entries

	qcow2Corrupt      = 1 << 1
	qcow2ExternalData = 1 << 2
	qcow2ExtendedL2   = 1 << 4
	qcow2Known        = 1<<5 - 1
)

// openQcow2 returns the content of the image in r, a file of fileSize bytes.
func openQcow2(r io.ReaderAt, fileSize int64, name string) (source, int64, error) {
	h, err := readQcow2Header(r, fileSize)
	if err != nil {
		return nil, 0, err
	}
	if h.backing != "" {
		return nil, 0, fmt.Errorf("has the backing file %q, join them first with: qemu-img convert -O qcow2 %s NEW.qcow2: %w", h.backing, name, ErrFormat)
	}
	// The reader closes what it reads from, and looks for its name to find backing files: it gets neither.
	img, err := qcow2.Open(io.NewSectionReader(r, 0, fileSize), nil)
	if err != nil {
		return nil, 0, errors.Join(ErrDamaged, err)
	}
	if err := img.Readable(); err != nil {
		return nil, 0, errors.Join(ErrFormat, err)
	}
	return qcow2Source{img}, h.size, nil
}

// qcow2Header is what is checked before the library reads the image: it trusts every number.
type qcow2Header struct {
	size    int64
	backing string
}

// readQcow2Header checks all that the header says against the format's limits and the length of the file.
func readQcow2Header(r io.ReaderAt, fileSize int64) (qcow2Header, error) {
	var b [qcow2HeaderV3 + 8]byte
	n, err := r.ReadAt(b[:min(int64(len(b)), fileSize)], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return qcow2Header{}, err
	}
	bad := func(format string, args ...any) (qcow2Header, error) {
		return qcow2Header{}, fmt.Errorf("qcow2 header: "+format+": %w", append(args, ErrDamaged)...)
	}
	unsupported := func(format string, args ...any) (qcow2Header, error) {
		return qcow2Header{}, fmt.Errorf("qcow2 header: "+format+": %w", append(args, ErrFormat)...)
	}
	be := binary.BigEndian
	if n < qcow2HeaderV2 || string(b[:4]) != qcow2Magic {
		return bad("too short or without magic")
	}
	version := be.Uint32(b[4:])
	backingOff, backingLen := be.Uint64(b[8:]), be.Uint32(b[16:])
	clusterBits := be.Uint32(b[20:])
	size := be.Uint64(b[24:])
	crypt := be.Uint32(b[32:])
	l1Size, l1Off := be.Uint32(b[36:]), be.Uint64(b[40:])
	var features uint64
	switch version {
	case 2:
	case 3:
		if n < qcow2HeaderV3 {
			return bad("too short")
		}
		features = be.Uint64(b[72:])
		if l := be.Uint32(b[100:]); l < qcow2HeaderV3 || l > 1<<min(clusterBits, 30) || int64(l) > fileSize || l%8 != 0 {
			return bad("length %d", l)
		} else if l > qcow2HeaderV3 && n < len(b) {
			return bad("too short")
		}
	default:
		return unsupported("version %d, want 2 or 3", version)
	}
	if clusterBits < qcow2MinClusterBits || clusterBits > qcow2MaxClusterBits {
		return bad("clusters of 2^%d bytes", clusterBits)
	}
	if crypt != 0 {
		return unsupported("the image is encrypted; decrypt it with qemu-img convert")
	}
	switch {
	case features&qcow2Corrupt != 0:
		return bad("marked as corrupt; see: qemu-img check")
	case features&qcow2ExternalData != 0:
		return unsupported("the data is in an external file; convert it with qemu-img convert")
	case features&^uint64(qcow2Known) != 0:
		return unsupported("unknown features %#x", features)
	}
	if size == 0 || size > math.MaxInt64-segmentSize {
		return bad("virtual size %d", size)
	}
	h := qcow2Header{size: int64(size)}
	entry := uint64(8)
	if features&qcow2ExtendedL2 != 0 {
		entry = 16
	}
	cluster := uint64(1) << clusterBits
	perL1 := cluster / entry * cluster
	if need := (size + perL1 - 1) / perL1; l1Size > qcow2MaxL1 || uint64(l1Size) < need {
		return bad("level 1 table of %d entries for %d bytes", l1Size, size)
	}
	if l1Off%cluster != 0 || l1Off == 0 || l1Off > uint64(fileSize) || uint64(l1Size)*8 > uint64(fileSize)-l1Off {
		return bad("level 1 table at %d with %d entries in a file of %d bytes", l1Off, l1Size, fileSize)
	}
	if backingOff == 0 {
		return h, nil
	}
	if backingLen == 0 || backingLen > 1023 || backingOff > uint64(fileSize) || uint64(backingLen) > uint64(fileSize)-backingOff {
		return bad("name of the backing file at %d with %d bytes", backingOff, backingLen)
	}
	p := make([]byte, backingLen)
	if _, err := r.ReadAt(p, int64(backingOff)); err != nil && !errors.Is(err, io.EOF) {
		return qcow2Header{}, err
	}
	h.backing = string(p)
	return h, nil
}

// qcow2Source is the content of a qcow2 image without backing file.
type qcow2Source struct{ *qcow2.Qcow2 }

// extent asks for extents only at multiples of the cluster size, as the reader needs it: segments are, and
// clusters are no larger.
func (s qcow2Source) extent(off, n int64) (int64, bool, error) {
	e, err := s.Extent(off, n)
	if err != nil {
		return 0, false, errors.Join(ErrDamaged, err)
	}
	if e.Start != off || e.Length <= 0 || e.Length > n {
		return 0, false, fmt.Errorf("extent at %d, %d bytes: got %d bytes at %d: %w", off, n, e.Length, e.Start, ErrDamaged)
	}
	return e.Length, e.Zero, nil
}
