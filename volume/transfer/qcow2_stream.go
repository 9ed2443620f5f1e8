package transfer

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"skerry/volume"
)

// outMap says which clusters of a disk have data: for each table of level 2 a bitmap, nil if it has none.
type outMap []*[outPerL2 / 64]uint64

// count returns the number of clusters with data and of tables of level 2.
func (m outMap) count() (clusters, tables int64) {
	for _, part := range m {
		if part == nil {
			continue
		}
		tables++
		for _, w := range part {
			clusters += int64(bits.OnesCount64(w))
		}
	}
	return clusters, tables
}

func (m outMap) has(cluster int64) bool {
	part := m[cluster/outPerL2]
	return part != nil && part[cluster%outPerL2/64]&(1<<(cluster%64)) != 0
}

// mapOf returns the clusters of dev that have data.
func mapOf(ctx context.Context, dev Origin) (outMap, error) {
	l1Size, err := outL1Size(dev.Size())
	if err != nil {
		return nil, err
	}
	m := make(outMap, l1Size)
	full := new([outPerL2 / 64]uint64) // shared by all parts that have data everywhere
	for i := range full {
		full[i] = ^uint64(0)
	}
	skip := skipZeros(dev)
	for off := int64(0); off < dev.Size(); {
		if off, err = skip(ctx, off); err != nil || off >= dev.Size() {
			break
		}
		i := off / outRegion
		end := min((i+1)*outRegion, dev.Size())
		part := new([outPerL2 / 64]uint64)
		err = eachExtent(ctx, dev, off, end-off, func(e volume.Extent) error {
			if e.Flags&volume.Zero == 0 {
				for c := e.Offset / outCluster; c < clustersOf(e.Offset+e.Length); c++ {
					part[c%outPerL2/64] |= 1 << (c % 64)
				}
			}
			return nil
		})
		if err != nil {
			break
		}
		if *part == *full {
			part = full
		}
		m[i], off = part, end
	}
	return m, err
}

// streamQcow2 writes the content of dev as a qcow2 image from front to back: header, table of level 1, refcounts, tables of level 2, data. All of
// it but the data follows from the extents of dev, which are looked at first.
func streamQcow2(ctx context.Context, dev Origin, w io.Writer, o ExportOptions) (Progress, error) {
	p := newProgress(o.Options, dev.Size())
	if o.Compress != Uncompressed {
		return p.final(), fmt.Errorf("a qcow2 image that is written from front to back cannot be compressed; export it to a file: %w", ErrFormat)
	}
	m, err := mapOf(ctx, dev)
	if err != nil {
		return p.final(), err
	}
	if err := writeTables(w, m, dev.Size()); err != nil {
		return p.final(), fmt.Errorf("write tables: %w", err)
	}
	buf := make([]byte, segmentSize)
	for off := int64(0); off < dev.Size(); {
		if err := ctx.Err(); err != nil {
			return p.final(), err
		}
		first := off / outCluster
		length := int64(0) // of the run of clusters, with data or without
		for length < segmentSize && off+length < dev.Size() && m.has((off+length)/outCluster) == m.has(first) {
			length += outCluster
		}
		n := min(length, dev.Size()-off)
		if m.has(first) {
			clear(buf[n:length])
			if err := readZeros(ctx, dev, buf[:n], off); err != nil {
				return p.final(), err
			}
			if err := writeAll(w, buf[:length]); err != nil {
				return p.final(), fmt.Errorf("write at %d: %w", off, err)
			}
			p.copied.Add(n)
		}
		p.done(n)
		off += n
	}
	return p.final(), nil
}

// writeTables writes all that comes before the data.
func writeTables(w io.Writer, m outMap, size int64) error {
	data, tables := m.count()
	l1Clusters := clustersOf(int64(len(m)) * 8)
	blocks, refClusters := refLayout(1 + l1Clusters + tables + data)
	refOff := (1 + l1Clusters) * outCluster
	blocksOff := refOff + refClusters*outCluster
	tablesOff := blocksOff + blocks*outCluster
	dataOff := tablesOff + tables*outCluster
	all := dataOff/outCluster + data

	h := outHeader{size: size, l1Off: outCluster, l1Size: int64(len(m)), refOff: refOff, refClusters: refClusters}
	if err := writeAll(w, h.encode()); err != nil {
		return err
	}
	l1, at := make([]uint64, len(m)), tablesOff
	for i, part := range m {
		if part != nil {
			l1[i] = uint64(at) | qcow2Copied
			at += outCluster
		}
	}
	if err := writeAll(w, encodeTable(l1)); err != nil {
		return err
	}
	refTable := make([]uint64, blocks)
	for i := range refTable {
		refTable[i] = uint64(blocksOff + int64(i)*outCluster)
	}
	if err := writeAll(w, encodeTable(refTable)); err != nil {
		return err
	}
	for i := range blocks {
		b := make([]byte, outCluster)
		for j := range min(outPerBlock, all-i*outPerBlock) {
			binary.BigEndian.PutUint16(b[j*2:], 1)
		}
		if err := writeAll(w, b); err != nil {
			return err
		}
	}
	at = dataOff
	for _, part := range m {
		if part == nil {
			continue
		}
		table := make([]uint64, outPerL2)
		for i := range table {
			if part[i/64]&(1<<(i%64)) != 0 {
				table[i] = uint64(at) | qcow2Copied
				at += outCluster
			}
		}
		if err := writeAll(w, encodeTable(table)); err != nil {
			return err
		}
	}
	return nil
}
