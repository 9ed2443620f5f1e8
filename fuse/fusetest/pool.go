// Package fusetest holds what tests of mounts need: a pool whose volumes are shown, and shells that use the files.
package fusetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/fuse"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/catalog"
)

// Pool is a pool in memory that shows its volumes.
type Pool struct {
	*catalog.Pool
	Backend *faulty.Backend

	t       testing.TB
	storage *mem.Backend
	options volume.Options

	mu   sync.Mutex
	open map[string]*volume.Device
}

// NewPool makes a pool. It is closed at the end of the test, after the mounts.
func NewPool(t testing.TB) *Pool {
	t.Helper()
	return NewPoolWith(t, volume.Options{})
}

// NewPoolWith is NewPool with options for the devices of its volumes.
func NewPoolWith(t testing.TB, o volume.Options) *Pool {
	t.Helper()
	return newPool(t, mem.New(mem.Options{}), o)
}

// Other returns the same pool as another process has it.
func (p *Pool) Other() *Pool {
	p.t.Helper()
	return newPool(p.t, p.storage, p.options)
}

func newPool(t testing.TB, storage *mem.Backend, o volume.Options) *Pool {
	t.Helper()
	p := &Pool{t: t, storage: storage, options: o, Backend: faulty.Wrap(storage), open: map[string]*volume.Device{}}
	e := drivers.NewEngine(p.Backend, drivers.Options{})
	if err := catalog.Init(t.Context(), e); err != nil && !errors.Is(err, catalog.ErrPoolExists) {
		t.Fatal(err)
	}
	var err error
	p.Pool, err = catalog.Open(t.Context(), e, catalog.Options{Volume: o, Identity: locking.Identity{Host: "host1", Boot: [16]byte{1}, PID: 77}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Pool.Close(context.Background()), e.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Make makes a volume.
func (p *Pool) Make(name string, size int64) {
	p.t.Helper()
	if err := p.Create(p.t.Context(), name, size); err != nil {
		p.t.Fatal(err)
	}
}

// Snap takes a snapshot.
func (p *Pool) Snap(ref string) {
	p.t.Helper()
	r, err := catalog.ParseRef(ref)
	if err == nil {
		_, err = p.Snapshot(p.t.Context(), r)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// Device returns the device of a volume that is open.
func (p *Pool) Device(name string) *volume.Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[name]
}

// Content returns what a volume that is not open has.
func (p *Pool) Content(name string) []byte {
	p.t.Helper()
	d, err := p.OpenVolume(p.t.Context(), name)
	if err != nil {
		p.t.Fatal(err)
	}
	b := make([]byte, d.Size())
	if err := errors.Join(d.ReadAt(p.t.Context(), b, 0), d.Close(p.t.Context())); err != nil {
		p.t.Fatal(err)
	}
	return b
}

var _ fuse.Volumes = (*Pool)(nil)

// List implements [fuse.Volumes].
func (p *Pool) List(ctx context.Context) ([]fuse.Entry, error) {
	infos, err := p.Pool.List(ctx)
	var all []fuse.Entry
	for _, i := range infos {
		if i.Err != nil {
			continue
		}
		all = append(all, p.entry(i))
		for _, s := range i.Snapshots {
			all = append(all, fuse.Entry{Name: i.Name + "@" + s.Name, ID: id(i.ID) + uint64(s.Serial), Size: s.Size, Granted: s.Created})
		}
	}
	return all, err
}

func id(id chunk.VolumeID) uint64 {
	return 2 + uint64(id[0])<<40 + uint64(id[1])<<32 + uint64(id[2])<<48
}

func (p *Pool) entry(i catalog.Info) fuse.Entry {
	e := fuse.Entry{Name: i.Name, ID: id(i.ID), Size: i.Size, Granted: i.Granted, Grant: i.Generation}
	if d := p.Device(i.Name); d != nil {
		e.Size, e.Changes = d.Size(), device{d}.Changes()
	}
	return e
}

// Lookup implements [fuse.Volumes].
func (p *Pool) Lookup(ctx context.Context, name string) (fuse.Entry, error) {
	r, err := catalog.ParseRef(name)
	if err != nil {
		return fuse.Entry{}, err
	}
	i, err := p.Brief(ctx, r.Volume)
	if err != nil || r.Snapshot == "" {
		return p.entry(i), err
	}
	e := fuse.Entry{Name: name}
	err = p.EachSnapshot(ctx, i.ID, func(s *mapper.Snapshot, err error) error {
		if err == nil && s.Name == r.Snapshot {
			e.ID, e.Size, e.Granted = id(i.ID)+uint64(s.Serial), s.Size, s.Created
		}
		return err
	})
	if err == nil && e.ID == 0 {
		err = fmt.Errorf("snapshot %s: %w", name, catalog.ErrNotFound)
	}
	return e, err
}

// Open implements [fuse.Volumes].
func (p *Pool) Open(ctx context.Context, name string) (fuse.Device, func(), error) {
	r, err := catalog.ParseRef(name)
	var d *volume.Device
	switch {
	case err != nil:
	case r.Snapshot != "":
		d, err = p.OpenSnapshot(ctx, r)
	default:
		d, err = p.OpenVolume(ctx, name)
	}
	if err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[name] = d
	return device{d}, func() { p.release(name, d) }, nil
}

func (p *Pool) release(name string, d *volume.Device) {
	if err := d.Close(context.Background()); err != nil && d.Err() == nil {
		p.t.Errorf("close %s: %v", name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, name)
}

// Create implements [fuse.Volumes].
func (p *Pool) Create(ctx context.Context, name string, size int64) error {
	_, err := p.Pool.Create(ctx, name, catalog.CreateOptions{Size: size})
	return err
}

// Remove implements [fuse.Volumes].
func (p *Pool) Remove(ctx context.Context, name string) error {
	r, err := catalog.ParseRef(name)
	if err == nil {
		_, err = p.Pool.Remove(ctx, r, catalog.RemoveOptions{})
	}
	return err
}

// Space implements [fuse.Volumes].
func (p *Pool) Space(context.Context) (fuse.Space, error) {
	return fuse.Space{Total: 100 << 30, Free: 40 << 30, Available: 30 << 30}, nil
}

// device is a volume's device as a mount needs it.
type device struct{ *volume.Device }

// Changes implements [fuse.Device].
func (d device) Changes() int64 {
	s := d.Stats()
	return s.Writes + s.Zeroes
}

// Mount is a mount of a test.
type Mount struct {
	*fuse.Server
	t   testing.TB
	log *logged
}

// Mount shows the pool in a directory of the test's own until its end.
func (p *Pool) Mount(o fuse.Options) *Mount {
	p.t.Helper()
	dir := p.t.TempDir()
	m := &Mount{t: p.t, log: &logged{}}
	o.Logger = slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if m.Server, err = fuse.Mount(dir, p, o); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if p.t.Failed() {
			_ = unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH) // it may be unmounted
			p.t.Logf("log of the mount:\n%s", m.log)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := m.Unmount(ctx)
		for errors.Is(err, unix.EBUSY) && ctx.Err() == nil { // a process that was killed goes only now
			time.Sleep(10 * time.Millisecond)
			err = m.Unmount(ctx)
		}
		if err != nil {
			var stacks bytes.Buffer
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1) // a buffer takes all
			p.t.Errorf("%v\n%s", err, &stacks)
		}
	})
	return m
}

// Path returns the path of a file.
func (m *Mount) Path(name string) string { return filepath.Join(m.Dir(), name) }

// limit bounds what a shell does.
const limit = time.Minute

// Shell starts a shell with a script that knows the directory as $m, in a directory of its own.
func (m *Mount) Shell(script string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	m.t.Cleanup(cancel)
	c := exec.CommandContext(ctx, "bash", "-euc", script)
	c.Env = append(os.Environ(), "m="+m.Dir(), "LC_ALL=C")
	return c
}

// Run runs a script that succeeds and returns what it prints.
func (m *Mount) Run(script string) string {
	m.t.Helper()
	out, err := m.Shell(script).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// Fails runs a script that fails and prints some words.
func (m *Mount) Fails(words, script string) {
	m.t.Helper()
	out, err := m.Shell(script).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Exited() || !strings.Contains(string(out), words) {
		m.t.Errorf("%s: %v\n%swant it to say %q", script, err, out, words)
	}
}

// Python runs a program that knows the directory as m and has the modules os, sys and fcntl, and returns what it prints.
func (m *Mount) Python(program string) string {
	m.t.Helper()
	return m.Run("python3 - <<'EOF'\nimport os, sys, fcntl, errno, mmap, struct, threading\nm = os.environ['m']\n" + program + "\nEOF")
}

// Logged reports whether a message with all of the words was logged.
func (m *Mount) Logged(words ...string) bool {
	for line := range strings.Lines(m.log.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// logged collects what is logged.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns all of it.
func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
