package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// The peers, by name.
const (
	skerry       = "skerry"
	nbdkit       = "nbdkit file"
	qemuRaw      = "qemu-nbd raw"
	qemuQcow2    = "qemu-nbd qcow2"
	overlayRaw   = "qcow2 overlay on raw"
	overlayQcow2 = "qcow2 overlay on qcow2"
	plainFile    = "plain file"
	qemuFUSE     = "qemu-storage-daemon"
	directFile   = "plain file, O_DIRECT"
	nullOurs     = "skerry's server, no storage"
	nullNbdkit   = "nbdkit null"
	cp           = "cp --sparse=always; sync"
)

// peer is something that rows are measured on.
type peer struct {
	name  string
	disks []disk // that it can have; nil: it has its own way
	how   string // its settings, for the reader
	// make lays down a disk, once, before it is first served.
	make func(ctx context.Context, b *bed, d disk) error
	// start serves a disk. The n-th time of the whole run; a clone is made anew each time.
	start func(ctx context.Context, b *bed, d disk, n int) (*server, error)
}

// peers returns all peers that are servers, skerry first.
func peers() []peer {
	return []peer{
		{skerry, []disk{full, imported, sparse, clone}, "skerry serve, a pool on the same file system, chunks of 4 MiB", makeVolume, serveVolume},
		{nbdkit, []disk{full, imported, sparse}, "nbdkit file, its default of 16 threads", makeRaw("nbdkit"), serveNbdkit},
		{qemuRaw, []disk{full, imported, sparse}, "qemu-nbd --format raw " + qemuCache, makeRaw("qemu"), serveQemu("raw", "qemu")},
		{qemuQcow2, []disk{full, imported, sparse}, "qemu-nbd --format qcow2 " + qemuCache, makeQcow2, serveQemu("qcow2", "qcow2")},
		{overlayRaw, []disk{clone}, "qemu-nbd on a new qcow2 whose backing file is raw, " + qemuCache, makeBase("raw"), serveOverlay("raw")},
		{overlayQcow2, []disk{clone}, "qemu-nbd on a new qcow2 whose backing file is qcow2, " + qemuCache, makeBase("qcow2"), serveOverlay("qcow2")},
		{plainFile, []disk{full, imported, sparse}, "pread and pwrite in the measuring process, one thread for each processor (one with flushes), fdatasync", makeRaw("plain"), openPlain},
		{skerry, []disk{shown}, "skerry mount, a pool on the same file system, chunks of 4 MiB", makeVolume, showVolume},
		{skerry, []disk{slow}, "the same on a storage each of whose calls is held up for 1 ms", makeVolume, showSlow},
		{qemuFUSE, []disk{shown}, "qemu-storage-daemon, its FUSE export of a raw file in the page cache", makeRaw("qemu"), showQemu},
		{directFile, []disk{shown}, "fio on the file itself", makeRaw("plain"), openDirect},
		{nullOurs, []disk{none}, "the NBD server of skerry before a device that does nothing", makeNothing, serveNull},
		{nullNbdkit, []disk{none}, "nbdkit null", makeNothing, serveNbdkitNull},
	}
}

const qemuCache = "--cache=writeback --aio=threads"

// bed is where everything lies and how it is made.
type bed struct {
	dir     string
	size    int64  // of each disk, bytes
	program string // skerry
	self    string // this program
	made    map[string]bool
}

// source is the path of the file of random data that all full disks begin as.
func (b *bed) source() string { return b.path("source.raw") }

func (b *bed) path(name string) string { return filepath.Join(b.dir, name) }

// ready makes a disk of a peer unless it is there. It returns whether it was made.
func (b *bed) ready(ctx context.Context, p peer, d disk) (bool, error) {
	key := p.name + "/" + string(d)
	if b.made[key] {
		return false, nil
	}
	if err := p.make(ctx, b, d); err != nil {
		return false, fmt.Errorf("make the %s disk of %s: %w", d, p.name, err)
	}
	b.made[key] = true
	return true, nil
}

func makeNothing(context.Context, *bed, disk) error { return nil }

func (b *bed) skerry(ctx context.Context, args ...string) ([]byte, error) {
	return b.run(ctx, b.program, args...)
}

// makeVolume makes the volume of a disk: of what a clone is made of, the snapshot image@base.
func makeVolume(ctx context.Context, b *bed, d disk) error {
	if _, err := b.skerry(ctx, "init", "-q", "--if-missing"); err != nil {
		return err
	}
	var err error
	switch d {
	case full, imported, shown, slow:
		_, err = b.skerry(ctx, "import", "-q", b.source(), string(d))
	case sparse:
		_, err = b.skerry(ctx, "create", "-q", "sparse", "--size", strconv.FormatInt(b.size, 10))
	case clone:
		if _, err = b.skerry(ctx, "import", "-q", b.source(), "image"); err == nil {
			_, err = b.skerry(ctx, "snapshot", "-q", "image@base")
		}
	}
	return err
}

func serveVolume(ctx context.Context, b *bed, d disk, n int) (*server, error) {
	name := string(d)
	var after func(context.Context) error
	if d == clone {
		name += strconv.Itoa(n)
		if _, err := b.skerry(ctx, "clone", "-q", "image@base", name); err != nil {
			return nil, err
		}
		after = func(ctx context.Context) error {
			_, err := b.skerry(ctx, "rm", "-q", name)
			return err
		}
	}
	socket := b.path(fmt.Sprintf("skerry%d", n))
	s, err := b.start(ctx, socket, name, b.program, "serve", name, "--nbd", "unix:"+socket)
	if err != nil {
		return nil, err
	}
	s.after = after
	return b.controlled(ctx, s, name)
}

// controlled finds the control socket of the server that holds a volume.
func (b *bed) controlled(ctx context.Context, s *server, name string) (*server, error) {
	out, err := b.skerry(ctx, "lease", "show", name, "--json")
	var lease struct{ Holder struct{ Socket string } }
	if err == nil {
		err = json.Unmarshal(out, &lease)
	}
	if err != nil {
		return nil, errors.Join(err, s.stop(ctx))
	}
	s.control = lease.Holder.Socket
	return s, nil
}

// makeRaw makes raw files.
func makeRaw(of string) func(context.Context, *bed, disk) error {
	return func(ctx context.Context, b *bed, d disk) error {
		path := b.path(of + "-" + string(d) + ".raw")
		if d.filled() {
			_, err := b.run(ctx, "cp", "--reflink=never", "--sparse=never", b.source(), path)
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(b.size), f.Close())
	}
}

func makeQcow2(ctx context.Context, b *bed, d disk) (err error) {
	path := b.path("qcow2-" + string(d) + ".qcow2")
	if d.filled() {
		_, err = b.run(ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", b.source(), path)
	} else {
		_, err = b.run(ctx, "qemu-img", "create", "-q", "-f", "qcow2", path, strconv.FormatInt(b.size, 10))
	}
	return err
}

// makeBase makes the backing file of overlays.
func makeBase(format string) func(context.Context, *bed, disk) error {
	return func(ctx context.Context, b *bed, _ disk) error {
		_, err := b.run(ctx, "qemu-img", "convert", "-f", "raw", "-O", format, b.source(), b.path("base."+format))
		return err
	}
}

func serveNbdkit(ctx context.Context, b *bed, d disk, n int) (*server, error) {
	socket := b.path(fmt.Sprintf("nbdkit%d", n))
	return b.start(ctx, socket, "", "nbdkit", "-f", "-U", socket, "file", b.path("nbdkit-"+string(d)+".raw"))
}

func serveNbdkitNull(ctx context.Context, b *bed, _ disk, n int) (*server, error) {
	socket := b.path(fmt.Sprintf("null%d", n))
	return b.start(ctx, socket, "", "nbdkit", "-f", "-U", socket, "null", strconv.FormatInt(b.size, 10))
}

func serveNull(ctx context.Context, b *bed, _ disk, n int) (*server, error) {
	socket := b.path(fmt.Sprintf("ours%d", n))
	return b.start(ctx, socket, "", b.self, "-serve-null", socket, "-size", strconv.FormatInt(b.size, 10))
}

func (b *bed) qemu(ctx context.Context, format, path string, n int) (*server, error) {
	socket := b.path(fmt.Sprintf("qemu%d", n))
	return b.start(ctx, socket, "", "qemu-nbd", "--socket="+socket, "--format="+format, "--cache=writeback", "--aio=threads",
		"--persistent", "--shared=64", path)
}

func serveQemu(format, of string) func(context.Context, *bed, disk, int) (*server, error) {
	return func(ctx context.Context, b *bed, d disk, n int) (*server, error) {
		return b.qemu(ctx, format, b.path(of+"-"+string(d)+"."+format), n)
	}
}

func serveOverlay(format string) func(context.Context, *bed, disk, int) (*server, error) {
	return func(ctx context.Context, b *bed, _ disk, n int) (*server, error) {
		path := b.path(fmt.Sprintf("overlay%d.qcow2", n))
		if _, err := b.run(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-b", b.path("base."+format), "-F", format, path); err != nil {
			return nil, err
		}
		s, err := b.qemu(ctx, "qcow2", path, n)
		if err != nil {
			return nil, err
		}
		s.after = func(context.Context) error { return os.Remove(path) }
		return s, nil
	}
}

func openPlain(_ context.Context, b *bed, d disk, _ int) (*server, error) {
	f, err := os.OpenFile(b.path("plain-"+string(d)+".raw"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &server{file: f}, nil
}

// able returns the peers that have a disk, of those that are wanted.
func able(d disk, wanted func(name string) bool) []peer {
	var some []peer
	for _, p := range peers() {
		if slices.Contains(p.disks, d) && wanted(p.name) {
			some = append(some, p)
		}
	}
	return some
}

// remove removes a file that may be missing.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
