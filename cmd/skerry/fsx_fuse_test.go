package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skerry/volume/fsxtest"
)

// fuseDoor is the file of the volume in a mount, opened twice: for requests of any length, and for direct ones. Which calls are made follows
// from the range, so that they are the same in a run that is repeated.
type fuseDoor struct {
	dir          string
	file, direct *os.File
	calls        atomic.Int64
}

func (d *fuseDoor) open(*server) (err error) {
	path := filepath.Join(d.dir, "vm1.raw")
	if d.file, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return err
	}
	if d.direct, err = os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0); err != nil {
		return errors.Join(err, d.file.Close())
	}
	return nil
}

func (d *fuseDoor) close() error { return errors.Join(d.file.Close(), d.direct.Close()) }

func (d *fuseDoor) readSnapshot(_ *server, name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(d.dir, "vm1@"+name+".raw"))
}

// one returns one of the open files. Direct requests are made of sectors.
func (d *fuseDoor) one(off, n int64) *os.File {
	if (off|n)%sector == 0 && (off/sector+n/sector)%2 == 0 {
		return d.direct
	}
	return d.file
}

func (d *fuseDoor) Size() (int64, error) {
	st, err := d.file.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// ReadAt reads beyond the end if p ends there: nothing must come of that.
func (d *fuseDoor) ReadAt(p []byte, off int64) error {
	f := d.one(off, int64(len(p)))
	if size, err := d.Size(); err != nil || size != off+int64(len(p)) {
		_, err2 := f.ReadAt(p, off)
		return errors.Join(err, err2)
	}
	more := make([]byte, len(p)+2*sector)
	n, err := f.ReadAt(more, off)
	if n != len(p) || !errors.Is(err, io.EOF) {
		return fmt.Errorf("%d bytes before the end, want %d: %w", n, len(p), err)
	}
	copy(p, more)
	return nil
}

func (d *fuseDoor) WriteAt(p []byte, off int64, durable bool) error {
	f := d.one(off, int64(len(p)))
	if !durable {
		_, err := f.WriteAt(p, off)
		return err
	}
	n, err := unix.Pwritev2(int(f.Fd()), [][]byte{p[:len(p)/3], p[len(p)/3:]}, off, unix.RWF_DSYNC)
	if n != len(p) && err == nil {
		err = io.ErrShortWrite
	}
	return err
}

// Zero zeroes with and without the promise to keep the size.
func (d *fuseDoor) Zero(off, n int64) error {
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE)
	if off%2 == 0 {
		mode |= unix.FALLOC_FL_KEEP_SIZE
	}
	return d.fallocate(mode, off, n)
}

func (d *fuseDoor) Punch(off, n int64) error {
	return d.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// fallocate goes on after a signal: the runtime sends itself some.
func (d *fuseDoor) fallocate(mode uint32, off, n int64) error {
	for {
		err := unix.Fallocate(int(d.file.Fd()), mode, off, n)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Sync syncs one file or the other, with or without what is not data.
func (d *fuseDoor) Sync() error {
	switch d.calls.Add(1) % 3 {
	case 0:
		return d.direct.Sync()
	case 1:
		return unix.Fdatasync(int(d.file.Fd()))
	}
	return d.file.Sync()
}

// Extents seeks for data and holes.
func (d *fuseDoor) Extents(off, n int64) ([]fsxtest.Extent, error) {
	var all []fsxtest.Extent
	for at := off; at < off+n; {
		data, err := unix.Seek(int(d.file.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return append(all, fsxtest.Extent{Offset: at, Length: off + n - at, Zero: true}), nil // the file ends with a hole
		}
		if err != nil {
			return nil, fmt.Errorf("seek for data from %d: %w", at, err)
		}
		if data > at {
			all = append(all, fsxtest.Extent{Offset: at, Length: data - at, Zero: true})
		}
		if at = data; at >= off+n {
			break
		}
		hole, err := unix.Seek(int(d.file.Fd()), at, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("seek for a hole from %d: %w", at, err)
		}
		all = append(all, fsxtest.Extent{Offset: at, Length: hole - at})
		at = hole
	}
	return all, nil
}

func (d *fuseDoor) resize(size int64) error {
	if size/sector%2 == 0 {
		return d.direct.Truncate(size)
	}
	return os.Truncate(filepath.Join(d.dir, "vm1.raw"), size)
}

// sizeTime bounds the wait for the size of a file whose volume was resized behind the mount's back: the kernel tells nobody.
const sizeTime = 10 * time.Second

// sees waits until the file has some size.
func (d *fuseDoor) sees(size int64) error {
	for deadline := time.Now().Add(sizeTime); ; time.Sleep(time.Millisecond) {
		n, err := d.Size()
		if err != nil || n == size {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the file has %d bytes still, want %d", n, size)
		}
	}
}

// fsxMount returns what starts a mount, with arguments, which prints so many lines when it is ready; and the door to its file.
func fsxMount(w *world, lines int, args ...string) (start func() *server, d *fuseDoor) {
	w.t.Helper()
	dir := w.path("m")
	if err := os.Mkdir(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { // of a test that has failed
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
		}
	})
	return func() *server { return w.start(lines, append([]string{"mount", dir}, args...)...) }, &fuseDoor{dir: dir}
}

func TestFsxFUSE(t *testing.T) {
	t.Parallel()
	seed, operations := fsxtest.Settings(t, 20_000, 1_000_000)
	w := newPool(t)
	start, file := fsxMount(w, 1)
	v, content := newFsxVolume(w, seed, fsxChunk, start, file)
	v.exercise(v.options(seed, content, fsxChunk), operations)
}

func TestFsxFUSELargeChunks(t *testing.T) {
	t.Parallel()
	seed, operations := fsxtest.Settings(t, 1500, 100_000)
	w := newPool(t)
	start, file := fsxMount(w, 1)
	v, content := newFsxVolume(w, seed, usualChunk, start, file)
	o := v.options(seed, content, usualChunk)
	o.MaxSize = 10 * mib
	v.exercise(o, operations)
}

// TestFsxBothDoors: what is done through NBD is seen through FUSE at once, and the other way round.
func TestFsxBothDoors(t *testing.T) {
	t.Parallel()
	seed, operations := fsxtest.Settings(t, 10_000, 500_000)
	w := newPool(t)
	start, file := fsxMount(w, 2, "--nbd", "unix:s")
	v, content := newFsxVolume(w, seed, fsxChunk, start, file, &nbdDoor{w: w})
	v.exercise(v.options(seed, content, fsxChunk), operations)
}

// TestFsxBothDoorsStripes writes through both doors at once.
func TestFsxBothDoorsStripes(t *testing.T) {
	t.Parallel()
	seed, operations := fsxtest.Settings(t, 4000, 200_000)
	w := newPool(t)
	start, file := fsxMount(w, 2, "--nbd", "unix:s")
	v, content := newFsxVolume(w, seed, fsxChunk, start, file, &nbdDoor{w: w})
	v.stripes(seed, content, operations)
}
