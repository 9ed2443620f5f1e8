package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/collect"
	"skerry/volume/transfer"
)

// small are the options of volumes with many chunks.
var small = catalog.CreateOptions{ChunkSize: chunk.MinSize}

// kinds are the two ways in which an image is reached.
var kinds = map[string]mem.Options{"file": {}, "object": {CloneFiles: true}}

// sparse returns an image file with holes, and its content.
func sparse(t testing.TB, n int, seed uint64) (path string, want []byte) {
	t.Helper()
	want = content(n, seed)
	clear(want[n/4 : n/2])
	path = filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := f.WriteAt(want[:n/4], 0)
	_, err2 := f.WriteAt(want[n/2:], int64(n/2))
	if err := errors.Join(err1, err2, f.Close()); err != nil {
		t.Fatal(err)
	}
	return path, want
}

func TestLazyImportShowsTheImageAtOnce(t *testing.T) {
	for kind, o := range kinds {
		t.Run(kind, func(t *testing.T) {
			ctx := t.Context()
			path, want := sparse(t, 2*mib+1000, 1)
			storage := newPool(t, o)
			p := startOn(t, storage, 1, 1)
			p.ok(p.importLazy(path, "vm1", small))
			p.clean()
			want = append(want, make([]byte, 24)...) // a whole sector
			if n := p.left("vm1"); n < 16 || n > 27 {
				t.Errorf("%d chunks of 33 came from the image", n)
			}
			p.wants("vm1", want)
			if kind == "object" {
				p.ok(os.Remove(path))
			}
			d := p.open("vm1")
			p.ok(d.WriteAt(ctx, []byte("written"), 3*chunk.MinSize+100))
			copy(want[3*chunk.MinSize+100:], "written")
			p.ok(d.Discard(ctx, chunk.MinSize, 2*chunk.BlockSize))
			clear(want[chunk.MinSize:][:2*chunk.BlockSize])
			p.same(d, want)
			p.ok(d.Flush(ctx))
			after := storage.Crash(mem.KeepNone)
			p.die()

			p = startOn(t, after, 1, 2)
			p.wants("vm1", want)
			p.collect()
			p.clean()
			if n := images(t, after); (n == 1) != (kind == "object") {
				t.Errorf("%d images are in the pool", n)
			}
			p.flatten("vm1")
			if n := p.left("vm1"); n != -1 {
				t.Errorf("%d chunks are left", n)
			}
			if kind == "file" {
				p.ok(os.Remove(path))
			}
			p.wants("vm1", want)
			if n := images(t, after); n != 0 {
				t.Errorf("%d images are left", n)
			}
			p.collect()
			p.clean()
			_, err := p.Snapshot(ctx, catalog.Ref{Volume: "vm1", Snapshot: "s1"})
			p.ok(err)
			p.stop()
		})
	}
}

func TestLazyImportOfQcow2(t *testing.T) {
	for kind, o := range kinds {
		t.Run(kind, func(t *testing.T) {
			raw, want := sparse(t, 3*mib, 2)
			path := filepath.Join(t.TempDir(), "image.qcow2")
			if out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-O", "qcow2", raw, path).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			p := startOn(t, newPool(t, o), 1, 1)
			c := small
			c.Size = 4 * mib
			p.ok(p.importLazy(path, "vm1", c))
			want = append(want, make([]byte, mib)...)
			p.wants("vm1", want)
			p.flatten("vm1")
			p.wants("vm1", want)
			p.collect()
			p.clean()
			p.stop()
		})
	}
}

// TestChangedImageIsDamage changes the image in all ways, with the volume open and closed.
func TestChangedImageIsDamage(t *testing.T) {
	change := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rewrite := func(t *testing.T, path string, flags int) {
		f, err := os.OpenFile(path, flags, 0)
		change(t, err)
		_, err = f.WriteAt([]byte("changed"), 0)
		change(t, errors.Join(err, f.Close()))
	}
	for name, do := range map[string]func(t *testing.T, path string){
		"written":   func(t *testing.T, path string) { rewrite(t, path, os.O_RDWR) },
		"truncated": func(t *testing.T, path string) { change(t, os.Truncate(path, mib/2)) },
		"extended":  func(t *testing.T, path string) { change(t, os.Truncate(path, 2*mib)) },
		"touched":   func(t *testing.T, path string) { change(t, os.Chmod(path, 0o640)) },
		"written with its time set back": func(t *testing.T, path string) {
			st, err := os.Stat(path)
			change(t, err)
			rewrite(t, path, os.O_RDWR)
			change(t, os.Chtimes(path, st.ModTime(), st.ModTime()))
		},
		"replaced": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			change(t, err)
			change(t, os.WriteFile(path+".new", b, 0o600))
			change(t, os.Rename(path+".new", path))
		},
		"replaced by a directory": func(t *testing.T, path string) {
			change(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700)))
		},
		"replaced by a link to it": func(t *testing.T, path string) {
			change(t, errors.Join(os.Rename(path, path+".old"), os.Symlink(path+".old", path)))
		},
		"written through a mapping": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			change(t, err)
			m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			change(t, err)
			m[5]++
			change(t, errors.Join(unix.Munmap(m), f.Close()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			path, want := sparse(t, mib, 4)
			p := startOn(t, newPool(t, mem.Options{}), 1, 1)
			p.ok(p.importLazy(path, "vm1", small))
			d := p.open("vm1")
			p.same(d, want)
			p.ok(d.WriteAt(ctx, []byte("mine"), 20*chunk.BlockSize))
			do(t, path)
			buf := make([]byte, 100)
			p.fails(d.ReadAt(ctx, buf, 0), volume.ErrDamaged, "read")
			p.fails(d.WriteAt(ctx, []byte("part of a block"), 50*chunk.BlockSize+7), volume.ErrDamaged, "write")
			p.fails(d.Flatten(ctx, volume.FlattenOptions{}), volume.ErrDamaged, "flatten")
			p.ok(d.ReadAt(ctx, buf[:4], 20*chunk.BlockSize))
			if string(buf[:4]) != "mine" {
				t.Errorf("what was written is %q", buf[:4])
			}
			p.ok(d.Close(ctx))
			_, err := p.OpenVolume(ctx, "vm1")
			p.fails(err, transfer.ErrMoved, "open")
			p.fails(err, volume.ErrDamaged, "open")
			if r, err := checkAll(p); err != nil || !r {
				t.Errorf("check finds no damage: %v", err)
			}
			p.collect()
			_, err = p.Remove(ctx, catalog.Ref{Volume: "vm1"}, catalog.RemoveOptions{})
			p.ok(err)
			p.clean()
			p.stop()
		})
	}
}

func TestMissingImageIsTold(t *testing.T) {
	ctx := t.Context()
	path, want := sparse(t, mib, 5)
	p := startOn(t, newPool(t, mem.Options{}), 1, 1)
	p.ok(p.importLazy(path, "vm1", small))
	p.ok(os.Rename(filepath.Dir(path), filepath.Dir(path)+".away"))
	_, err := p.OpenVolume(ctx, "vm1")
	p.fails(err, drivers.ErrUnavailable, "open without the image")
	p.ok(os.Rename(filepath.Dir(path)+".away", filepath.Dir(path)))
	p.wants("vm1", want)
	p.stop()
}

func TestBoundVolumeOpensOnItsHostOnly(t *testing.T) {
	for kind, o := range kinds {
		t.Run(kind, func(t *testing.T) {
			ctx := t.Context()
			path, want := sparse(t, mib, 6)
			storage := newPool(t, o)
			p := startOn(t, storage, 1, 1)
			p.ok(p.importLazy(path, "vm1", small))
			p.stop()
			q := startOn(t, storage, 2, 1)
			if kind == "object" {
				q.wants("vm1", want)
				q.stop()
				return
			}
			_, err := q.OpenVolume(ctx, "vm1")
			q.fails(err, catalog.ErrInUse, "open on another host")
			if want := fmt.Sprintf("volume vm1: in use: it is still being copied from %s on host host1; use it there, or finish that there with: skerry flatten vm1", path); err.Error() != want {
				t.Errorf("got %q, want %q", err, want)
			}
			i, err := q.Info(ctx, "vm1")
			if err != nil || i.Source == nil || i.Source.Host != "host1" || i.Source.Path != path {
				t.Errorf("info on another host: %+v, %v", i, err)
			}
			q.checked()
			q.collect()
			q.stop()
			p = startOn(t, storage, 1, 2) // after a boot
			p.wants("vm1", want)
			p.flatten("vm1")
			p.stop()
			q = startOn(t, storage, 2, 1)
			q.wants("vm1", want)
			q.collect()
			q.clean()
			q.stop()
		})
	}
}

func TestCopyBehindEndsTheBinding(t *testing.T) {
	for kind, o := range kinds {
		t.Run(kind, func(t *testing.T) {
			path, want := sparse(t, 2*mib, 7)
			storage := newPool(t, o)
			p := startOn(t, storage, 1, 1)
			p.ok(p.importLazy(path, "vm1", small))
			d := p.open("vm1")
			p.CopyBehind(d)
			p.CopyBehind(d)
			// A copy that somebody waits for takes the place of the one that runs.
			var done, total int64
			p.ok(p.Flatten(t.Context(), "vm1", func(d, t int64) { done, total = d, t }))
			if done != total {
				t.Errorf("%d of %d bytes are copied in the end", done, total)
			}
			if s := d.Root().Source; s != nil {
				t.Errorf("the source is left: %q", s)
			}
			p.same(d, want)
			p.ok(d.Close(t.Context()))
			p.ok(os.Remove(path))
			p.wants("vm1", want)
			d = p.open("vm1")
			p.CopyBehind(d) // of what has no source
			p.ok(d.Close(t.Context()))
			p.collect()
			p.clean()
			p.stop()
		})
	}
}

// TestFlattenOfACopiedVolume flattens a volume that the copy behind has just let go of its image.
func TestFlattenOfACopiedVolume(t *testing.T) {
	path, want := sparse(t, mib, 15)
	copied := make(chan struct{})
	p := startOn(t, newPool(t, mem.Options{}), 1, 1, func(o *catalog.Options) {
		o.Logger = slog.New(signal{slog.DiscardHandler, "the image is copied; it is not needed any more", copied})
	})
	p.ok(p.importLazy(path, "vm1", small))
	d := p.open("vm1")
	p.CopyBehind(d)
	<-copied
	p.ok(d.Flatten(t.Context(), volume.FlattenOptions{}))
	p.ok(p.Flatten(t.Context(), "vm1", nil))
	p.same(d, want)
	p.stop()
}

// TestCopyBehindTriesAgain lets some calls of the copy fail, also for lack of space; after each it goes on by itself.
func TestCopyBehindTriesAgain(t *testing.T) {
	path, want := sparse(t, mib, 14)
	copied := make(chan struct{})
	p := startOn(t, newPool(t, mem.Options{}), 1, 1, func(o *catalog.Options) {
		o.CopyRetry = time.Millisecond
		o.Logger = slog.New(signal{slog.DiscardHandler, "the image is copied; it is not needed any more", copied})
	})
	p.ok(p.importLazy(path, "vm1", small))
	d := p.open("vm1")
	var creates atomic.Int64
	p.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpCreate && creates.Add(1) <= 3 {
			return faulty.Fail(drivers.ErrNoSpace)
		}
		return faulty.Pass()
	})
	p.CopyBehind(d)
	<-copied
	p.ok(os.Remove(path))
	p.same(d, want)
	p.ok(d.Close(t.Context()))
	p.collect()
	p.clean()
	p.stop()
}

// signal closes a channel when it is to log a message.
type signal struct {
	slog.Handler
	message string
	said    chan struct{}
}

func (s signal) Enabled(context.Context, slog.Level) bool { return true }

func (s signal) Handle(_ context.Context, r slog.Record) error {
	if r.Message == s.message {
		close(s.said)
	}
	return nil
}

func TestCopyBehindEndsWithItsDevice(t *testing.T) {
	path, want := sparse(t, 4*mib, 8)
	p := startOn(t, newPool(t, mem.Options{}), 1, 1)
	p.ok(p.importLazy(path, "vm1", small))
	for range 5 {
		d := p.open("vm1")
		p.CopyBehind(d)
		p.ok(d.Close(t.Context()))
		p.CopyBehind(d)
	}
	p.wants("vm1", want)
	p.clean()
	p.stop()
}

func TestWhatCannotBeReadLaterIsRefused(t *testing.T) {
	dir := t.TempDir()
	raw, _ := sparse(t, mib, 9)
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, args := range [][]string{
		{"mkfifo", path("pipe")},
		{"sh", "-c", "gzip -c " + raw + " >" + path("gz")},
		{"qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", path("backed")},
		{"truncate", "-s", "0", path("empty")},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	for _, name := range []string{path("pipe"), path("gz"), path("backed"), dir, "-", "/dev/null"} {
		if _, err := transfer.OpenLazy(t.Context(), name, transfer.Auto); !errors.Is(err, transfer.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{path("empty"), path("missing")} {
		if _, err := transfer.OpenLazy(t.Context(), name, transfer.Auto); err == nil {
			t.Errorf("%s is opened", name)
		}
	}
}

func TestImageThatChangesDuringTheImportIsRefused(t *testing.T) {
	for kind, o := range kinds {
		t.Run(kind, func(t *testing.T) {
			ctx := t.Context()
			path, _ := sparse(t, mib, 10)
			storage := newPool(t, o)
			p := startOn(t, storage, 1, 1)
			img, err := transfer.OpenLazy(ctx, path, transfer.Auto)
			p.ok(err)
			defer img.Close()
			c, err := p.Begin(ctx, "vm1", catalog.CreateOptions{Size: mib, ChunkSize: chunk.MinSize})
			p.ok(err)
			_, err = transfer.ImportLazy(ctx, img, meddler{target{c, c.Device()}, path}, p.id)
			p.fails(err, transfer.ErrMoved, "import")
			p.ok(c.Abort(ctx))
			nothingLeft(t, p.Pool, storage, "vm1")
			p.stop()
		})
	}
}

// meddler writes to the image while it is imported.
type meddler struct {
	target
	path string
}

func (m meddler) Adopt(ctx context.Context, owner chunk.VolumeID, serial chunk.Serial, first, end uint64) error {
	f, err := os.OpenFile(m.path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("changed"), 100)
		err = errors.Join(err, f.Close())
	}
	return errors.Join(err, m.target.Adopt(ctx, owner, serial, first, end))
}

// checkAll reports whether a check finds damage.
func checkAll(p *host) (bool, error) {
	r, err := collect.Check(p.t.Context(), p.Pool, collect.CheckOptions{})
	return r.Damaged(), err
}
