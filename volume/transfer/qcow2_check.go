package transfer

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// qcow2MaxClusters bounds the memory of the check: two bits a cluster of the file. 2^28 clusters of 64 KiB are 16 TiB.
const qcow2MaxClusters = 1 << 28

const (
	qcow2OffsetMask  = 0x00fffffffffffe00
	qcow2ZeroFlag    = 1
	qcow2PackedFlag  = 1 << 62
	qcow2Subclusters = 32
)

// qcow2Check walks all tables of an image before anything is read through them. In a sound image each cluster of the file has one
// use, unless compressed clusters share it; so the data that an image can show is bounded by what its file has.
type qcow2Check struct {
	*qcow2Layer
	used   clusterSet // header, tables, data
	packed clusterSet // compressed clusters
}

// check returns an error unless the image is sound, and forgets tables of level 2 that have no entry.
func (l *qcow2Layer) check(ctx context.Context) error {
	clusters := (l.fileSize + l.h.cluster() - 1) >> l.h.clusterBits
	if clusters > qcow2MaxClusters {
		return fmt.Errorf("the file has %d clusters, more than %d; convert it with larger ones (qemu-img convert -o cluster_size=2M): %w", clusters, qcow2MaxClusters, ErrFormat)
	}
	c := qcow2Check{l, newClusterSet(clusters), newClusterSet(clusters)}
	c.used.add(0)
	if err := c.tables(); err != nil {
		return fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	for i, entry := range l.l1 {
		if entry&qcow2OffsetMask == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		table, err := l.table(int64(entry & qcow2OffsetMask))
		if err != nil {
			return err
		}
		if isZero(table) {
			l.l1[i] = 0 // as good as none, and millions of them in a hole of the file cost nothing more
			continue
		}
		first := int64(i) * l.h.perL2()
		for n := int64(0); n < l.h.perL2() && (first+n)<<l.h.clusterBits < l.h.size; n++ {
			if err := c.cluster(table[n*l.h.entry():][:l.h.entry()], (first+n)<<l.h.clusterBits); err != nil {
				return fmt.Errorf("cluster of offset %d: %w: %w", (first+n)<<l.h.clusterBits, err, ErrDamaged)
			}
		}
	}
	return nil
}

// use notes the use of the clusters of a part of the file.
func (c *qcow2Check) use(off, length int64) error {
	if off%c.h.cluster() != 0 || off > c.fileSize || length > c.fileSize-off {
		return fmt.Errorf("%d bytes at %d of a file of %d", length, off, c.fileSize)
	}
	for i := off >> c.h.clusterBits; i<<c.h.clusterBits < off+length; i++ {
		if c.used.has(i) || c.packed.has(i) {
			return fmt.Errorf("%d bytes at %d: %w", length, off, errOverlap)
		}
		c.used.add(i)
	}
	return nil
}

// tables notes where the tables are.
func (c *qcow2Check) tables() error {
	if err := c.use(c.h.l1Off, int64(c.h.l1Size)*8); err != nil {
		return fmt.Errorf("level 1 table: %w", err)
	}
	if err := c.use(c.h.refOff, c.h.refLength); err != nil {
		return fmt.Errorf("refcount table: %w", err)
	}
	blocks, err := readTable(c.r, c.h.refOff, int(c.h.refLength/8))
	if err != nil {
		return err
	}
	for i, off := range blocks {
		if off == 0 {
			continue
		}
		if err := c.use(int64(off&^511&(1<<63-1)), c.h.cluster()); err != nil {
			return fmt.Errorf("refcount block %d: %w", i, err)
		}
	}
	for i, entry := range c.l1 {
		if off := int64(entry & qcow2OffsetMask); off != 0 {
			if err := c.use(off, c.h.cluster()); err != nil {
				return fmt.Errorf("level 2 table %d: %w", i, err)
			}
		}
	}
	return nil
}

// cluster checks the entry of the cluster at off of the disk.
func (c *qcow2Check) cluster(b []byte, off int64) error {
	entry := binary.BigEndian.Uint64(b)
	if entry&qcow2PackedFlag != 0 {
		at, length := c.h.compressed(entry)
		if at >= c.fileSize || at < c.h.cluster() {
			return fmt.Errorf("compressed data at %d of a file of %d bytes", at, c.fileSize)
		}
		for i := at >> c.h.clusterBits; i<<c.h.clusterBits < min(at+length, c.fileSize); i++ {
			if c.used.has(i) {
				return fmt.Errorf("compressed data at %d: %w", at, errOverlap)
			}
			c.packed.add(i)
		}
		return nil
	}
	host := int64(entry & qcow2OffsetMask)
	zero := entry&qcow2ZeroFlag != 0
	if c.h.extended {
		return c.subclusters(host, binary.BigEndian.Uint64(b[8:]), zero, off)
	}
	switch {
	case zero && c.h.version < 3:
		return fmt.Errorf("entry %#x of an image of version 2", entry)
	case zero || host == 0:
		return c.aligned(host) // nothing is read there
	}
	return c.use(host, min(c.h.cluster(), c.h.size-off))
}

func (c *qcow2Check) aligned(host int64) error {
	if host%c.h.cluster() != 0 {
		return fmt.Errorf("data at %d", host)
	}
	return nil
}

func (c *qcow2Check) subclusters(host int64, bitmap uint64, zero bool, off int64) error {
	allocated, zeros := uint32(bitmap), uint32(bitmap>>32)
	switch {
	case zero:
		return fmt.Errorf("zero flag beside subclusters")
	case allocated&zeros != 0:
		return fmt.Errorf("subclusters %#x are data and zeros", allocated&zeros)
	case host == 0 && allocated != 0:
		return fmt.Errorf("subclusters %#x without a place", allocated)
	case host == 0 || allocated == 0:
		return c.aligned(host) // nothing is read there
	}
	// The file may end after the last subcluster that was written.
	written := int64(bits.Len32(allocated)) * c.h.cluster() / qcow2Subclusters
	return c.use(host, min(written, c.h.size-off))
}
