package attach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"skerry/drivers"
	"skerry/nbd/kernel"
	"skerry/volume/catalog"
)

// forceTime bounds the flush before a device is detached by force.
const forceTime = 5 * time.Second

// quietTime is how long detach waits for programs that look at every device for a moment, as udev does.
const quietTime = 2 * time.Second

// Detached is the outcome of a detach.
type Detached struct {
	Record
	Unflushed string   // why what was written before may be lost; empty: it is not
	Uses      []string // what used the device when it was taken away by force
}

// ByDevice returns the target of a device, given by its path. It fails with [catalog.ErrNotFound] if nothing is attached to it, and with
// [catalog.ErrInUse] if it is somebody else's.
func (h *Host) ByDevice(path string) (Target, error) {
	index, err := kernel.ParsePath(path)
	if err != nil {
		return Target{}, err
	}
	all, err := h.Kernel.Devices()
	if err != nil {
		return Target{}, err
	}
	for _, d := range all {
		if d.Index != index || !d.Attached {
			continue
		}
		t, ours := parseBackend(d.Backend)
		if !ours {
			return t, fmt.Errorf("%s is not skerry's: %s: %w", path, whose(d), catalog.ErrInUse)
		}
		if r, err := h.load(t.key()); err == nil {
			return r.Target, nil
		}
		return t, nil
	}
	return Target{}, fmt.Errorf("%s: nothing is attached to it: %w", path, catalog.ErrNotFound)
}

// ByName returns the target of a record by the name of the volume or snapshot in a pool. If records of several have the name, since it has gone
// from one to another, it is the one that the pool has under it now, if that can be told.
func (h *Host) ByName(ctx context.Context, pool, name string) (Target, bool) {
	all, _ := h.records() // what cannot be read is found in other ways
	all = slices.DeleteFunc(all, func(r Record) bool { return r.Pool != pool || r.Name() != name })
	switch len(all) {
	case 0:
		return Target{}, false
	case 1: // the pool may not answer
		return all[0].Target, true
	}
	f, err := h.Lookup(ctx, all[0].Target)
	i := slices.IndexFunc(all, func(r Record) bool { return err == nil && r.ID == f.ID && r.Created.Equal(f.Created) })
	if i < 0 {
		return Target{}, false
	}
	return all[i].Target, true
}

// Detach ends the device of a target, its keeper, and the server that the keeper owned: all that was written is flushed and the lease is
// released when it returns. It fails with [catalog.ErrInUse] if something uses the device, with [drivers.ErrUnavailable] if there is no server
// to flush to, and with [catalog.ErrNotFound] if there is no device. With force it does not care: I/O that waits and I/O to come fail.
func (h *Host) Detach(ctx context.Context, t Target, force bool) (Detached, error) {
	if err := h.makeDir(); err != nil {
		return Detached{}, err
	}
	key := t.key()
	unlock, err := lock(ctx, h.files(key).lock)
	if err != nil {
		return Detached{}, err
	}
	defer unlock()
	r, err := h.load(key)
	known := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Detached{}, err
	}
	if !known {
		r = Record{Target: t, Server: Server{URI: t.URI}}
		if t.URI == "" {
			r.Server = Server{Own: true, URI: socketURI(h.files(key).socket, t.Name())}
		}
	}
	found, err := h.find(t)
	if err != nil {
		return Detached{}, err
	}
	if len(found) == 0 {
		return Detached{Record: r}, h.cleanUp(ctx, r, known)
	}
	d := found[0]
	r.Device, r.Index, r.Size, r.ReadOnly = kernel.Path(d.Index), d.Index, d.Size, d.ReadOnly
	out := Detached{Record: r}
	if force {
		err = h.forceOff(ctx, &out, d)
	} else {
		err = h.takeOff(ctx, r, d)
	}
	return out, err
}

// cleanUp removes what is left of a device that is gone.
func (h *Host) cleanUp(ctx context.Context, r Record, known bool) error {
	if !known {
		return fmt.Errorf("%s is not attached: %w", r.Name(), catalog.ErrNotFound)
	}
	return errors.Join(h.endKeeper(ctx, r), h.endServer(ctx, r, unix.SIGTERM), h.forget(r.key()))
}

// takeOff ends a device that nothing uses.
func (h *Host) takeOff(ctx context.Context, r Record, d kernel.Device) (err error) {
	// A server that does not answer would let the flush wait where no signal reaches it.
	if err := h.reached(ctx, r); err != nil {
		return fmt.Errorf("%s: there is no server to flush to: %w: %w", r.Device, err, drivers.ErrUnavailable)
	}
	if err := h.unused(ctx, r.Device); err != nil {
		return err
	}
	f, err := h.Kernel.Open(d.Index, d.ReadOnly, true)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s is in use: %s: %w", r.Device, h.System.usesText(r.Device), catalog.ErrInUse)
	}
	if err != nil {
		return err
	}
	closed := false
	defer func() {
		if !closed {
			err = errors.Join(err, f.Close())
		}
	}()
	flushed := make(chan error, 1)
	go func() { flushed <- f.Sync() }() // cannot be interrupted; ends with the device at the latest
	select {
	case err = <-flushed:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("flush %s: %w: nothing was detached; --force gives up what is not flushed", r.Device, err)
	}
	if err := h.endKeeper(ctx, r); err != nil {
		return err
	}
	if err := h.Kernel.Disconnect(d.Index); err != nil {
		return err
	}
	closed = true
	if err := f.Close(); err != nil { // the last to close the device ends it
		return err
	}
	// Another program may look at it at this moment.
	if there, err := h.lingers(ctx, r, false); err != nil {
		return err
	} else if there {
		r.Detached = true
		return errors.Join(h.save(r), h.endServer(ctx, r, unix.SIGTERM))
	}
	return h.finish(ctx, r, unix.SIGTERM)
}

// unused fails if something uses a device.
func (h *Host) unused(ctx context.Context, device string) error {
	const pause = 50 * time.Millisecond
	for deadline := time.Now().Add(quietTime); ; {
		uses, err := h.System.Uses(device)
		if err != nil || len(uses) == 0 {
			return err
		}
		momentary := true
		for _, u := range uses {
			momentary = momentary && strings.HasPrefix(u, openIn)
		}
		if !momentary || time.Now().After(deadline) {
			return fmt.Errorf("%s is in use: %s: %w", device, strings.Join(uses, ", "), catalog.ErrInUse)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// forceOff takes a device away from whoever uses it.
func (h *Host) forceOff(ctx context.Context, out *Detached, d kernel.Device) error {
	r := out.Record
	var err error
	if out.Uses, err = h.System.Uses(r.Device); err != nil {
		return err
	}
	unreached := h.reached(ctx, r)
	if unreached == nil {
		if err := h.syncOpen(d); err != nil {
			out.Unflushed = err.Error()
		}
	} else {
		out.Unflushed = "its server does not answer: " + unreached.Error()
	}
	if err := h.endKeeper(ctx, r); err != nil {
		return err
	}
	// A server that reads nothing could hold up the kernel's farewell.
	if unreached != nil {
		if err := h.endServer(ctx, r, unix.SIGKILL); err != nil {
			return err
		}
	}
	if err := h.Kernel.Disconnect(d.Index); err != nil {
		return err
	}
	if there, err := h.lingers(ctx, r, len(out.Uses) > 0); err != nil {
		return err
	} else if there {
		r.Detached = true
		if err := h.save(r); err != nil {
			return err
		}
		return h.endServer(ctx, r, unix.SIGTERM)
	}
	return h.finish(ctx, r, unix.SIGTERM)
}

// lingers reports whether a device stays after it was disconnected, since something has it open.
func (h *Host) lingers(ctx context.Context, r Record, used bool) (bool, error) {
	const pause = 20 * time.Millisecond
	for deadline := time.Now().Add(quietTime); ; {
		_, there, err := h.device(r.Index, r.Target)
		if err != nil || !there || used || time.Now().After(deadline) {
			return there, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return there, ctx.Err()
		}
	}
}

// syncOpen writes back what the page cache has of a device that others may have open.
func (h *Host) syncOpen(d kernel.Device) error {
	done := make(chan error, 1)
	go func() { // cannot be interrupted; ends with the device at the latest
		f, err := h.Kernel.Open(d.Index, d.ReadOnly, false)
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(forceTime):
		return fmt.Errorf("the flush did not end in %v", forceTime)
	}
}

// finish ends the server of a device that is gone, and removes the record.
func (h *Host) finish(ctx context.Context, r Record, sig unix.Signal) error {
	if err := h.endServer(ctx, r, sig); err != nil {
		return fmt.Errorf("%s is detached, but its server goes on: %w", r.Device, err)
	}
	return h.forget(r.key())
}
