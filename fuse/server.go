package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Server is a mount. Its methods may be called concurrently.
type Server struct {
	dir    string
	server *fuse.Server
	files  *served
	tree   *tree
	end    sync.Once
	left   chan struct{} // closed when the kernel asks no more
	ended  chan struct{} // closed when all files are closed for good
}

const (
	// maxBackground is how many requests of asynchronous I/O the kernel has under way, of all files of the mount.
	maxBackground = 1024
	// maxReceived bounds the memory for requests that are received and not answered, which count as the largest one each.
	maxReceived = 512 << 20
)

// kind is the type of the file system in /proc/self/mountinfo, without the fuse. in front.
const kind = "skerry"

// Mount shows volumes as files in a directory, until it is unmounted. A mount there that a dead process left is replaced; a living one
// fails with an error that matches [syscall.EBUSY].
func Mount(dir string, v Volumes, o Options) (*Server, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := clear(dir); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	o = o.withDefaults()
	a, err := directoryAccess(dir, o)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	s := &Server{dir: dir, tree: newTree(v, a, o), left: make(chan struct{}), ended: make(chan struct{})}
	options := s.options(o)
	s.files = &served{RawFileSystem: fs.NewNodeFS(&directory{tree: s.tree}, options), under: gate{empty: make(chan struct{})}}
	if s.server, err = fuse.NewServer(s.files, dir, &options.MountOptions); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	keepFromChildren()
	go s.serve()
	if err := s.server.WaitMount(); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, errors.Join(err, s.server.Unmount()))
	}
	return s, nil
}

// keepFromChildren keeps the kernel's connections from programs that are started: one that has a copy would keep the mount alive after the death
// of this process. A direct mount leaves them open.
func keepFromChildren() {
	const fds = "/proc/self/fd/"
	entries, _ := os.ReadDir(fds) // without /proc there is nothing to be done
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if to, linkErr := os.Readlink(fds + e.Name()); err == nil && linkErr == nil && to == "/dev/fuse" {
			unix.CloseOnExec(fd)
		}
	}
}

func directoryAccess(dir string, o Options) (access, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return access{}, err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || !ok {
		return access{}, syscall.ENOTDIR
	}
	return accessOf(st, owner.Uid, owner.Gid, o), nil
}

func (s *Server) options(o Options) *fs.Options {
	m := fuse.MountOptions{
		FsName: o.Source, Name: kind, Logger: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
		AllowOther: o.AllowOther, Options: []string{"default_permissions"},
		// Without asynchronous direct I/O one program has one request under way at a time.
		ExtraCapabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_ATOMIC_O_TRUNC,
		MaxBackground:     maxBackground, MaxInflightRequestBytes: maxReceived, MaxWrite: maxRequest,
		DisableXAttrs: true, DisableSplice: true, // data lies in memory
	}
	if os.Geteuid() == 0 {
		m.DirectMountStrict, m.DirectMountFlags = true, syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC
		if o.ReadOnly {
			m.DirectMountFlags |= syscall.MS_RDONLY
		}
	} else {
		m.Options = append(m.Options, "nosuid", "nodev", "noexec")
		if o.ReadOnly {
			m.Options = append(m.Options, "ro")
		}
	}
	return &fs.Options{
		MountOptions: m, EntryTimeout: &s.tree.o.Expiry, AttrTimeout: &s.tree.o.Expiry, NullPermissions: true,
		RootStableAttr: &fs.StableAttr{Ino: 1},
		Logger:         m.Logger,
	}
}

// serve answers the kernel until the directory is unmounted, or the connection is cut.
func (s *Server) serve() {
	s.server.Serve()
	close(s.left)
	s.finish()
}

// closers is how many files are closed at a time at the end: each is flushed, and one whose storage hangs does not hold up the others.
const closers = 32

// finish closes all files: the kernel does not tell of the end of handles that were open at the end.
func (s *Server) finish() {
	s.end.Do(func() {
		s.files.under.stop()
		s.tree.mu.Lock()
		var left []*handle
		for h := range s.tree.handles {
			left = append(left, h)
		}
		s.tree.mu.Unlock()
		var g errgroup.Group
		g.SetLimit(closers)
		for _, h := range left {
			g.Go(func() error {
				s.tree.end(h)
				return nil
			})
		}
		_ = g.Wait() // none fails: what goes wrong is logged
		close(s.ended)
	})
}

// Dir returns the directory, as an absolute path.
func (s *Server) Dir() string { return s.dir }

// Ended returns a channel that is closed once the directory is unmounted, by whomever, and all devices are closed.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Unmount unmounts the directory and waits until all devices are closed. It fails with an error that matches [syscall.EBUSY] while programs
// use the directory.
func (s *Server) Unmount(ctx context.Context) error {
	select {
	case <-s.ended:
		return nil
	default:
	}
	if err := unmount(s.dir, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	return s.wait(ctx)
}

// lingerTime is how long the kernel may go on asking after the directory was unmounted. It does as long as another mount namespace, a container's
// say, has a copy of the mount.
const lingerTime = 2 * time.Second

func (s *Server) wait(ctx context.Context) error {
	linger := time.NewTimer(lingerTime)
	defer linger.Stop()
	left := s.left
	for {
		select {
		case <-s.ended:
			return nil
		case <-left:
			linger.Stop() // the files are being closed already
			left = nil
		case <-linger.C:
			s.tree.log.Warn("files are closed although another mount namespace still has the directory", "mount", s.dir)
			go s.finish()
		case <-ctx.Done():
			return fmt.Errorf("unmount %s: %w", s.dir, context.Cause(ctx))
		}
	}
}

// Cut takes the directory away from the programs that still use it: their files fail from now on. It waits until all devices are closed.
func (s *Server) Cut(ctx context.Context) error {
	// The connection is aborted by the first flag, also if the second one had sufficed.
	if err := unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	return s.wait(ctx)
}
