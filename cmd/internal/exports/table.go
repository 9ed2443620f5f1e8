// Package exports shows the volumes and snapshots of a pool to clients of whatever protocol. A device is open once, however many
// clients of however many protocols use it: what one writes the others read.
package exports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"skerry/fuse"
	"skerry/volume"
	"skerry/volume/catalog"
)

const (
	// openTime bounds the opening of an export, which does not end with the client that asked for it: others
	// may wait for the same.
	openTime = time.Minute
	// closeTime bounds the closing of an export by its last client.
	closeTime = time.Minute
)

// Options say what a [Table] shows.
type Options struct {
	Names    []string // volumes and snapshots that are open all the time; empty: all of the pool, each open while it is used
	ReadOnly bool     // refuse every change; volumes are leased all the same
	// Remove removes a volume without snapshots, or a snapshot, and gives back its space; nil: the pool does, and leaves the space to gc.
	Remove func(ctx context.Context, r catalog.Ref) error
	// Space returns what the storage has, for the files; nil: that is not known.
	Space  func(ctx context.Context) (fuse.Space, error)
	Logger *slog.Logger
}

// Table holds the exports of a process. Its methods may be called concurrently.
type Table struct {
	pool     *catalog.Pool
	names    []string // empty: all of the pool
	readOnly bool
	remove   func(ctx context.Context, r catalog.Ref) error
	space    func(ctx context.Context) (fuse.Space, error)
	log      *slog.Logger

	mu   sync.Mutex
	open map[string]*export // by name
}

// export is a device that is open, or about to be, or about to be closed.
type export struct {
	users  int           // guarded by Table.mu
	ready  chan struct{} // closed when dev or err is set
	gone   chan struct{} // closed when the device is closed; not nil once that has begun; guarded by Table.mu
	device *volume.Device
	err    error
}

// New returns a table of what a pool has.
func New(pool *catalog.Pool, o Options) *Table {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Table{pool: pool, names: o.Names, readOnly: o.ReadOnly, remove: o.Remove, space: o.Space, log: o.Logger, open: map[string]*export{}}
}

// OpenNamed opens the exports of Options.Names, until Close.
func (t *Table) OpenNamed(ctx context.Context) error {
	for _, name := range t.names {
		if _, err := t.acquire(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Close closes what OpenNamed opened. No client may be left.
func (t *Table) Close(ctx context.Context) error {
	var errs []error
	for _, name := range t.names {
		t.mu.Lock()
		e := t.open[name]
		t.mu.Unlock()
		if e == nil {
			continue // OpenNamed did not get that far
		}
		if err := t.release(ctx, name, e); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Device returns the device of a volume or a snapshot, which remains the table's. It is opened, and a volume leased, by the first user and closed
// after the last one, which calls release. It fails with [catalog.ErrNotFound] if there is none of that name, or it is not
// shown, and with a [locking.HeldError] if another process has the volume. A table that refuses changes does not hide that in the device.
func (t *Table) Device(ctx context.Context, name string) (d *volume.Device, release func(), err error) {
	if len(t.names) > 0 && !slices.Contains(t.names, name) {
		return nil, nil, fmt.Errorf("%q: %w", name, catalog.ErrNotFound)
	}
	e, err := t.acquire(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return e.device, func() {
		closing, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		if err := t.release(closing, name, e); err != nil {
			t.log.Error("export was not closed cleanly", "volume", name, "err", err)
		}
	}, nil
}

// acquire returns the open export of a name, with one more user.
func (t *Table) acquire(ctx context.Context, name string) (*export, error) {
	for {
		t.mu.Lock()
		e := t.open[name]
		switch {
		case e == nil:
			e = &export{users: 1, ready: make(chan struct{})}
			t.open[name] = e
			t.mu.Unlock()
			t.openDevice(ctx, name, e)
			return e, e.err
		case e.gone != nil: // on its way out: open it afresh afterwards
			gone := e.gone
			t.mu.Unlock()
			select {
			case <-gone:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		default:
			e.users++
			t.mu.Unlock()
			<-e.ready // bounded by openTime
			return e, e.err
		}
	}
}

// openDevice opens the device of an export that was just entered.
func (t *Table) openDevice(ctx context.Context, name string, e *export) {
	defer close(e.ready)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTime)
	defer cancel()
	r, err := catalog.ParseRef(name)
	if err == nil && r.Snapshot == "" {
		if e.device, err = t.pool.OpenVolume(ctx, r.Volume); err == nil {
			t.pool.CopyBehind(e.device)
		}
	} else if err == nil {
		e.device, err = t.pool.OpenSnapshot(ctx, r)
	}
	if err != nil {
		e.err = err
		t.mu.Lock()
		delete(t.open, name) // its users get the error, the next one tries again
		t.mu.Unlock()
	}
}

// release ends one use of an export; the last one closes the device, which gives up the lease.
func (t *Table) release(ctx context.Context, name string, e *export) error {
	t.mu.Lock()
	e.users--
	if e.users > 0 {
		t.mu.Unlock()
		return nil
	}
	e.gone = make(chan struct{})
	t.mu.Unlock()
	err := e.device.Close(ctx)
	t.mu.Lock()
	delete(t.open, name)
	t.mu.Unlock()
	close(e.gone)
	return err
}
