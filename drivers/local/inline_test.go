package local

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skerry/drivers"
)

// inMemory opens a backend on a file system that holds everything in memory.
func inMemory(t *testing.T) *Backend {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "local")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func openFile(t *testing.T, b *Backend, name string) *file {
	t.Helper()
	o, err := b.Open(t.Context(), name, drivers.Create)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o.(*file)
}

func TestWritesAreInlineWhileTheyAreQuick(t *testing.T) {
	b := inMemory(t)
	f := openFile(t, b, "o")
	for _, off := range []int64{0, 5, 1 << 20} {
		b.pace.until.Store(0) // a slow machine is another test's subject
		if done, err := f.TryWriteAt([]byte("data"), off); !done || err != nil {
			t.Errorf("at %d: done %v, %v", off, done, err)
		}
	}
	b.pace.hold(time.Since(b.start), time.Hour) // a write was slow a moment ago
	if done, err := f.TryWriteAt([]byte("data"), 0); done || err != nil {
		t.Errorf("after a slow write: done %v, %v", done, err)
	}
}

func TestReadsFromMemoryAreInline(t *testing.T) {
	f := openFile(t, inMemory(t), "o")
	if err := f.WriteAt([]byte("data"), 0); err != nil {
		t.Fatal(err)
	}
	p := []byte("XXXXXXXX")
	if done, err := f.TryReadAt(p, 0); !done || err != nil || string(p) != "data\x00\x00\x00\x00" {
		t.Errorf("done %v, %v, read %q", done, err, p)
	}
}

func TestFileSystemWithoutNoWaitIsRemembered(t *testing.T) {
	dir := t.TempDir()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	b.inMemory = false
	f := openFile(t, b, "o")
	if err := f.WriteAt([]byte("data"), 0); err != nil {
		t.Fatal(err)
	}
	p := []byte("XXXXXXXX")
	done, err := f.TryReadAt(p, 0)
	if err != nil || done == b.noNoWait.Load() || done && string(p) != "data\x00\x00\x00\x00" {
		t.Errorf("done %v, %v, read %q, not supported: %v", done, err, p, b.noNoWait.Load())
	}
	b.noNoWait.Store(true)
	if done, _ := f.TryReadAt(p, 0); done {
		t.Error("done where it is not supported")
	}
}

func TestErrorsOfTheSystemAreMapped(t *testing.T) {
	for errno, want := range map[unix.Errno]error{
		unix.ENOENT: drivers.ErrNotFound, unix.ENOTDIR: drivers.ErrNotFound, unix.EEXIST: drivers.ErrExists,
		unix.ENOSPC: drivers.ErrNoSpace, unix.EDQUOT: drivers.ErrNoSpace, unix.EROFS: drivers.ErrReadOnly,
		unix.EACCES: drivers.ErrReadOnly, unix.EPERM: drivers.ErrReadOnly, unix.ESTALE: drivers.ErrUnavailable,
		unix.EINVAL: drivers.ErrInvalid, unix.EFBIG: drivers.ErrInvalid, unix.EIO: unix.EIO,
		unix.EOPNOTSUPP: errors.ErrUnsupported,
	} {
		err := mapError(fmt.Errorf("call: %w", errno))
		if !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v became %v", errno, err)
		}
	}
	other := errors.New("other")
	if mapError(other) != other {
		t.Error("an error of ours was changed")
	}
}

func TestReplaceLocksAreForgotten(t *testing.T) {
	b := inMemory(t)
	for range 3 {
		if err := b.Replace(t.Context(), "o", nil, drivers.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.names) != 0 {
		t.Errorf("%d locks are kept", len(b.names))
	}
}
