package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	humanize "github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

const block = 4096

func (e *examination) path(name string) string { return filepath.Join(e.dir, name) }

// file calls fn with a new file of this content.
func (e *examination) file(name string, content []byte, fn func(*os.File) error) (err error) {
	f, err := os.OpenFile(e.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return fn(f)
}

// exclusive has several make one file at once.
func (e *examination) exclusive(context.Context) (string, error) {
	const makers, rounds = 8, 8
	for round := range rounds {
		var won, lost int
		var other error
		var mu sync.Mutex
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range makers {
			wg.Go(func() {
				<-begin
				fd, err := unix.Open(e.path(fmt.Sprintf("exclusive-%d", round)), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
					other = errors.Join(other, unix.Close(fd))
				case errors.Is(err, unix.EEXIST):
					lost++
				default:
					other = errors.Join(other, err)
				}
			})
		}
		close(begin)
		wg.Wait()
		if other != nil {
			return "", other
		}
		if won != 1 || lost != makers-1 {
			return "", fmt.Errorf("of %d that made one file exclusively %d did", makers, won)
		}
	}
	return "one of several wins", nil
}

func (e *examination) link(context.Context) (string, error) {
	for _, name := range []string{"link-a", "link-b"} {
		if err := os.WriteFile(e.path(name), []byte(name), 0o600); err != nil {
			return "", err
		}
	}
	if err := os.Link(e.path("link-a"), e.path("link-c")); err != nil {
		return "", err
	}
	if err := os.Link(e.path("link-b"), e.path("link-c")); !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("a link over a file ended with %v", err)
	}
	return "new names appear at once, and take no others' place", e.holds("link-c", "link-a")
}

// rename replaces a file under the eyes of a reader, who must see the old or the new content.
func (e *examination) rename(ctx context.Context) (string, error) {
	contents := [2]string{strings.Repeat("a", block), strings.Repeat("b", block)}
	if err := os.WriteFile(e.path("rename"), []byte(contents[0]), 0o600); err != nil {
		return "", err
	}
	stop := make(chan struct{})
	seen := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				seen <- nil
				return
			default:
			}
			b, err := os.ReadFile(e.path("rename"))
			if err == nil && string(b) != contents[0] && string(b) != contents[1] {
				err = fmt.Errorf("a reader saw %d bytes of neither file", len(b))
			}
			if err != nil {
				seen <- err
				return
			}
		}
	}()
	var err error
	for i := range 64 {
		temp := e.path("rename-temp")
		if err = os.WriteFile(temp, []byte(contents[i%2]), 0o600); err == nil {
			err = os.Rename(temp, e.path("rename"))
		}
		if err != nil || ctx.Err() != nil {
			break
		}
	}
	close(stop)
	return "a reader sees the old file or the new one", errors.Join(err, <-seen)
}

func (e *examination) names(context.Context) (string, error) {
	long := strings.Repeat("n", 127)
	for _, name := range []string{"Case", "case", long, "a+b-c.d_e"} {
		if err := e.file(name, []byte(name), func(*os.File) error { return nil }); err != nil {
			return "", err
		}
	}
	return "as they are written", e.holds("Case", "Case")
}

// holds fails unless a file has this content.
func (e *examination) holds(name, want string) error {
	b, err := os.ReadFile(e.path(name))
	if err == nil && string(b) != want {
		err = fmt.Errorf("%s has other content than was written", name)
	}
	return err
}

// sync times appends of a block and fdatasync, in space that is there already, as a journal's is.
func (e *examination) sync(ctx context.Context) (string, error) {
	content := make([]byte, (e.o.Syncs+1)*block)
	times := make([]time.Duration, 0, e.o.Syncs)
	err := e.file("sync", content, func(f *os.File) error {
		if err := unix.Fsync(int(f.Fd())); err != nil {
			return err
		}
		for i := range e.o.Syncs {
			if err := ctx.Err(); err != nil {
				return err
			}
			begin := time.Now()
			if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, block), int64(i)*block); err != nil {
				return err
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				return err
			}
			times = append(times, time.Since(begin))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	slices.Sort(times)
	e.report.Sync = SyncTime{len(times), int64(times[len(times)/2]), int64(times[len(times)-1])}
	return "fdatasync answers", nil
}

func (e *examination) syncDir(context.Context) (string, error) {
	d, err := os.Open(e.dir)
	if err != nil {
		return "", err
	}
	return "fsync of a directory answers", errors.Join(d.Sync(), d.Close())
}

// locks looks whether a lock keeps out another open of the file and another process, and ends with the file that took it.
func (e *examination) locks(ctx context.Context) (string, error) {
	path := e.path("locks")
	err := e.file("locks", nil, func(f *os.File) error {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return fmt.Errorf("flock: %w", err)
		}
		if locked, err := Locked(path); err != nil || !locked {
			return errors.Join(errors.New("a second open of a locked file can lock it"), err)
		}
		locked, err := e.o.Locked(ctx, path)
		if err == nil && !locked {
			err = errors.New("another process can lock a locked file")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	locked, err := e.o.Locked(ctx, path)
	if err == nil && locked {
		err = errors.New("a lock stays when its file is closed")
	}
	return "a lock keeps out other processes, and ends with its holder", err
}

// Locked reports whether a file is locked by another open of it.
func Locked(path string) (locked bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close() // only read
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// leastFile is the size of the largest object that a pool has: a journal.
const leastFile = 64 << 20

func (e *examination) maxFile(context.Context) (string, error) {
	var most int64
	err := e.file("size", nil, func(f *os.File) error {
		for size := int64(leastFile); size > 0; size *= 2 {
			if err := f.Truncate(size); err != nil {
				if size == leastFile {
					return err
				}
				break
			}
			most = size
		}
		return f.Truncate(0)
	})
	e.report.MaxFile = most
	return fmt.Sprintf("files of %s", humanize.IBytes(uint64(most))), err
}
