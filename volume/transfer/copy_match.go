package transfer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"skerry/chunk"
	"skerry/volume"
)

// Mirror is what is made equal to an [Origin]: a [skerry/volume.Device].
type Mirror interface {
	Origin
	WriteAt(ctx context.Context, p []byte, off int64) error
	WriteZeroes(ctx context.Context, off, n int64) error
}

// Changes calls fn with the extents in which an origin may differ from its mirror, in ascending order, until fn returns an error, which it
// returns.
type Changes func(ctx context.Context, fn func(volume.Extent) error) error

// matching is one run of match.
type matching struct {
	from Origin
	to   Mirror
	// changes limits what is looked at; nil: all.
	changes Changes
	start   int64 // all before it is equal already
	workers int
	// every is how many bytes are read between two calls of mark, which gets the offset up to which the two are equal; it is called before match
	// fails, too. Mark and report, which is told of every progress, are called by one goroutine at a time.
	every  int64
	mark   func(ctx context.Context, done int64) error
	report func(done int64)

	mu      sync.Mutex
	pending []span // begun, in ascending order; what is done at its beginning is dropped
	written int64  // bytes
	unsaved int64  // bytes read since the last mark
	reached int64  // up to where the two are equal

	marking sync.Mutex
	marked  int64 // with marking: the last offset that mark got
}

// span is a part of the content that one worker deals with.
type span struct {
	off, end int64
	done     bool
}

// match makes the mirror equal to the origin, which has the same size, and returns how many bytes it wrote. Only blocks that differ are
// written. It can be cut off at any moment and begun anew from what mark was told last. Nothing of it runs any more when it returns.
func (m *matching) match(ctx context.Context) (written int64, err error) {
	if m.from.Size() != m.to.Size() {
		return 0, fmt.Errorf("copy %d bytes onto %d", m.from.Size(), m.to.Size())
	}
	if m.changes == nil {
		m.changes = func(_ context.Context, fn func(volume.Extent) error) error {
			return fn(volume.Extent{Length: m.from.Size()})
		}
	}
	m.marked, m.reached = m.start, m.start
	g, ctx := errgroup.WithContext(ctx)
	spans := make(chan span)
	g.Go(func() error {
		defer close(spans)
		return m.feed(ctx, spans)
	})
	for range m.workers {
		g.Go(func() error {
			w := matcher{m: m, from: make([]byte, pieceSize), to: make([]byte, pieceSize)}
			for s := range spans {
				if err := w.span(ctx, s); err != nil {
					return err
				}
				if err := m.finished(ctx, s, w.read); err != nil {
					return err
				}
				w.read = 0
			}
			return nil
		})
	}
	err = g.Wait()
	if err != nil {
		_ = m.save(context.WithoutCancel(ctx), m.reached) // it is only done again else
	}
	return m.written, err
}

// feed cuts what has changed into spans that do not cross a border of segments.
func (m *matching) feed(ctx context.Context, spans chan<- span) error {
	return m.changes(ctx, func(e volume.Extent) error {
		end := min(e.Offset+e.Length, m.from.Size())
		for off := max(e.Offset, m.start); off < end; {
			s := span{off: off, end: min(end, (off/segmentSize+1)*segmentSize)}
			m.mu.Lock()
			m.pending = append(m.pending, s)
			m.mu.Unlock()
			select {
			case spans <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
			off = s.end
		}
		return nil
	})
}

// finished notes the end of a span, and marks if it is time to.
func (m *matching) finished(ctx context.Context, s span, read int64) error {
	m.mu.Lock()
	i, _ := slices.BinarySearchFunc(m.pending, s.off, func(p span, off int64) int { return cmp.Compare(p.off, off) })
	m.pending[i].done = true
	done := int64(-1)
	for len(m.pending) > 0 && m.pending[0].done {
		done = m.pending[0].end
		m.pending = m.pending[1:]
	}
	m.unsaved += read
	due := m.unsaved >= m.every && done >= 0
	if due {
		m.unsaved = 0
	}
	if done >= 0 {
		m.reached = done
		m.report(done)
	}
	m.mu.Unlock()
	if !due {
		return nil
	}
	return m.save(ctx, done)
}

// save marks.
func (m *matching) save(ctx context.Context, done int64) error {
	m.marking.Lock()
	defer m.marking.Unlock()
	if done <= m.marked { // a later one was quicker
		return nil
	}
	m.marked = done
	return m.mark(ctx, done)
}

// matcher is one worker, with its buffers.
type matcher struct {
	m        *matching
	from, to []byte
	read     int64
}

func (w *matcher) span(ctx context.Context, s span) error {
	return eachExtent(ctx, w.m.from, s.off, s.end-s.off, func(e volume.Extent) error {
		if e.Flags&volume.Zero != 0 {
			return w.zero(ctx, e.Offset, e.Length)
		}
		for at, end := e.Offset, e.Offset+e.Length; at < end; {
			b := w.from[:min(pieceSize, end-at)]
			if err := w.m.from.ReadAt(ctx, b, at); err != nil {
				return fmt.Errorf("read %d bytes at %d: %w", len(b), at, err)
			}
			w.read += int64(len(b))
			if err := w.data(ctx, b, at); err != nil {
				return err
			}
			at += int64(len(b))
		}
		return nil
	})
}

// zero makes a range of the mirror zeros where it is not.
func (w *matcher) zero(ctx context.Context, off, n int64) error {
	return eachExtent(ctx, w.m.to, off, n, func(e volume.Extent) error {
		if e.Flags&volume.Zero != 0 {
			return nil
		}
		return w.clear(ctx, e.Offset, e.Length)
	})
}

func (w *matcher) clear(ctx context.Context, off, n int64) error {
	if err := w.m.to.WriteZeroes(ctx, off, n); err != nil {
		return fmt.Errorf("zero %d bytes at %d: %w", n, off, err)
	}
	return nil
}

// data writes the blocks of b, whose first byte belongs at off, that differ.
func (w *matcher) data(ctx context.Context, b []byte, off int64) error {
	return eachExtent(ctx, w.m.to, off, int64(len(b)), func(e volume.Extent) error {
		part := b[e.Offset-off:][:e.Length]
		there := w.to[:e.Length]
		if e.Flags&volume.Zero != 0 {
			clear(there)
		} else if err := w.m.to.ReadAt(ctx, there, e.Offset); err != nil {
			return fmt.Errorf("read %d bytes at %d of the copy: %w", e.Length, e.Offset, err)
		}
		return w.differing(ctx, part, there, e.Offset)
	})
}

// differing writes the runs of blocks in which a differs from b, what is there at off.
func (w *matcher) differing(ctx context.Context, a, b []byte, off int64) error {
	for i := 0; i < len(a); {
		do, n := fateOf(a, b, i), chunk.BlockSize
		for i+n < len(a) && fateOf(a, b, i+n) == do {
			n += chunk.BlockSize
		}
		n = min(n, len(a)-i)
		at := off + int64(i)
		switch do {
		case blockZero:
			if err := w.clear(ctx, at, int64(n)); err != nil {
				return err
			}
		case blockData:
			if err := w.m.to.WriteAt(ctx, a[i:i+n], at); err != nil {
				return fmt.Errorf("write %d bytes at %d: %w", n, at, err)
			}
			w.m.mu.Lock()
			w.m.written += int64(n)
			w.m.mu.Unlock()
		}
		i += n
	}
	return nil
}

// fate is what is to be done with a block.
type fate uint8

const (
	blockSame fate = iota
	blockData
	blockZero
)

// fateOf says what is to be done with the block of a at i, where b is what is there.
func fateOf(a, b []byte, i int) fate {
	end := min(i+chunk.BlockSize, len(a))
	switch {
	case string(a[i:end]) == string(b[i:end]):
		return blockSame
	case isZero(a[i:end]):
		return blockZero
	}
	return blockData
}
