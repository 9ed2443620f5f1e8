package transfer

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// qcow2Tables is how many tables of level 2 are kept in memory: two for each worker of an import.
const qcow2Tables = 2 * defaultWorkers

// qcow2Layer is one qcow2 image file: what it has itself, without its backing file. Reads may run concurrently.
type qcow2Layer struct {
	r        io.ReaderAt
	fileSize int64
	h        qcow2Header
	l1       []uint64
	unpack   unpacker

	mu     sync.Mutex
	kept   map[int64][]byte // tables of level 2 by their offset
	order  []int64          // of kept, the oldest first
	packed int64            // where the compressed cluster in plain is, 0: none
	plain  []byte           // the last cluster that was read in parts
}

// openQcow2 returns the image in r, a file of fileSize bytes, after a walk through all its tables.
func openQcow2(ctx context.Context, r io.ReaderAt, fileSize int64) (*qcow2Layer, error) {
	h, err := readQcow2Header(r, fileSize)
	if err != nil {
		return nil, err
	}
	l := &qcow2Layer{r: r, fileSize: fileSize, h: h, unpack: newUnpacker(h.compression), kept: make(map[int64][]byte)}
	if l.l1, err = readTable(r, h.l1Off, h.l1Need); err != nil {
		return nil, fmt.Errorf("level 1 table: %w", err)
	}
	if err := l.check(ctx); err != nil {
		return nil, fmt.Errorf("qcow2: %w", err)
	}
	return l, nil
}

func (l *qcow2Layer) size() int64 { return l.h.size }

// table returns the table of level 2 at off. The caller must not change it.
func (l *qcow2Layer) table(off int64) ([]byte, error) {
	l.mu.Lock()
	t := l.kept[off]
	l.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t = make([]byte, l.h.cluster())
	if err := readFull(l.r, t, off); err != nil {
		return nil, fmt.Errorf("level 2 table: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept[off] == nil {
		if len(l.order) == qcow2Tables {
			delete(l.kept, l.order[0])
			l.order = l.order[1:]
		}
		l.kept[off] = t
		l.order = append(l.order, off)
	}
	return t, nil
}

// locate returns what the image has at off.
func (l *qcow2Layer) locate(off, n int64) (run, error) {
	cluster := off >> l.h.clusterBits
	within := off & (l.h.cluster() - 1)
	i := cluster / l.h.perL2()
	l2 := int64(l.l1[i] & qcow2OffsetMask)
	if l2 == 0 {
		return run{kind: absent, length: min(n, (i+1)*l.h.perL2()<<l.h.clusterBits-off)}, nil
	}
	table, err := l.table(l2)
	if err != nil {
		return run{}, err
	}
	b := table[cluster%l.h.perL2()*l.h.entry():]
	entry := binary.BigEndian.Uint64(b)
	r := run{length: min(n, l.h.cluster()-within), host: int64(entry&qcow2OffsetMask) + within}
	switch {
	case entry&qcow2PackedFlag != 0:
		r.kind, r.packed = data, entry
	case l.h.extended:
		return l.subclusters(r, binary.BigEndian.Uint64(b[8:]), within), nil
	case entry&qcow2ZeroFlag != 0:
		r.kind = zeros
	case entry&qcow2OffsetMask == 0:
		r.kind = absent
	default:
		r.kind = data
	}
	return r, nil
}

// subclusters cuts a run, which begins at within of its cluster, where the kind of the subclusters changes.
func (l *qcow2Layer) subclusters(r run, bitmap uint64, within int64) run {
	each := l.h.cluster() / qcow2Subclusters
	kindOf := func(i int64) kind {
		switch {
		case bitmap>>i&1 != 0:
			return data
		case bitmap>>(32+i)&1 != 0:
			return zeros
		}
		return absent
	}
	i := within / each
	r.kind = kindOf(i)
	end := i + 1
	for end < qcow2Subclusters && kindOf(end) == r.kind {
		end++
	}
	r.length = min(r.length, end*each-within)
	return r
}

// read fills p with what a run of data, located at off, has.
func (l *qcow2Layer) read(p []byte, off int64, r run) error {
	if r.packed == 0 {
		return readFull(l.r, p, r.host)
	}
	within := off & (l.h.cluster() - 1)
	want := min(l.h.cluster(), l.h.size-(off-within))
	if within == 0 && int64(len(p)) == want {
		return l.decompress(p, r.packed)
	}
	// Clusters of an image over this one may be smaller: they get the parts of one cluster in turn.
	at, _ := l.h.compressed(r.packed)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.packed != at || int64(len(l.plain)) < within+int64(len(p)) {
		l.packed, l.plain = 0, make([]byte, want)
		if err := l.decompress(l.plain, r.packed); err != nil {
			return err
		}
		l.packed = at
	}
	copy(p, l.plain[within:])
	return nil
}

// decompress fills p with the beginning of the compressed cluster of an entry.
func (l *qcow2Layer) decompress(p []byte, entry uint64) error {
	at, length := l.h.compressed(entry)
	b := make([]byte, min(length, l.fileSize-at))
	if err := readFull(l.r, b, at); err != nil {
		return err
	}
	if err := l.unpack.cluster(p, b); err != nil {
		return fmt.Errorf("compressed cluster at %d: %w: %w", at, err, ErrDamaged)
	}
	return nil
}
