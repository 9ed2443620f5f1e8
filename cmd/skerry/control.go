package main

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"skerry/chunk"
	"skerry/cmd/internal/control"
	"skerry/volume/catalog"
)

// controlServer makes a process that holds volumes reachable. All methods work on nil, a process that is not.
type controlServer struct {
	listener *net.UnixListener
	app      *app
	server   *control.Server
	done     chan error // gets the end of the server

	stop sync.Once
	err  error
}

// startControl listens, but does not answer yet: the socket's path has to be known before the pool is opened. Without a place for
// sockets the process works, but others cannot reach the volumes that it holds.
func (a *app) startControl(ctx context.Context) *controlServer {
	l, err := control.Listen(ctx, control.Directory(a.env.Getenv))
	if err != nil {
		a.log.Warn("no control socket: other commands cannot work on the volumes that this process holds", "err", err)
		return nil
	}
	return &controlServer{listener: l, app: a}
}

func (c *controlServer) path() string {
	if c == nil {
		return ""
	}
	return c.listener.Addr().String()
}

// serve answers calls about what the session holds.
func (c *controlServer) serve(s *session) {
	if c == nil {
		return
	}
	c.server = control.NewServer(s, c.app.log)
	c.done = make(chan error, 1)
	go func() { c.done <- c.server.Serve(c.listener) }()
}

// shutdown removes the socket and waits for the calls that run. Further calls do nothing.
func (c *controlServer) shutdown(ctx context.Context) error {
	if c == nil {
		return nil
	}
	c.stop.Do(func() {
		if c.server == nil {
			c.err = c.listener.Close()
			return
		}
		c.err = errors.Join(c.server.Shutdown(ctx), <-c.done)
	})
	return c.err
}

// shows is what a session shows to other programs at the moment.
type shows struct {
	mu  sync.Mutex
	now control.Shows
}

// set replaces what is shown. What it has been given is not changed any more.
func (s *shows) set(now control.Shows) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

func (s *shows) get() control.Shows {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Process describes this process.
func (s *session) Process() control.Process {
	p := control.Process{PID: os.Getpid(), Version: version, Pool: s.where.String(), Goroutines: runtime.NumGoroutine(), Shows: s.shows.get()}
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/tiny/allocs:objects"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(samples)
	for i, to := range []*uint64{&p.Allocations, &p.Allocations, &p.Heap} {
		if v := samples[i].Value; v.Kind() == metrics.KindUint64 { // one that this Go has
			*to += v.Uint64()
		}
	}
	return p
}

// Names returns the volumes that this process holds.
func (s *session) Names(ctx context.Context) ([]string, error) {
	infos, err := s.pool.List(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range infos {
		if i.Holder != nil && i.Holder.Socket == s.identity.Socket {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

// Info describes a volume.
func (s *session) Info(ctx context.Context, name string) (control.Volume, error) {
	i, err := s.pool.Info(ctx, name)
	return viewFull(i), err
}

// Snapshot takes a snapshot.
func (s *session) Snapshot(ctx context.Context, volume, snapshot string) (control.Snapshot, error) {
	r, err := catalog.ParseRef(volume + "@" + snapshot)
	if err != nil {
		return control.Snapshot{}, usageError(err)
	}
	i, err := s.pool.Snapshot(ctx, r)
	return viewSnapshot(i), err
}

// RemoveSnapshot removes a snapshot and gives back its space.
func (s *session) RemoveSnapshot(ctx context.Context, volume, snapshot string) (control.Removal, error) {
	r, err := catalog.ParseRef(volume + "@" + snapshot)
	if err != nil {
		return control.Removal{}, usageError(err)
	}
	// The caller may have gone; a volume in use is not to be left in the middle of a cut for that.
	return s.removeSnapshot(context.WithoutCancel(ctx), r, holderTime)
}

// SnapshotHidden takes a snapshot without a name.
func (s *session) SnapshotHidden(ctx context.Context, volume string) (control.Hidden, error) {
	i, err := s.pool.SnapshotHidden(ctx, volume)
	return control.Hidden{Serial: uint64(i.Serial)}, err
}

// RemoveHidden removes a snapshot that SnapshotHidden took.
func (s *session) RemoveHidden(ctx context.Context, volume string, h control.Hidden) error {
	return s.pool.RemoveHidden(context.WithoutCancel(ctx), volume, chunk.Serial(h.Serial))
}

// Pin keeps a hidden snapshot.
func (s *session) Pin(ctx context.Context, volume string, keep time.Duration) (control.Pin, error) {
	if !catalog.ValidName(volume) {
		return control.Pin{}, usage("keep %q: bad name", volume)
	}
	p, err := s.pool.Pin(ctx, catalog.Ref{Volume: volume}, keep)
	return control.Pin{ID: p.ID.String()}, err
}

// Clone makes a clone.
func (s *session) Clone(ctx context.Context, volume, name string, size int64) (control.Volume, error) {
	if !catalog.ValidName(volume) || !catalog.ValidName(name) {
		return control.Volume{}, usage("clone %q as %q: bad name", volume, name)
	}
	i, err := s.pool.Clone(ctx, catalog.Ref{Volume: volume}, name, catalog.CloneOptions{Size: size})
	return viewVolume(i), err
}
