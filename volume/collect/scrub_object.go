package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skerry/chunk"
	"skerry/drivers"
)

// suspect is an object with which something is wrong, unless nothing needs it any more.
type suspect struct {
	bad chunk.Bitmap // blocks that cannot be had
	err error        // why the first of them cannot
}

// errShort says that an object ends before what it should hold.
var errShort = fmt.Errorf("%w: it is too short", errDamage)

// object reads the blocks of an object.
func (s *scrubber) object(ctx context.Context, key objectKey, blocks chunk.Bitmap) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	info, err := s.client.Stat(ctx, key.name())
	if fatal(ctx, err) {
		return err
	}
	if err != nil {
		s.suspect(key, blocks.Clone(), err)
		return nil
	}
	var read int64
	limit := len(blocks) * 64
	buf, ok := s.buffers.Get().(*[scrubPiece]byte)
	if !ok {
		buf = new([scrubPiece]byte)
	}
	defer s.buffers.Put(buf)
	for first, end := blocks.Run(0, limit); first < limit; first, end = blocks.Run(end, limit) {
		// What is written last is written whole: the object ends no sooner.
		if have := int(info.Size / chunk.BlockSize); end > have {
			cut := max(first, have)
			s.suspect(key, only(cut, end, len(blocks)), errShort)
			if first >= cut {
				continue
			}
			if err := s.run(ctx, key, first, cut, buf[:], len(blocks)); err != nil {
				return err
			}
			read += int64(cut-first) * chunk.BlockSize
			continue
		}
		if err := s.run(ctx, key, first, end, buf[:], len(blocks)); err != nil {
			return err
		}
		read += int64(end-first) * chunk.BlockSize
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.Objects++
	return nil
}

// run reads the blocks [first, end) of an object.
func (s *scrubber) run(ctx context.Context, key objectKey, first, end int, buf []byte, words int) error {
	for first < end {
		n := min(end-first, scrubPiece/chunk.BlockSize)
		piece := buf[:n*chunk.BlockSize]
		if err := s.limit.wait(ctx, int64(len(piece))); err != nil {
			return err
		}
		err := s.readPiece(ctx, key, piece, first)
		if fatal(ctx, err) {
			return fmt.Errorf("read %s: %w", key.name(), err)
		}
		if err != nil {
			// Which of the blocks it is.
			for b := first; b < first+n; b++ {
				err := s.readPiece(ctx, key, piece[:chunk.BlockSize], b)
				if fatal(ctx, err) {
					return fmt.Errorf("read %s: %w", key.name(), err)
				}
				if err != nil {
					s.suspect(key, only(b, b+1, words), err)
				}
			}
		}
		s.progress(int64(len(piece)))
		first += n
	}
	return nil
}

// readPiece reads a piece of an object, again if that fails.
func (s *scrubber) readPiece(ctx context.Context, key objectKey, p []byte, block int) (err error) {
	for range suspectTries {
		if err = s.client.ReadAt(ctx, key.name(), p, int64(block)*chunk.BlockSize); err == nil || errors.Is(err, drivers.ErrNotFound) || ctx.Err() != nil {
			break
		}
	}
	return err
}

// only returns a set of the blocks [first, end).
func only(first, end, words int) chunk.Bitmap {
	b := make(chunk.Bitmap, words)
	b.Set(first, end)
	return b
}

// suspect notes blocks that cannot be had. It keeps them.
func (s *scrubber) suspect(key objectKey, bad chunk.Bitmap, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.objects[key]
	if x == nil {
		if len(s.objects) == maxSuspects {
			return
		}
		s.objects[key] = &suspect{bad: bad, err: err}
		return
	}
	for i, w := range bad {
		x.bad[i] |= w
	}
}

// progress counts bytes that were read.
func (s *scrubber) progress(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.Bytes += n
	if s.o.Progress != nil {
		s.o.Progress(s.report.Bytes)
	}
}

// injury lists something damaged.
func (s *scrubber) injury(i Injury) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.report.Damage) == maxInjuries {
		s.report.Unlisted++
		return
	}
	s.report.Damage = append(s.report.Damage, i)
}

// limiter lets so many bytes pass in a second.
type limiter struct {
	rate int64 // 0: any number
	turn chan struct{}
	next time.Time // guarded by turn: when the next may pass
}

func newLimiter(rate int64) *limiter { return &limiter{rate: rate, turn: make(chan struct{}, 1)} }

// wait waits until n bytes may pass.
func (l *limiter) wait(ctx context.Context, n int64) error {
	if l.rate <= 0 {
		return nil
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	now := time.Now()
	if l.next.Before(now) {
		l.next = now // what was not used is lost
	}
	timer := time.NewTimer(l.next.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	return nil
}
