package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"skerry/chunk"
	"skerry/mapper"
	"skerry/volume/catalog"
	"skerry/volume/hash"
)

// A delta is what makes one snapshot to another: docs/delta-format.md.

const (
	deltaMagic   = "SKDL"
	deltaVersion = 1

	deltaZstd = 1 // flag: the records are compressed

	recordData = 1
	recordZero = 2
	recordEnd  = 3

	recordSize = 1 + 8 + 8
	deltaFixed = 4 + 2 + 1 + 8 + 8 + hash.Size + hash.Size + 8
	// maxDeltaHead is the longest header.
	maxDeltaHead = deltaFixed + 3*(2+catalog.MaxName) + 4
	// maxDeltaData is the most data in one record in bytes.
	maxDeltaData = 1 << 20
)

// DeltaHeader says what a delta is the difference of.
type DeltaHeader struct {
	Volume   string // that it was made of, for people
	From, To string // names of the two snapshots
	FromSize int64  // bytes
	ToSize   int64  // bytes
	FromSum  hash.Sum
	ToSum    hash.Sum
	Created  time.Time // when To was taken
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (h DeltaHeader) encode(flags byte) []byte {
	b := make([]byte, 0, maxDeltaHead)
	b = append(b, deltaMagic...)
	b = binary.LittleEndian.AppendUint16(b, deltaVersion)
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.FromSize))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.ToSize))
	b = append(append(b, h.FromSum[:]...), h.ToSum[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.Created.UnixNano()))
	for _, name := range []string{h.Volume, h.From, h.To} {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readDeltaHeader reads a header, and returns it as it was stored, too.
func readDeltaHeader(r io.Reader) (h DeltaHeader, flags byte, stored []byte, err error) {
	b := make([]byte, deltaFixed, maxDeltaHead)
	more := func(n int) []byte {
		at := len(b)
		b = b[:at+n]
		if err == nil {
			err = readWhole(r, b[at:])
		}
		return b[at:]
	}
	if err = readWhole(r, b); err != nil {
		return h, 0, nil, err
	}
	if string(b[:4]) != deltaMagic {
		return h, 0, nil, fmt.Errorf("no delta: it begins with %q; want what skerry export --from wrote: %w", b[:4], ErrFormat)
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != deltaVersion {
		return h, 0, nil, fmt.Errorf("delta of version %d, want %d; another version of skerry reads it: %w", v, deltaVersion, ErrFormat)
	}
	flags = b[6]
	h.FromSize, h.ToSize = int64(binary.LittleEndian.Uint64(b[7:])), int64(binary.LittleEndian.Uint64(b[15:]))
	copy(h.FromSum[:], b[23:])
	copy(h.ToSum[:], b[23+hash.Size:])
	h.Created = time.Unix(0, int64(binary.LittleEndian.Uint64(b[23+2*hash.Size:]))).UTC()
	for _, name := range []*string{&h.Volume, &h.From, &h.To} {
		n := int(binary.LittleEndian.Uint16(more(2)))
		if err != nil || n > catalog.MaxName {
			return h, 0, nil, errors.Join(err, damagedDelta("a name of %d bytes", n))
		}
		*name = string(more(n))
	}
	sum := crc32.Checksum(b, castagnoli)
	if binary.LittleEndian.Uint32(more(4)) != sum || err != nil {
		return h, 0, nil, errors.Join(err, damagedDelta("the checksum of its header is wrong"))
	}
	if err := h.valid(flags); err != nil {
		return h, 0, nil, err
	}
	return h, flags, b, nil
}

func (h DeltaHeader) valid(flags byte) error {
	for _, size := range []int64{h.FromSize, h.ToSize} {
		if size <= 0 || size > mapper.MaxVolumeSize || size%chunk.SectorSize != 0 {
			return damagedDelta("size %d", size)
		}
	}
	for _, name := range []string{h.Volume, h.From, h.To} {
		if !catalog.ValidName(name) {
			return damagedDelta("name %q", name)
		}
	}
	if flags&^deltaZstd != 0 {
		return damagedDelta("flags %#x", flags)
	}
	return nil
}

func damagedDelta(format string, args ...any) error {
	return fmt.Errorf("delta: %s: %w", fmt.Sprintf(format, args...), ErrDamaged)
}

// readWhole fills b.
func readWhole(r io.Reader, b []byte) error {
	n, err := readMost(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("delta: %w", ErrShort)
	}
	if err == nil && n < len(b) {
		err = io.ErrNoProgress
	}
	return err
}

// deltaWriter writes the records of a delta.
type deltaWriter struct {
	w          io.Writer // of the records
	z          *zstd.Encoder
	sum        *blake3.Hasher
	data, zero int64 // bytes told of
}

// newDeltaWriter writes the header.
func newDeltaWriter(w io.Writer, h DeltaHeader, compress Compression) (*deltaWriter, error) {
	d := &deltaWriter{w: w, sum: blake3.New()}
	var flags byte
	if compress == Zstd {
		flags = deltaZstd
	}
	head := h.encode(flags)
	d.sum.Write(head) // never fails, says its documentation
	if err := writeAll(w, head); err != nil {
		return nil, err
	}
	if compress != Zstd {
		return d, nil
	}
	var err error
	d.z, err = zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(4<<20))
	d.w = d.z
	return d, err
}

func (d *deltaWriter) record(kind byte, off, n int64, data []byte) error {
	b := make([]byte, 0, recordSize)
	b = append(b, kind)
	b = binary.LittleEndian.AppendUint64(b, uint64(off))
	b = binary.LittleEndian.AppendUint64(b, uint64(n))
	for _, p := range [][]byte{b, data} {
		d.sum.Write(p)
		if err := writeAll(d.w, p); err != nil {
			return err
		}
	}
	return nil
}

// extent writes what is there in a range; data is nil for zeros.
func (d *deltaWriter) extent(off, n int64, data []byte) error {
	if data == nil {
		d.zero += n
		return d.record(recordZero, off, n, nil)
	}
	d.data += n
	return d.record(recordData, off, n, data)
}

// close writes the end.
func (d *deltaWriter) close() error {
	err := d.record(recordEnd, d.data, d.zero, nil)
	if err == nil {
		err = writeAll(d.w, d.sum.Sum(nil))
	}
	if d.z != nil {
		err = errors.Join(err, d.z.Close())
	}
	return err
}

// Delta is a delta that is open for reading. It is for one goroutine.
type Delta struct {
	Header DeltaHeader

	r   io.Reader // of the records
	src *sourceReader
	z   *zstd.Decoder
	sum *blake3.Hasher
}

// sourceReader notes errors other than the end, to tell them from those of a decoder that reads from it.
type sourceReader struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (r *sourceReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// OpenDelta reads the header of a delta.
func OpenDelta(r io.Reader) (*Delta, error) {
	h, flags, stored, err := readDeltaHeader(r)
	if err != nil {
		return nil, err
	}
	d := &Delta{Header: h, src: &sourceReader{Reader: r}, sum: blake3.New()}
	d.sum.Write(stored)
	d.r = d.src
	if flags&deltaZstd != 0 {
		d.z, err = zstd.NewReader(d.src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
		d.r = d.z
	}
	return d, err
}

// Close ends the use of the delta. It does not close what it was read from.
func (d *Delta) Close() {
	if d.z != nil {
		d.z.Close()
	}
}

// read fills b with what comes next.
func (d *Delta) read(b []byte) error {
	err := readWhole(d.r, b)
	if err != nil && d.src.err == nil && !errors.Is(err, ErrShort) {
		return damagedDelta("%v", err) // the decoder's
	}
	return err
}

// each calls fn with the changes in ascending order; data, nil for zeros, is fn's until it returns. When it returns nil the delta was read
// to its end and is what was written.
func (d *Delta) each(ctx context.Context, fn func(off, n int64, data []byte) error) error {
	var at, data, zero int64
	var head [recordSize]byte
	buf := make([]byte, maxDeltaData)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.read(head[:]); err != nil {
			return err
		}
		d.sum.Write(head[:])
		off, n := int64(binary.LittleEndian.Uint64(head[1:])), int64(binary.LittleEndian.Uint64(head[9:]))
		if head[0] == recordEnd {
			if off != data || n != zero {
				return damagedDelta("it ends with %d and %d bytes, and had %d and %d", off, n, data, zero)
			}
			return d.end()
		}
		if off < at || off%chunk.SectorSize != 0 || n <= 0 || n%chunk.SectorSize != 0 || n > d.Header.ToSize-off {
			return damagedDelta("%d bytes at %d after those before %d", n, off, at)
		}
		at = off + n
		var content []byte
		switch {
		case head[0] == recordZero:
			zero += n
		case head[0] == recordData && n <= maxDeltaData:
			data += n
			content = buf[:n]
			if err := d.read(content); err != nil {
				return err
			}
			d.sum.Write(content)
		default:
			return damagedDelta("a record of kind %d with %d bytes", head[0], n)
		}
		if err := fn(off, n, content); err != nil {
			return err
		}
	}
}

// end checks what comes after the last record.
func (d *Delta) end() error {
	want := d.sum.Sum(nil)
	got := make([]byte, len(want))
	if err := d.read(got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return damagedDelta("its checksum is wrong")
	}
	switch n, err := readMost(d.r, make([]byte, 1)); {
	case n > 0:
		return damagedDelta("something follows its end")
	case err != nil && !errors.Is(err, io.EOF):
		return damagedDelta("after its end: %v", err)
	}
	return nil
}
