package transfer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

const (
	xzMagic       = "\xfd7zXZ\x00"
	xzFooterMagic = "YZ"
	xzLZMA2       = 0x21
	// xzMaxDictionary is what an unpacking may take in memory: twice what xz -9 makes. The package xz takes
	// whatever a block asks for, up to 4 GiB, which is why the container is read here.
	xzMaxDictionary = 128 << 20
	xzMaxBlocks     = 1 << 20 // of a stream
)

// xzReader unpacks xz streams, one after the other, as https://tukaani.org/xz/xz-file-format.txt describes them.
type xzReader struct {
	in    *countedReader
	flags [2]byte
	open  bool // within a stream

	block    *lzma.Reader2 // nil: between blocks
	begin    int64         // where the block's header began
	header   int64         // length of the block's header
	size     int64         // unpacked bytes of the block
	want     int64         // what its header says of that; -1: nothing
	check    hash.Hash     // nil: none
	checkLen int

	blocks  int64
	records hash.Hash // of the sizes of the blocks, to be compared with the index
}

// countedReader counts what was read.
type countedReader struct {
	*bufio.Reader
	n int64
}

// Read implements io.Reader.
func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// ReadByte implements io.ByteReader.
func (c *countedReader) ReadByte() (byte, error) {
	b, err := c.Reader.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func newXz(r io.Reader) *xzReader {
	return &xzReader{in: &countedReader{Reader: bufio.NewReaderSize(r, 64<<10)}}
}

// Read implements io.Reader.
func (x *xzReader) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if x.block == nil {
			more, err := x.next()
			if err != nil {
				return 0, noEOF(err)
			}
			if !more {
				return 0, io.EOF
			}
			continue
		}
		n, err := x.block.Read(p)
		x.size += int64(n)
		if x.check != nil {
			x.check.Write(p[:n])
		}
		if errors.Is(err, io.EOF) {
			err = x.endBlock()
		}
		if n > 0 || err != nil {
			return n, noEOF(err)
		}
	}
	return 0, nil
}

// noEOF makes an end in the middle of something an error that no one takes for the end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func badXz(format string, args ...any) error { return fmt.Errorf("xz: "+format, args...) }

// next begins the next block, or tells that there is none.
func (x *xzReader) next() (bool, error) {
	if !x.open {
		if more, err := x.beginStream(); !more {
			return false, err
		}
	}
	x.begin = x.in.n
	length, err := x.in.ReadByte()
	if err != nil {
		return false, err
	}
	if length == 0 {
		return true, x.endStream()
	}
	return true, x.beginBlock(length)
}

// beginStream reads the header of a stream, behind padding. It returns false at the end of the file.
func (x *xzReader) beginStream() (bool, error) {
	b := make([]byte, 12)
	for {
		_, err := io.ReadFull(x.in, b[:4])
		if errors.Is(err, io.EOF) && x.in.n > 0 {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if x.in.n == 4 || binary.LittleEndian.Uint32(b) != 0 {
			break
		}
	}
	if _, err := io.ReadFull(x.in, b[4:]); err != nil {
		return false, noEOF(err)
	}
	if string(b[:6]) != xzMagic || b[6] != 0 || b[7] > 15 || crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return false, badXz("bad stream header")
	}
	x.flags = [2]byte(b[6:8])
	// The lengths that the specification gives for the 16 kinds of checks; those without a hash here are passed over.
	x.checkLen = []int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[b[7]]
	x.open, x.blocks, x.records = true, 0, sha256.New()
	return true, nil
}

// beginBlock reads the header of a block, whose first byte is length.
func (x *xzReader) beginBlock(length byte) error {
	b := make([]byte, (int(length)+1)*4)
	b[0] = length
	if _, err := io.ReadFull(x.in, b[1:]); err != nil {
		return noEOF(err)
	}
	x.header = int64(len(b))
	body, sum := b[:len(b)-4], b[len(b)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return badXz("bad block header")
	}
	flags, rest := body[1], bytes.NewReader(body[2:])
	x.want = -1
	if flags&0x40 != 0 { // the compressed size, which the index tells too
		if _, err := xzNumber(rest); err != nil {
			return err
		}
	}
	if flags&0x80 != 0 {
		n, err := xzNumber(rest)
		if err != nil {
			return err
		}
		x.want = n
	}
	var filter [3]byte
	if _, err := io.ReadFull(rest, filter[:]); err != nil || flags&0x3f != 0 || filter[0] != xzLZMA2 || filter[1] != 1 {
		return badXz("filters other than LZMA2; unpack it with xz -dc: %w", ErrFormat)
	}
	dictionary, err := lzma.DecodeDictCap(filter[2])
	if err != nil {
		return badXz("bad dictionary size")
	}
	if dictionary > xzMaxDictionary {
		return badXz("a dictionary of %d bytes, more than %d; unpack it with xz -dc: %w", dictionary, xzMaxDictionary, ErrFormat)
	}
	if x.blocks++; x.blocks > xzMaxBlocks {
		return badXz("more than %d blocks; unpack it with xz -dc: %w", xzMaxBlocks, ErrFormat)
	}
	if x.want >= 0 {
		dictionary = min(dictionary, x.want) // no block refers to more than it has
	}
	x.size, x.check = 0, newXzCheck(x.flags[1])
	x.block, err = lzma.Reader2Config{DictCap: max(int(dictionary), lzma.MinDictCap)}.NewReader2(x.in)
	return err
}

func newXzCheck(kind byte) hash.Hash {
	switch kind {
	case 1:
		return crc32.NewIEEE()
	case 4:
		return crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		return sha256.New()
	}
	return nil
}

// endBlock reads what follows the data of a block, and checks it.
func (x *xzReader) endBlock() error {
	x.block = nil
	length := x.in.n - x.begin
	b := make([]byte, -length&3+int64(x.checkLen))
	if _, err := io.ReadFull(x.in, b); err != nil {
		return noEOF(err)
	}
	padding, sum := b[:len(b)-x.checkLen], b[len(b)-x.checkLen:]
	if x.want >= 0 && x.size != x.want || !isZero(padding) {
		return badXz("a block of %d bytes, want %d", x.size, x.want)
	}
	if x.check != nil {
		got := x.check.Sum(nil)
		if x.flags[1] != 10 { // the CRCs are little-endian, which Go's are not
			for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
				got[i], got[j] = got[j], got[i]
			}
		}
		if !bytes.Equal(got, sum) {
			return badXz("a block does not match its check")
		}
	}
	x.records.Write(xzRecord(length+int64(x.checkLen), x.size))
	return nil
}

func xzRecord(length, size int64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(length)), uint64(size))
}

// endStream reads the index, whose first byte was read, and the footer.
func (x *xzReader) endStream() error {
	sum := crc32.NewIEEE()
	sum.Write([]byte{0})
	in := byteTee{x.in, sum}
	n, err := xzNumber(in)
	if err != nil {
		return err
	}
	if n != x.blocks {
		return badXz("%d blocks, the index has %d", x.blocks, n)
	}
	records := sha256.New()
	for range n {
		length, err := xzNumber(in)
		if err != nil {
			return err
		}
		size, err := xzNumber(in)
		if err != nil {
			return err
		}
		records.Write(xzRecord(length, size))
	}
	if !bytes.Equal(records.Sum(nil), x.records.Sum(nil)) {
		return badXz("the index does not match the blocks")
	}
	for (x.in.n-x.begin)&3 != 0 {
		if c, err := in.ReadByte(); err != nil || c != 0 {
			return errors.Join(badXz("bad index"), noEOF(err))
		}
	}
	length := x.in.n - x.begin
	b := make([]byte, 16)
	if _, err := io.ReadFull(x.in, b); err != nil {
		return noEOF(err)
	}
	le := binary.LittleEndian
	if le.Uint32(b) != sum.Sum32() || le.Uint32(b[4:]) != crc32.ChecksumIEEE(b[8:14]) ||
		(int64(le.Uint32(b[8:]))+1)*4 != length+4 || [2]byte(b[12:14]) != x.flags || string(b[14:]) != xzFooterMagic {
		return badXz("bad index or footer")
	}
	x.open = false
	return nil
}

// byteTee shows a hash what is read.
type byteTee struct {
	io.ByteReader
	sum hash.Hash
}

// ReadByte implements io.ByteReader.
func (t byteTee) ReadByte() (byte, error) {
	c, err := t.ByteReader.ReadByte()
	if err == nil {
		t.sum.Write([]byte{c})
	}
	return c, err
}

// xzNumber reads a number of variable length, of at most 63 bits.
func xzNumber(r io.ByteReader) (int64, error) {
	var v int64
	for i := range 9 {
		c, err := r.ReadByte()
		if err != nil {
			return 0, noEOF(err)
		}
		v |= int64(c&0x7f) << (7 * i)
		if c&0x80 == 0 {
			if c == 0 && i > 0 {
				break
			}
			return v, nil
		}
	}
	return 0, badXz("bad number")
}
