package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"skerry/nbd/client"
)

// RunFile makes the same load on a file, by pread and pwrite in this process: what the storage does when
// nothing stands before it. A file needs no requests in flight: one goroutine for each processor reads and writes, as many as there
// would be requests at most, and only one if there are flushes. Zero and Trim are not for files.
func RunFile(ctx context.Context, f *os.File, c Config) (Result, error) {
	info, err := f.Stat()
	if err != nil {
		return Result{}, err
	}
	c, err = c.fit(info.Size())
	if err == nil && (c.Mix.Zero > 0 || c.Mix.Trim > 0) {
		err = errors.New("a plain file is only read and written")
	}
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	n := min(runtime.GOMAXPROCS(0), c.Depth*c.Conns, int(min(c.slots(), MaxDepth)))
	if c.FlushEvery > 0 {
		n = 1
	}
	c.Depth = 1
	t := c.table()
	if c.Fill {
		filling := c.filling()
		if _, err := loadFile(ctx, f, &filling, n, t); err != nil {
			return Result{}, fmt.Errorf("fill: %w", err)
		}
		if err := f.Sync(); err != nil {
			return Result{}, err
		}
	}
	return loadFile(ctx, f, &c, n, t)
}

func loadFile(ctx context.Context, f *os.File, c *Config, n int, t *table) (Result, error) {
	before := processorTime()
	all := c.sessions(n, t)
	defer context.AfterFunc(ctx, func() { all[0].stop.Store(true) })()
	for _, s := range all {
		go s.onFile(f)
	}
	r, err := outcome(c, all, before)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return r, err
}

// onFile carries out the requests of a session of depth 1, one after the other.
func (s *session) onFile(f *os.File) {
	var next *request
	s.submit = func(r *request) { next = r }
	s.begin()
	for next != nil {
		r := next
		next = nil
		r.Err = perform(f, r)
		s.end(r)
	}
}

// perform carries out one request.
func perform(f *os.File, r *request) (err error) {
	switch {
	case r.index == read:
		_, err = f.ReadAt(r.Data, r.Offset)
	case r.index == flush:
		err = unix.Fdatasync(int(f.Fd()))
	default:
		if _, err = f.WriteAt(r.Data, r.Offset); err == nil && r.Flags&client.FUA != 0 {
			err = unix.Fdatasync(int(f.Fd()))
		}
	}
	return err
}
