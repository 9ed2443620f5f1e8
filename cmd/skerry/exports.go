package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"skerry/nbd"
	"skerry/volume"
	"skerry/volume/catalog"
)

// openTime bounds the opening of an export, which does not end with the client that asked for it: others
// may wait for the same.
const openTime = time.Minute

// exports are the volumes and snapshots that serve shows. Every device is open once, however many connections use it.
type exports struct {
	pool     *catalog.Pool
	names    []string // empty: all of the pool
	readOnly bool
	log      *slog.Logger

	mu   sync.Mutex
	open map[string]*export // by name
}

// export is a device that is open, or about to be, or about to be closed.
type export struct {
	users  int           // guarded by exports.mu
	ready  chan struct{} // closed when dev or err is set
	gone   chan struct{} // closed when the device is closed; not nil once that has begun; guarded by exports.mu
	device *volume.Device
	err    error
}

func newExports(pool *catalog.Pool, names []string, readOnly bool, log *slog.Logger) *exports {
	return &exports{pool: pool, names: names, readOnly: readOnly, log: log, open: map[string]*export{}}
}

// openAll opens what is served by name, for the whole time.
func (x *exports) openAll(ctx context.Context) error {
	for _, name := range x.names {
		if _, err := x.acquire(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Open returns the device of an export. The empty name means the only one, if there is one.
func (x *exports) Open(ctx context.Context, name string) (nbd.Device, func(), error) {
	name, err := x.find(name)
	if err != nil {
		return nil, nil, err
	}
	e, err := x.acquire(ctx, name)
	if err != nil {
		x.log.Warn("export cannot be opened", "volume", name, "err", err)
		return nil, nil, unknownIfMissing(err)
	}
	var dev nbd.Device = e.device
	if x.readOnly {
		dev = readOnlyDevice{e.device}
	}
	return dev, func() {
		closing, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		if err := x.release(closing, name, e); err != nil {
			x.log.Error("export was not closed cleanly", "volume", name, "err", err)
		}
	}, nil
}

// Describe returns size and kind of an export.
func (x *exports) Describe(ctx context.Context, name string) (nbd.Info, error) {
	name, err := x.find(name)
	if err != nil {
		return nbd.Info{}, err
	}
	r, err := catalog.ParseRef(name)
	if err != nil {
		return nbd.Info{}, fmt.Errorf("%w: %w", nbd.ErrUnknownExport, err)
	}
	i, err := x.pool.Info(ctx, r.Volume)
	if err != nil {
		return nbd.Info{}, unknownIfMissing(err)
	}
	if r.Snapshot == "" {
		return nbd.Info{Size: i.Size, ReadOnly: x.readOnly, Description: "volume " + name}, nil
	}
	for _, s := range i.Snapshots {
		if s.Name == r.Snapshot {
			return nbd.Info{Size: s.Size, ReadOnly: true, Description: "snapshot " + name}, nil
		}
	}
	return nbd.Info{}, fmt.Errorf("%s: %w", name, nbd.ErrUnknownExport)
}

// List returns the names of all exports.
func (x *exports) List(ctx context.Context) ([]string, error) {
	if len(x.names) > 0 {
		return slices.Clone(x.names), nil
	}
	infos, err := x.pool.List(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range infos {
		names = append(names, i.Name)
		for _, s := range i.Snapshots {
			names = append(names, catalog.Ref{Volume: i.Name, Snapshot: s.Name}.String())
		}
	}
	return names, nil
}

// find returns the name of the export that a client means.
func (x *exports) find(name string) (string, error) {
	if name == "" && len(x.names) == 1 {
		return x.names[0], nil
	}
	r, err := catalog.ParseRef(name)
	if err != nil || r.String() != name || len(x.names) > 0 && !slices.Contains(x.names, name) {
		return "", fmt.Errorf("%q: %w", name, nbd.ErrUnknownExport)
	}
	return name, nil
}

func unknownIfMissing(err error) error {
	if errors.Is(err, catalog.ErrNotFound) {
		return fmt.Errorf("%w: %w", nbd.ErrUnknownExport, err)
	}
	return err
}

// acquire returns the open export of a name, with one more user.
func (x *exports) acquire(ctx context.Context, name string) (*export, error) {
	for {
		x.mu.Lock()
		e := x.open[name]
		switch {
		case e == nil:
			e = &export{users: 1, ready: make(chan struct{})}
			x.open[name] = e
			x.mu.Unlock()
			x.openDevice(ctx, name, e)
			return e, e.err
		case e.gone != nil: // on its way out: open it afresh afterwards
			gone := e.gone
			x.mu.Unlock()
			select {
			case <-gone:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		default:
			e.users++
			x.mu.Unlock()
			<-e.ready // bounded by openTime
			return e, e.err
		}
	}
}

// openDevice opens the device of an export that was just entered.
func (x *exports) openDevice(ctx context.Context, name string, e *export) {
	defer close(e.ready)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTime)
	defer cancel()
	r, err := catalog.ParseRef(name)
	if err == nil && r.Snapshot == "" {
		if e.device, err = x.pool.OpenVolume(ctx, r.Volume); err == nil {
			x.pool.CopyBehind(e.device)
		}
	} else if err == nil {
		e.device, err = x.pool.OpenSnapshot(ctx, r)
	}
	if err != nil {
		e.err = err
		x.mu.Lock()
		delete(x.open, name) // its users get the error, the next one tries again
		x.mu.Unlock()
	}
}

// release ends one use of an export; the last one closes the device, which gives up the lease.
func (x *exports) release(ctx context.Context, name string, e *export) error {
	x.mu.Lock()
	e.users--
	if e.users > 0 {
		x.mu.Unlock()
		return nil
	}
	e.gone = make(chan struct{})
	x.mu.Unlock()
	err := e.device.Close(ctx)
	x.mu.Lock()
	delete(x.open, name)
	x.mu.Unlock()
	close(e.gone)
	return err
}

// close closes what openAll opened. No connection may be left.
func (x *exports) close(ctx context.Context) error {
	var errs []error
	for _, name := range x.names {
		x.mu.Lock()
		e := x.open[name]
		x.mu.Unlock()
		if e == nil {
			continue // openAll did not get that far
		}
		if err := x.release(ctx, name, e); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// readOnlyDevice is a device that refuses every change.
type readOnlyDevice struct{ *volume.Device }

// ReadOnly reports that it does.
func (readOnlyDevice) ReadOnly() bool { return true }

// Submit refuses what would change the device. A flush changes nothing.
func (d readOnlyDevice) Submit(r *volume.Request) bool {
	switch r.Kind {
	case volume.Write, volume.WriteZeroes, volume.Discard:
		r.Err = volume.ErrReadOnly
		return true
	}
	return d.Device.Submit(r)
}
