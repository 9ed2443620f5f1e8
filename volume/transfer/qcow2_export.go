package transfer

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// qcow2File writes a qcow2 image to a file: the header in cluster 0, the table of level 1, then clusters in the order in which workers need
// them, each table of level 2 after the clusters that it describes, and at the end the refcounts. Its methods may be called concurrently.
type qcow2File struct {
	w    io.WriterAt
	size int64

	mu    sync.Mutex
	end   int64      // clusters of the file that are in use
	tail  int64      // the byte after the last compressed data
	refs  [][]uint16 // refcounts, in blocks
	l1    []uint64
	parts map[int64]*qcow2Part // tables of level 2 that are not written yet, by their index
}

// qcow2Part is a table of level 2 in the making.
type qcow2Part struct {
	table   []uint64 // nil: nothing in it yet
	running int      // segments that are being copied
}

// exportQcow2 writes the content of dev as a qcow2 image.
func exportQcow2(ctx context.Context, dev Origin, w io.WriterAt, o ExportOptions) (Progress, error) {
	l1Size, err := outL1Size(dev.Size())
	if err != nil {
		return Progress{}, err
	}
	q := &qcow2File{w: w, size: dev.Size(), l1: make([]uint64, l1Size), parts: make(map[int64]*qcow2Part)}
	q.allocate(1 + clustersOf(l1Size*8))
	p := newProgress(o.Options, dev.Size())
	pack, err := newPacker(o.Compress, o.workers())
	if err != nil {
		return Progress{}, err
	}
	defer pack.close()
	c := &cursor{size: dev.Size(), skip: skipZeros(dev), begin: q.begin, p: p}
	err = inSegments(ctx, c, o.workers(), func(ctx context.Context, off int64, buf []byte) error {
		for at := int64(0); at < int64(len(buf)); at += pieceSize {
			// Whole clusters are written, also where the disk ends within the last.
			n := min(pieceSize, int64(len(buf))-at)
			piece := make([]byte, clustersOf(n)*outCluster)
			if err := readZeros(ctx, dev, piece[:n], off+at); err != nil {
				return err
			}
			if err := q.piece(piece, off+at, pack, p); err != nil {
				return fmt.Errorf("write %d bytes at %d: %w", n, off+at, err)
			}
		}
		return q.ended(off)
	})
	if err == nil {
		err = q.finish(o.Compress)
	}
	return p.final(), err
}

func (q *qcow2File) writeAt(b []byte, off int64) error {
	n, err := q.w.WriteAt(b, off)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// begin notes that the segment at off is being copied.
func (q *qcow2File) begin(off int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := off / outRegion
	if q.parts[i] == nil {
		q.parts[i] = &qcow2Part{}
	}
	q.parts[i].running++
}

// ended notes that the segment at off was copied, and writes the tables that are complete: segments begin in
// ascending order, so these are the ones before the last that has begun.
func (q *qcow2File) ended(off int64) error {
	q.mu.Lock()
	last := int64(0)
	for i := range q.parts {
		last = max(last, i)
	}
	q.parts[off/outRegion].running--
	complete := make(map[int64][]uint64)
	for i, part := range q.parts {
		if part.running == 0 && i < last {
			complete[i] = part.table
			delete(q.parts, i)
		}
	}
	q.mu.Unlock()
	return q.writeTables(complete)
}

// writeTables writes tables of level 2.
func (q *qcow2File) writeTables(tables map[int64][]uint64) error {
	for i, table := range tables {
		if table == nil {
			continue
		}
		off := q.allocate(1)
		if err := q.writeAt(encodeTable(table), off); err != nil {
			return err
		}
		q.mu.Lock()
		q.l1[i] = uint64(off) | qcow2Copied
		q.mu.Unlock()
	}
	return nil
}

// piece writes the clusters of b, which begin at off of the disk, except those that are zero.
func (q *qcow2File) piece(b []byte, off int64, pack packer, p *progress) error {
	for len(b) > 0 {
		n := 0
		for n < len(b) && !isZero(b[n:n+outCluster]) {
			n += outCluster
		}
		if n > 0 {
			if err := q.data(b[:n], off, pack); err != nil {
				return err
			}
			p.copied.Add(min(int64(n), q.size-off))
		}
		n = min(n+outCluster, len(b)) // the cluster behind is zero
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// data writes clusters that are not zero.
func (q *qcow2File) data(b []byte, off int64, pack packer) error {
	if pack.append == nil {
		return q.plain(b, off)
	}
	var all []byte
	var lengths []int64
	var offs []int64
	for i := 0; i < len(b); i += outCluster {
		c := b[i : i+outCluster]
		packed, err := pack.append(all, c)
		if err != nil {
			return err
		}
		n := len(packed) - len(all)
		if n >= outCluster {
			if err := q.plain(c, off+int64(i)); err != nil {
				return err
			}
			continue
		}
		all, lengths, offs = packed, append(lengths, int64(n)), append(offs, off+int64(i))
	}
	if len(all) == 0 {
		return nil
	}
	at := q.pack(lengths)
	if err := q.writeAt(all, at); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, n := range lengths {
		q.setLocked(offs[i], compressedEntry(at, n))
		at += n
	}
	return nil
}

// plain writes clusters as they are.
func (q *qcow2File) plain(b []byte, off int64) error {
	at := q.allocate(int64(len(b)) / outCluster)
	if err := q.writeAt(b, at); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := int64(0); i < int64(len(b)); i += outCluster {
		q.setLocked(off+i, uint64(at+i)|qcow2Copied)
	}
	return nil
}

// setLocked notes the entry of level 2 of the cluster at off of the disk.
func (q *qcow2File) setLocked(off int64, entry uint64) {
	part := q.parts[off/outRegion]
	if part.table == nil {
		part.table = make([]uint64, outPerL2)
	}
	part.table[off/outCluster%outPerL2] = entry
}

// allocate returns the offset of n clusters that are used once.
func (q *qcow2File) allocate(n int64) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	off := q.end * outCluster
	for range n {
		q.useLocked(q.end)
		q.end++
	}
	return off
}

// pack returns the offset of compressed clusters of the given lengths, one behind the other. They share clusters of the file with what was
// packed before, if that is at its end.
func (q *qcow2File) pack(lengths []int64) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	off := q.end * outCluster
	if clustersOf(q.tail) == q.end && q.tail%outCluster != 0 {
		off = q.tail
	}
	q.tail = off
	for _, n := range lengths {
		for c := q.tail / outCluster; c < clustersOf(q.tail+n); c++ {
			q.useLocked(c)
		}
		q.tail += n
	}
	q.end = clustersOf(q.tail)
	return off
}

// useLocked counts one more use of a cluster. The uses of one are at most as many as compressed clusters find place in it.
func (q *qcow2File) useLocked(cluster int64) {
	for cluster/outPerBlock >= int64(len(q.refs)) {
		q.refs = append(q.refs, make([]uint16, outPerBlock))
	}
	q.refs[cluster/outPerBlock][cluster%outPerBlock]++
}

// finish writes what is left: tables of level 2, refcounts, the table of level 1, and last the header. No other method runs any more.
func (q *qcow2File) finish(c Compression) error {
	rest := make(map[int64][]uint64)
	for i, part := range q.parts {
		rest[i] = part.table
	}
	if err := q.writeTables(rest); err != nil {
		return err
	}
	blocks, tableClusters := refLayout(q.end)
	at := q.allocate(blocks + tableClusters)
	refTable := make([]uint64, blocks)
	for i := range refTable {
		b := make([]byte, outCluster)
		for j, n := range q.refs[i] {
			binary.BigEndian.PutUint16(b[j*2:], n)
		}
		refTable[i] = uint64(at)
		if err := q.writeAt(b, at); err != nil {
			return err
		}
		at += outCluster
	}
	if err := q.writeAt(encodeTable(refTable), at); err != nil {
		return err
	}
	if err := q.writeAt(encodeTable(q.l1), outCluster); err != nil {
		return err
	}
	h := outHeader{size: q.size, l1Off: outCluster, l1Size: int64(len(q.l1)), refOff: at, refClusters: tableClusters, compression: c}
	return q.writeAt(h.encode(), 0)
}
