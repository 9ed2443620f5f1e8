package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// big is the size of the files that space is measured with: more than file systems preallocate or keep beside an inode.
const big = 4 << 20

// blocks returns the bytes that a file takes, once it lies on the storage.
func blocks(f *os.File) (int64, error) {
	// Some file systems give space only when they write.
	if err := f.Sync(); err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}

func (e *examination) sparse(context.Context) (string, error) {
	return "holes take no space, and are found", e.file("sparse", nil, func(f *os.File) error {
		if _, err := f.WriteAt(bytes.Repeat([]byte{1}, block), big); err != nil {
			return err
		}
		n, err := blocks(f)
		if err != nil {
			return err
		}
		if n >= big {
			return errors.New("a hole takes space")
		}
		data, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
		if err != nil {
			return fmt.Errorf("SEEK_DATA: %w", err)
		}
		hole, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("SEEK_HOLE: %w", err)
		}
		if data == 0 || data > big || hole != 0 {
			return fmt.Errorf("holes are not found: data at %d, a hole at %d", data, hole)
		}
		return nil
	})
}

func (e *examination) punch(context.Context) (string, error) {
	return "gives space back", e.file("punch", bytes.Repeat([]byte{1}, big), func(f *os.File) error {
		before, err := blocks(f)
		if err != nil {
			return err
		}
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, block, big-2*block); err != nil {
			return fmt.Errorf("fallocate: %w", err)
		}
		after, err := blocks(f)
		if err != nil {
			return err
		}
		b := make([]byte, big)
		if _, err := f.ReadAt(b, 0); err != nil {
			return err
		}
		want := bytes.Repeat([]byte{1}, big)
		clear(want[block : big-block])
		if !bytes.Equal(b, want) {
			return errors.New("what is punched does not read as zeros, or more is punched")
		}
		if after > before-big/2 {
			return errors.New("what is punched still takes its space")
		}
		return nil
	})
}

func (e *examination) preallocate(context.Context) (string, error) {
	return "space can be kept", e.file("preallocate", nil, func(f *os.File) error {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, big); err != nil {
			return fmt.Errorf("fallocate: %w", err)
		}
		n, err := blocks(f)
		if err == nil && n < big {
			err = errors.New("preallocated space is not taken")
		}
		return err
	})
}

func (e *examination) reflink(context.Context) (string, error) {
	content := bytes.Repeat([]byte{1}, big)
	return "files can share their blocks", e.file("reflink-a", content, func(from *os.File) error {
		return e.file("reflink-b", nil, func(to *os.File) error {
			if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err != nil {
				return fmt.Errorf("FICLONE: %w", err)
			}
			if _, err := to.WriteAt([]byte{2}, 0); err != nil {
				return err
			}
			return e.holds("reflink-a", string(content))
		})
	})
}

func (e *examination) nowait(context.Context) (string, error) {
	return "reads of cached data are done at once", e.file("nowait", make([]byte, block), func(f *os.File) error {
		n, err := unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, block)}, 0, unix.RWF_NOWAIT)
		if err == nil && n != block {
			err = fmt.Errorf("%d bytes", n)
		}
		if err != nil {
			return fmt.Errorf("RWF_NOWAIT: %w", err)
		}
		return nil
	})
}

// noticeTime bounds how long a notice is waited for.
const noticeTime = time.Second

func (e *examination) notices(context.Context) (string, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd) // nothing was written
	if _, err := unix.InotifyAddWatch(fd, e.dir, unix.IN_CREATE); err != nil {
		return "", err
	}
	if err := os.WriteFile(e.path("notice"), nil, 0o600); err != nil {
		return "", err
	}
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ready, int(noticeTime/time.Millisecond))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = errors.New("no notice of a new file came")
		}
		return "inotify tells of new files", err
	}
}
