package transfer

import (
	"encoding/binary"
	"fmt"
)

// The images that are written have version 3, clusters of 64 KiB and refcounts of 16 bits.
const (
	outBits    = 16
	outCluster = 1 << outBits
	// outPerL2 is the number of clusters that a table of level 2 describes: 512 MiB of the disk.
	outPerL2 = outCluster / 8
	// outPerBlock is the number of clusters whose refcounts a block holds: 2 GiB of the file.
	outPerBlock = outCluster / 2
	outRegion   = outPerL2 * outCluster

	qcow2Copied = 1 << 63 // the refcount is 1
)

// clustersOf returns how many clusters n bytes take.
func clustersOf(n int64) int64 { return (n + outCluster - 1) / outCluster }

// outL1Size returns the number of entries of level 1 for a disk.
func outL1Size(size int64) (int64, error) {
	n := (size + outRegion - 1) / outRegion
	if n > qcow2MaxL1 {
		return 0, fmt.Errorf("a qcow2 image of %d bytes, more than %d; export it as raw: %w", size, int64(qcow2MaxL1)*outRegion, ErrFormat)
	}
	return n, nil
}

// outHeader is what differs between headers.
type outHeader struct {
	size                int64
	l1Off, l1Size       int64
	refOff, refClusters int64
	compression         Compression
}

// encode returns the first cluster of the image.
func (h outHeader) encode() []byte {
	b := make([]byte, outCluster)
	be := binary.BigEndian
	copy(b, qcow2Magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], outBits)
	be.PutUint64(b[24:], uint64(h.size))
	be.PutUint32(b[36:], uint32(h.l1Size))
	be.PutUint64(b[40:], uint64(h.l1Off))
	be.PutUint64(b[48:], uint64(h.refOff))
	be.PutUint32(b[56:], uint32(h.refClusters))
	be.PutUint32(b[96:], 4) // refcounts of 2^4 bits
	be.PutUint32(b[100:], qcow2HeaderLong)
	if h.compression == Zstd {
		be.PutUint64(b[72:], qcow2Compression)
		b[104] = qcow2Zstd
	}
	return b // the extension that ends the list of extensions is zero
}

// encodeTable returns a table in whole clusters.
func encodeTable(t []uint64) []byte {
	b := make([]byte, clustersOf(int64(len(t))*8)*outCluster)
	for i, v := range t {
		binary.BigEndian.PutUint64(b[i*8:], v)
	}
	return b
}

// refLayout returns how many blocks of refcounts, and clusters of the table of those, a file needs that has
// clusters without them.
func refLayout(clusters int64) (blocks, table int64) {
	for {
		all := clusters + blocks + table
		b := (all + outPerBlock - 1) / outPerBlock
		t := clustersOf(b * 8)
		if b == blocks && t == table {
			return blocks, table
		}
		blocks, table = b, t
	}
}

// compressedEntry returns the entry of level 2 of length bytes of compressed data at off.
func compressedEntry(off, length int64) uint64 {
	const shift = 62 - (outBits - 8)
	sectors := (off+length-1)/512 - off/512 // beside the one in which it begins
	return qcow2PackedFlag | uint64(sectors)<<shift | uint64(off)
}
