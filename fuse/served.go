package fuse

import (
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// served is the file system as the kernel sees it. Two things are added to what package fs does with the nodes. It can be stopped although the
// kernel still asks. And writes that are to be durable by themselves are: the kernel leaves that to the file system where it does not cache.
type served struct {
	fuse.RawFileSystem
	under gate
}

// gate counts what is under way, until it is stopped.
type gate struct {
	n     atomic.Int64 // what is under way, and stopped once it is
	once  sync.Once
	empty chan struct{} // closed when it is stopped and nothing is under way
}

const stopped = -1 << 62

// enter reports whether something may begin; then leave ends it.
func (g *gate) enter() bool {
	if g.n.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.n.Add(-1) == stopped {
		g.once.Do(func() { close(g.empty) })
	}
}

// stop lets nothing begin any more and waits for what is under way. It is called once.
func (g *gate) stop() {
	if g.n.Add(stopped) == stopped {
		g.once.Do(func() { close(g.empty) })
	}
	<-g.empty
}

// gone is what the kernel is told of a file system that was stopped.
const gone = fuse.Status(unix.ENOTCONN)

// Read implements [fuse.RawFileSystem].
func (s *served) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if !s.under.enter() {
		return nil, gone
	}
	defer s.under.leave()
	return s.RawFileSystem.Read(cancel, in, buf)
}

// Write implements [fuse.RawFileSystem].
func (s *served) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if !s.under.enter() {
		return 0, gone
	}
	defer s.under.leave()
	n, st := s.RawFileSystem.Write(cancel, in, data)
	return n, s.sync(cancel, in, st)
}

// Writev implements [fuse.RawFileSystem].
func (s *served) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if !s.under.enter() {
		return 0, gone
	}
	defer s.under.leave()
	n, st := s.RawFileSystem.Writev(cancel, in, data)
	return n, s.sync(cancel, in, st)
}

// sync makes a write durable if it is to be that by itself.
func (s *served) sync(cancel <-chan struct{}, in *fuse.WriteIn, st fuse.Status) fuse.Status {
	if !st.Ok() || in.Flags&(unix.O_SYNC|unix.O_DSYNC) == 0 {
		return st
	}
	return s.RawFileSystem.Fsync(cancel, &fuse.FsyncIn{InHeader: in.InHeader, Fh: in.Fh})
}

// Release implements [fuse.RawFileSystem].
func (s *served) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	if s.under.enter() {
		defer s.under.leave()
		s.RawFileSystem.Release(cancel, in)
	}
}

// Lookup implements [fuse.RawFileSystem].
func (s *served) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.Lookup(cancel, header, name, out)
}

// GetAttr implements [fuse.RawFileSystem].
func (s *served) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.GetAttr(cancel, in, out)
}

// SetAttr implements [fuse.RawFileSystem].
func (s *served) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.SetAttr(cancel, in, out)
}

// Unlink implements [fuse.RawFileSystem].
func (s *served) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.Unlink(cancel, header, name)
}

// Rename implements [fuse.RawFileSystem].
func (s *served) Rename(cancel <-chan struct{}, in *fuse.RenameIn, name, to string) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.Rename(cancel, in, name, to)
}

// Create implements [fuse.RawFileSystem].
func (s *served) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.Create(cancel, in, name, out)
}

// Open implements [fuse.RawFileSystem].
func (s *served) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.Open(cancel, in, out)
}

// Lseek implements [fuse.RawFileSystem].
func (s *served) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.Lseek(cancel, in, out)
}

// Flush implements [fuse.RawFileSystem].
func (s *served) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.Flush(cancel, in)
}

// Fsync implements [fuse.RawFileSystem].
func (s *served) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.Fsync(cancel, in)
}

// Fallocate implements [fuse.RawFileSystem].
func (s *served) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.Fallocate(cancel, in)
}

// ReadDir implements [fuse.RawFileSystem].
func (s *served) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.ReadDir(cancel, in, out)
}

// ReadDirPlus implements [fuse.RawFileSystem].
func (s *served) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.ReadDirPlus(cancel, in, out)
}

// StatFs implements [fuse.RawFileSystem].
func (s *served) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if !s.under.enter() {
		return gone
	}
	defer s.under.leave()
	return s.RawFileSystem.StatFs(cancel, in, out)
}
