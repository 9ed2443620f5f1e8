package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume"
)

// binding ties what is read from a file of this host to that file as it was at one moment: inode, size and times. No program can set the time
// of an inode's last change (inode(7)), and writing changes it before the new data can be read; so what was read is what the file had
// at that moment if all of these are the same afterwards.
type binding struct {
	f    *os.File
	file mapper.SourceFile
}

// foreignSystems are file systems whose files others than this kernel can change without its knowledge (statfs(2)).
var foreignSystems = map[int64]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB",
	unix.CEPH_SUPER_MAGIC: "Ceph", unix.V9FS_MAGIC: "9p", unix.AFS_SUPER_MAGIC: "AFS", unix.AFS_FS_MAGIC: "AFS",
	unix.CODA_SUPER_MAGIC: "Coda", unix.NCP_SUPER_MAGIC: "NCP", unix.FUSE_SUPER_MAGIC: "FUSE", 0x01161970: "GFS2", 0x7461636f: "OCFS2", 0x0bd00bd0: "Lustre",
}

// vagueSystems are file systems whose times do not tell each change. FAT does not store when an inode was changed: after a while that is the time of the
// last write, which programs can set. File systems in memory do not learn of what is written through a mapping, and lose the file with the machine.
var vagueSystems = map[int64]string{
	unix.MSDOS_SUPER_MAGIC: "FAT", unix.EXFAT_SUPER_MAGIC: "exFAT",
	unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.HUGETLBFS_MAGIC: "hugetlbfs",
}

// bind binds to an open file, which is made durable first: from then on every change of it changes its times.
func bind(ctx context.Context, f *os.File) (*binding, error) {
	path, err := filepath.Abs(f.Name())
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return nil, err
	}
	// What was written through a mapping is noticed only when its page is written for the first time after this.
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := settle(ctx, f); err != nil {
		return nil, err
	}
	st, err := fstat(f)
	if err != nil {
		return nil, err
	}
	b := &binding{f: f, file: describeFile(path, st)}
	return b, b.check()
}

// settle waits until the file system's clock, which takes steps of some milliseconds, has passed the last change of a file, so that the next
// one shows, also where times are stored in whole seconds.
func settle(ctx context.Context, f *os.File) error {
	const step = 4 * time.Millisecond
	for {
		st, err := fstat(f)
		if err != nil {
			return err
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			return fmt.Errorf("read the clock: %w", err)
		}
		ahead := time.Duration(st.Ctim.Nano() - now.Nano())
		if ahead > time.Second {
			return fmt.Errorf("%s was changed at %v, which is yet to come: set the clock, or import it without --lazy: %w", f.Name(), time.Unix(st.Ctim.Unix()), drivers.ErrInvalid)
		}
		if ahead += precision(st.Ctim.Nano()); ahead <= 0 {
			return nil
		}
		timer := time.NewTimer(ahead + step)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// precision returns the longest step, up to a second, in which a file system may have stored a time, in nanoseconds since 1970.
func precision(t int64) time.Duration {
	step := int64(1)
	for step < int64(time.Second) && t%(step*10) == 0 {
		step *= 10
	}
	return time.Duration(step)
}

// local fails if others than this host can change the file, or if its times do not tell changes.
func (b *binding) local() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(b.f.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", b.file.Path, err)
	}
	if name, ok := foreignSystems[int64(st.Type)]; ok {
		return fmt.Errorf("%s lies on a file system (%s) that can change without this host's knowledge: import it without --lazy: %w", b.file.Path, name, ErrFormat)
	}
	if name, ok := vagueSystems[int64(st.Type)]; ok {
		return fmt.Errorf("%s lies on a file system (%s) that does not tell changes for sure: import it without --lazy: %w", b.file.Path, name, ErrFormat)
	}
	return nil
}

// rebind opens the file that a volume is bound to, and makes sure that it is the same. Under another boot the number of its device may
// be another, too.
func rebind(file mapper.SourceFile, sameBoot bool) (*binding, error) {
	f, err := os.OpenFile(file.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if os.IsNotExist(err) {
		return nil, fmt.Errorf("the image is not there: put it back, or mount what it lies on: %w: %w", drivers.ErrUnavailable, err)
	}
	b := &binding{f: f, file: file}
	if errors.Is(err, unix.ELOOP) {
		return nil, b.changed("it is a link")
	}
	if err != nil {
		return nil, err
	}
	if !sameBoot {
		st, err := fstat(f)
		if err != nil {
			_ = f.Close() // nothing was written
			return nil, err
		}
		b.file.Device = st.Dev
	}
	if err := b.check(); err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return b, nil
}

// check fails if the open file or what its path stands for is not what was bound to.
func (b *binding) check() error {
	st, err := fstat(b.f)
	if err != nil {
		return err
	}
	if err := b.compare(st); err != nil {
		return err
	}
	err = unix.Lstat(b.file.Path, st)
	if err != nil {
		return b.changed(err.Error())
	}
	return b.compare(st)
}

func (b *binding) compare(st *unix.Stat_t) error {
	is, was := describeFile(b.file.Path, st), b.file
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return b.changed("it is no file")
	case is.Device != was.Device || is.Inode != was.Inode:
		return b.changed("it is another file")
	case is.Size != was.Size:
		return b.changed(fmt.Sprintf("it has %d bytes, not %d", is.Size, was.Size))
	case !is.Modified.Equal(was.Modified):
		return b.changed(fmt.Sprintf("it was written at %v", is.Modified.Local()))
	case !is.Changed.Equal(was.Changed):
		return b.changed(fmt.Sprintf("it was touched at %v", is.Changed.Local()))
	}
	return nil
}

func (b *binding) changed(how string) error {
	return fmt.Errorf("%w: %s %w: %s", volume.ErrDamaged, b.file.Path, ErrMoved, how)
}

func fstat(f *os.File) (*unix.Stat_t, error) {
	var st unix.Stat_t
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var statErr error
	if err := conn.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) }); err != nil {
		return nil, err
	}
	return &st, statErr
}

func describeFile(path string, st *unix.Stat_t) mapper.SourceFile {
	return mapper.SourceFile{
		Path: path, Device: st.Dev, Inode: st.Ino, Size: st.Size,
		Modified: time.Unix(st.Mtim.Unix()).UTC(), Changed: time.Unix(st.Ctim.Unix()).UTC(),
	}
}
