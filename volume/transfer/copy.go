package transfer

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"skerry/chunk"
)

const (
	segmentSize    = 4 << 20
	defaultWorkers = 4
)

// Progress says how far a copy is.
type Progress struct {
	Done   int64 // bytes of the image that were dealt with, zeros included
	Total  int64 // bytes of the image; -1 while it is not known
	Copied int64 // bytes that were written
}

// Options are the choices common to all copies.
type Options struct {
	// Progress, if not nil, is called after each segment, by one goroutine at a time, with numbers that only grow.
	Progress func(Progress)
	// Workers is the number of segments copied at once; 0 means 4.
	Workers int
}

func (o Options) workers() int {
	if o.Workers > 0 {
		return o.Workers
	}
	return defaultWorkers
}

// progress adds up what the workers did.
type progress struct {
	report func(Progress)
	copied atomic.Int64

	mu  sync.Mutex
	now Progress
}

func newProgress(o Options, total int64) *progress {
	return &progress{report: o.Progress, now: Progress{Total: total}}
}

func (p *progress) done(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Done += n
	p.now.Copied = p.copied.Load()
	if p.report != nil {
		p.report(p.now)
	}
}

func (p *progress) final() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Copied = p.copied.Load()
	return p.now
}

// cursor hands out the segments of [0, size) that are worth a look, in ascending order.
type cursor struct {
	size int64
	// skip returns the first offset from off on that may have something else than zeros, or the size.
	skip func(ctx context.Context, off int64) (int64, error)
	// begin, if not nil, is told of each segment before the next one is handed out.
	begin func(off int64)
	p     *progress

	mu sync.Mutex
	at int64
}

// next returns the next segment's offset, the size at the end.
func (c *cursor) next(ctx context.Context) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at >= c.size {
		return c.size, nil
	}
	off, err := c.skip(ctx, c.at)
	if err != nil {
		return 0, err
	}
	if off < c.size {
		off = off / segmentSize * segmentSize
	}
	if off = max(off, c.at); off > c.at {
		c.p.done(off - c.at)
	}
	c.at = off
	if off < c.size {
		c.at = min(c.size, off+segmentSize)
		if c.begin != nil {
			c.begin(off)
		}
	}
	return off, nil
}

// inSegments calls do for the segments that c hands out, several at once, each with a buffer of
// the segment's size that is the callee's until it returns. The first error cancels the rest and is returned when all have
// returned.
func inSegments(ctx context.Context, c *cursor, workers int, do func(ctx context.Context, off int64, buf []byte) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for range min(int64(workers), (c.size+segmentSize-1)/segmentSize) {
		g.Go(func() error {
			buf := make([]byte, min(segmentSize, c.size))
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				off, err := c.next(ctx)
				if err != nil || off >= c.size {
					return err
				}
				if err := do(ctx, off, buf[:min(segmentSize, c.size-off)]); err != nil {
					return err
				}
				c.p.done(min(segmentSize, c.size-off))
			}
		})
	}
	return g.Wait()
}

// writer is what a positional copy writes to.
type writer func(ctx context.Context, p []byte, off int64) error

// writeData writes the blocks of p that are not zero, whose first byte belongs at off, and counts them.
func writeData(ctx context.Context, p []byte, off int64, write writer, count *atomic.Int64) error {
	for len(p) > 0 {
		zeros := dataRun(p, true)
		p, off = p[zeros:], off+int64(zeros)
		n := dataRun(p, false)
		if n == 0 {
			continue
		}
		if err := write(ctx, p[:n], off); err != nil {
			return fmt.Errorf("write %d bytes at %d: %w", n, off, err)
		}
		count.Add(int64(n))
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// dataRun returns how many bytes at the beginning of p, in whole blocks or to its end, are zero or are not.
func dataRun(p []byte, zero bool) int {
	n := 0
	for n < len(p) {
		b := p[n:min(n+chunk.BlockSize, len(p))]
		if isZero(b) != zero {
			break
		}
		n += len(b)
	}
	return n
}

func isZero(p []byte) bool {
	// A slice whose first byte is zero and that equals itself moved by one byte is all zeros.
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}
