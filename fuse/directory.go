package fuse

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"skerry/volume/catalog"
)

// directory is the root of a mount, its only directory.
type directory struct {
	fs.Inode
	tree *tree
}

var (
	_ fs.NodeLookuper       = (*directory)(nil)
	_ fs.NodeGetattrer      = (*directory)(nil)
	_ fs.NodeSetattrer      = (*directory)(nil)
	_ fs.NodeOpendirHandler = (*directory)(nil)
	_ fs.NodeCreater        = (*directory)(nil)
	_ fs.NodeUnlinker       = (*directory)(nil)
	_ fs.NodeRenamer        = (*directory)(nil)
	_ fs.NodeStatfser       = (*directory)(nil)
	_ fs.NodeMkdirer        = (*directory)(nil)
	_ fs.NodeRmdirer        = (*directory)(nil)
	_ fs.NodeMknoder        = (*directory)(nil)
	_ fs.NodeLinker         = (*directory)(nil)
	_ fs.NodeSymlinker      = (*directory)(nil)
)

// inode returns the inode of a file.
func (d *directory) inode(ctx context.Context, f *file) *fs.Inode {
	return d.NewInode(ctx, &node{file: f}, fs.StableAttr{Mode: syscall.S_IFREG, Ino: f.ino})
}

// Lookup implements [fs.NodeLookuper].
func (d *directory) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	ctx, cancel := patient(ctx)
	defer cancel()
	f, n := d.tree.find(ctx, name)
	if n != 0 {
		return nil, n
	}
	f.attributes(&out.Attr)
	return d.inode(ctx, f), 0
}

// Getattr implements [fs.NodeGetattrer].
func (d *directory) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	a := d.tree.access
	out.Mode, out.Uid, out.Gid, out.Nlink = a.dir, a.uid, a.gid, 2
	out.Blksize = blockSize
	born := d.tree.born
	out.SetTimes(&born, &born, &born)
	return 0
}

// Setattr implements [fs.NodeSetattrer]: nothing of the directory changes.
func (d *directory) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if n := d.tree.access.keeps(in, d.tree.access.dir); n != 0 {
		return n
	}
	return d.Getattr(ctx, h, out)
}

// keeps allows to set owner and mode to what they are.
func (a access) keeps(in *fuse.SetAttrIn, mode uint32) syscall.Errno {
	if m, ok := in.GetMode(); ok && m&0o7777 != mode {
		return syscall.EPERM
	}
	if uid, ok := in.GetUID(); ok && uid != a.uid {
		return syscall.EPERM
	}
	if gid, ok := in.GetGID(); ok && gid != a.gid {
		return syscall.EPERM
	}
	return 0
}

// Statfs implements [fs.NodeStatfser].
func (d *directory) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	ctx, cancel := patient(ctx)
	defer cancel()
	s, err := d.tree.volumes.Space(ctx)
	if err != nil {
		d.tree.failed("space cannot be determined", "", err)
		return errno(err)
	}
	out.Bsize, out.Frsize, out.NameLen = blockSize, blockSize, 2*catalog.MaxName+1+uint32(len(suffix))
	out.Blocks, out.Bfree, out.Bavail = uint64(s.Total/blockSize), uint64(s.Free/blockSize), uint64(s.Available/blockSize)
	return 0
}

var (
	errFixed  = errors.New("this mount shows given volumes under their names: make and rename volumes with skerry create and skerry rename")
	errName   = errors.New("files are named VOLUME.raw, each name of letters, digits and ._+-, beginning with a letter or a digit")
	errOpen   = fmt.Errorf("%w: a program has the file open", catalog.ErrInUse)
	errNamed  = errors.New("the name of a snapshot cannot be changed")
	errCannot = errors.New("there are only volumes and snapshots here")
)

// newName checks a name that a volume is to get.
func (t *tree) newName(name string) (string, syscall.Errno) {
	ref, ok := volumeName(name)
	var err error
	switch r, _ := catalog.ParseRef(ref); {
	case t.o.ReadOnly:
		return "", syscall.EROFS
	case !ok:
		err = errName
	case r.Snapshot != "":
		err = fmt.Errorf("a snapshot is taken with: skerry snapshot %s", ref)
	case t.o.Fixed:
		err = errFixed
	default:
		return ref, 0
	}
	t.log.Warn("file cannot be made", "file", name, "err", err)
	return "", syscall.EPERM // mv takes EINVAL for something else
}

// Create implements [fs.NodeCreater]. The file has no volume yet.
func (d *directory) Create(ctx context.Context, name string, flags, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	ctx, cancel := patient(ctx)
	defer cancel()
	ref, n := d.tree.newName(name)
	if n != 0 {
		return nil, nil, 0, n
	}
	_, err := d.tree.volumes.Lookup(ctx, ref)
	if err == nil {
		n = syscall.EEXIST
	} else if n = errno(err); n == syscall.ENOENT {
		n = 0
	}
	var f *file
	if n == 0 {
		f, n = d.tree.makePending(ref)
	}
	if n == syscall.EEXIST && flags&syscall.O_EXCL == 0 {
		return nil, nil, 0, syscall.ESTALE // the kernel looks again, and opens it
	}
	if n != 0 {
		return nil, nil, 0, n
	}
	h, err := d.tree.newHandle(ctx, f, flags)
	if err != nil {
		d.tree.dropPending(f)
		return nil, nil, 0, errno(err)
	}
	f.attributes(&out.Attr)
	return d.inode(ctx, f), h, openFlags(f), 0
}

// Unlink implements [fs.NodeUnlinker]. A file that is open stays.
func (d *directory) Unlink(ctx context.Context, name string) syscall.Errno {
	ctx, cancel := patient(ctx)
	defer cancel()
	f, n := d.tree.find(ctx, name)
	if n != 0 {
		return n
	}
	if d.tree.o.ReadOnly {
		return syscall.EROFS
	}
	err := d.remove(ctx, f)
	if err != nil {
		d.tree.refuse("file cannot be removed", f.label(), err)
	}
	return errno(err)
}

func (d *directory) remove(ctx context.Context, f *file) error {
	return f.alone(ctx, func() error {
		if f.isPending() {
			d.tree.dropPending(f)
			return nil
		}
		return d.tree.volumes.Remove(context.WithoutCancel(ctx), f.label())
	})
}

// alone does something with a file that nobody has open, or can open meanwhile.
func (f *file) alone(ctx context.Context, do func() error) error {
	for f.unused(ctx) {
		if err := f.lock(ctx); err != nil {
			return err
		}
		if f.inUse() {
			f.unlock()
			continue
		}
		defer f.unlock()
		return do()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errOpen
}

// renameNoreplace is the only flag of renameat2(2) that is known here.
const renameNoreplace = 1

// Rename implements [fs.NodeRenamer]. It replaces nothing.
func (d *directory) Rename(ctx context.Context, name string, _ fs.InodeEmbedder, to string, flags uint32) syscall.Errno {
	ctx, cancel := patient(ctx)
	defer cancel()
	f, n := d.tree.find(ctx, name)
	if n != 0 {
		return n
	}
	ref, n := d.tree.newName(to)
	if n != 0 {
		return n
	}
	if flags&^renameNoreplace != 0 {
		return syscall.EINVAL
	}
	var err error
	switch _, taken := d.tree.find(ctx, to); {
	case f.snapshot:
		d.tree.refuse("file cannot be renamed", f.label(), errNamed)
		return syscall.EPERM
	case f.label() == ref:
		return 0
	case taken == 0:
		err = fmt.Errorf("rename to %s: %w: remove that first", ref, catalog.ErrExists)
	case taken != syscall.ENOENT:
		return taken
	default:
		err = d.rename(ctx, f, ref)
	}
	if err != nil {
		d.tree.refuse("file cannot be renamed", f.label(), err)
	}
	return errno(err)
}

func (d *directory) rename(ctx context.Context, f *file, to string) error {
	t := d.tree
	return f.alone(ctx, func() error {
		old := f.label()
		if !f.isPending() {
			if err := t.volumes.Rename(context.WithoutCancel(ctx), old, to); err != nil {
				return err
			}
		} else {
			t.mu.Lock()
			if t.pending[to] != nil {
				t.mu.Unlock()
				return fmt.Errorf("%s: %w", to, catalog.ErrExists)
			}
			delete(t.pending, old)
			t.pending[to] = f
			t.mu.Unlock()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.name = to
		return nil
	})
}

func (d *directory) cannot(name string) syscall.Errno {
	d.tree.log.Warn("this cannot be made", "file", name, "err", errCannot)
	return syscall.EPERM
}

// Mkdir implements [fs.NodeMkdirer].
func (d *directory) Mkdir(_ context.Context, name string, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, d.cannot(name)
}

// Rmdir implements [fs.NodeRmdirer]: there are no directories.
func (d *directory) Rmdir(context.Context, string) syscall.Errno { return syscall.ENOTDIR }

// Mknod implements [fs.NodeMknoder].
func (d *directory) Mknod(_ context.Context, name string, _, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, d.cannot(name)
}

// Link implements [fs.NodeLinker].
func (d *directory) Link(_ context.Context, _ fs.InodeEmbedder, name string, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, d.cannot(name)
}

// Symlink implements [fs.NodeSymlinker].
func (d *directory) Symlink(_ context.Context, _, name string, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, d.cannot(name)
}

// OpendirHandle implements [fs.NodeOpendirHandler].
func (d *directory) OpendirHandle(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return &listing{dir: d}, 0, 0
}

// listing is an open directory. It shows what there was when it was read from its beginning.
type listing struct {
	dir   *directory
	read  bool
	files []*file
	names []string
	next  int
}

var (
	_ fs.FileReaddirenter = (*listing)(nil)
	_ fs.FileSeekdirer    = (*listing)(nil)
	_ fs.FileLookuper     = (*listing)(nil)
	_ fs.FileFsyncdirer   = (*listing)(nil)
)

// listTime bounds a listing.
const listTime = 30 * time.Second

func (l *listing) load(ctx context.Context) syscall.Errno {
	t := l.dir.tree
	ctx, done := patient(ctx)
	defer done()
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	entries, err := t.volumes.List(ctx)
	if err != nil {
		t.failed("volumes cannot be listed", "", err)
		return errno(err)
	}
	t.forgetGone(entries)
	l.files, l.names, l.read = l.files[:0], l.names[:0], true
	for _, e := range entries {
		l.files, l.names = append(l.files, t.file(e)), append(l.names, e.Name+suffix)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, f := range t.pending {
		l.files, l.names = append(l.files, f), append(l.names, name+suffix)
	}
	return 0
}

// Readdirent implements [fs.FileReaddirenter].
func (l *listing) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	if !l.read {
		if n := l.load(ctx); n != 0 {
			return nil, n
		}
	}
	const dots = 2
	i := l.next
	if i >= len(l.files)+dots {
		return nil, 0
	}
	l.next++
	if i < dots {
		return &fuse.DirEntry{Name: "..."[:i+1], Mode: syscall.S_IFDIR, Ino: 1, Off: uint64(l.next)}, 0
	}
	return &fuse.DirEntry{Name: l.names[i-dots], Mode: syscall.S_IFREG, Ino: l.files[i-dots].ino, Off: uint64(l.next)}, 0
}

// Lookup implements [fs.FileLookuper], for the entry that was read last.
func (l *listing) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if i := l.next - 3; i >= 0 && i < len(l.files) && l.names[i] == name {
		l.files[i].attributes(&out.Attr)
		return l.dir.inode(ctx, l.files[i]), 0
	}
	return l.dir.Lookup(ctx, name, out)
}

// Seekdir implements [fs.FileSeekdirer].
func (l *listing) Seekdir(_ context.Context, off uint64) syscall.Errno {
	if off == 0 {
		l.read = false
	} else if off > uint64(len(l.files)+2) {
		return syscall.EINVAL
	}
	l.next = int(off)
	return 0
}

// Fsyncdir implements [fs.FileFsyncdirer]: names are durable as soon as they are there.
func (l *listing) Fsyncdir(context.Context, uint32) syscall.Errno { return 0 }
