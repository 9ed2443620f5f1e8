package hash

import (
	"context"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"

	"skerry/volume"
)

const (
	defaultWorkers = 4
	// pieceSize is how much is read at once: it stays in the processor's cache until it is hashed.
	pieceSize = 256 << 10
)

// leaf is a leaf to be hashed, or a run of leaves of zeros.
type leaf struct {
	index uint64
	zeros uint64 // leaves from index on, all of them whole; 0: one leaf that has to be hashed
	done  chan struct{}

	hash [Size]byte // once done
	err  error
}

// errCovered says that extents are not what they should be.
var errCovered = errors.New("extents do not cover what was asked for")

// eachLeaf hashes the leaves of dev, several at once, and calls fn with them in ascending order, in one goroutine at a time. What cannot be read is
// passed on as the leaf's error.
func eachLeaf(ctx context.Context, dev Origin, o Options, fn func(*leaf) error) error {
	workers := o.Workers
	if workers <= 0 {
		workers = defaultWorkers
	}
	g, ctx := errgroup.WithContext(ctx)
	order := make(chan *leaf, 4*workers)
	jobs := make(chan *leaf)
	g.Go(func() error {
		defer close(order)
		defer close(jobs)
		return cut(ctx, dev, func(l *leaf) error {
			select {
			case order <- l:
			case <-ctx.Done():
				return ctx.Err()
			}
			if l.zeros > 0 {
				return nil
			}
			select {
			case jobs <- l:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range workers {
		g.Go(func() error {
			w := newWorker(dev)
			for l := range jobs {
				l.hash, l.err = w.hash(ctx, l.index)
				close(l.done)
			}
			return nil
		})
	}
	g.Go(func() error { return inOrder(ctx, dev.Size(), o, order, fn) })
	return g.Wait()
}

// inOrder passes leaves on as they are done.
func inOrder(ctx context.Context, size int64, o Options, order <-chan *leaf, fn func(*leaf) error) error {
	for l := range order {
		n := max(l.zeros, 1)
		if l.zeros == 0 {
			select {
			case <-l.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if ctx.Err() != nil {
				return ctx.Err() // the leaf may have failed for that
			}
		}
		if err := fn(l); err != nil {
			return err
		}
		if o.Progress != nil {
			o.Progress(min(int64(l.index+n)*LeafSize, size), size)
		}
	}
	return nil
}

// cut calls emit with the leaves of dev in ascending order.
func cut(ctx context.Context, dev Origin, emit func(*leaf) error) error {
	size := dev.Size()
	count := uint64(max(1, (size+LeafSize-1)/LeafSize))
	next := uint64(0)
	data := func(end uint64) error {
		for ; next < end; next++ {
			if err := emit(&leaf{index: next, done: make(chan struct{})}); err != nil {
				return err
			}
		}
		return nil
	}
	err := eachExtent(ctx, dev, 0, size, func(e volume.Extent) error {
		end := e.Offset + e.Length
		if e.Flags&volume.Zero == 0 {
			return data(uint64(end+LeafSize-1) / LeafSize)
		}
		first, last := uint64(e.Offset+LeafSize-1)/LeafSize, uint64(end)/LeafSize
		if first = max(first, next); first >= last {
			return nil
		}
		if err := data(first); err != nil {
			return err
		}
		next = last
		return emit(&leaf{index: first, zeros: last - first})
	})
	if err != nil {
		return err
	}
	return data(count)
}

// eachExtent calls fn for the extents of a range, clipped to it, and makes sure that they cover it.
func eachExtent(ctx context.Context, dev Origin, off, n int64, fn func(volume.Extent) error) error {
	if n == 0 {
		return nil
	}
	at, end := off, off+n
	var failed error
	err := dev.Extents(ctx, off, n, func(e volume.Extent) bool {
		if e.Offset != at || e.Length <= 0 {
			failed = fmt.Errorf("%w: %d bytes at %d, want %d", errCovered, e.Length, e.Offset, at)
			return false
		}
		e.Length = min(e.Length, end-at)
		at += e.Length
		failed = fn(e)
		return failed == nil && at < end
	})
	if failed != nil || err != nil {
		return errors.Join(failed, err)
	}
	if at != end {
		return fmt.Errorf("%w: they end at %d of %d", errCovered, at, end)
	}
	return nil
}

// worker hashes leaves, one at a time.
type worker struct {
	dev    Origin
	hasher *blake3.Hasher
	buf    []byte
	zeros  []byte
}

func newWorker(dev Origin) *worker {
	return &worker{dev: dev, hasher: blake3.NewDeriveKey(leafContext), buf: make([]byte, pieceSize), zeros: make([]byte, pieceSize)}
}

// hash returns the hash of a leaf.
func (w *worker) hash(ctx context.Context, index uint64) (h [Size]byte, err error) {
	w.hasher.Reset()
	off := int64(index) * LeafSize
	err = eachExtent(ctx, w.dev, off, min(LeafSize, w.dev.Size()-off), func(e volume.Extent) error {
		for at, end := e.Offset, e.Offset+e.Length; at < end; {
			n := min(pieceSize, end-at)
			b := w.zeros[:n]
			if e.Flags&volume.Zero == 0 {
				b = w.buf[:n]
				if err := w.dev.ReadAt(ctx, b, at); err != nil {
					return fmt.Errorf("read %d bytes at %d: %w", n, at, err)
				}
			}
			_, _ = w.hasher.Write(b) // never fails
			at += n
		}
		return nil
	})
	w.hasher.Sum(h[:0])
	return h, err
}
