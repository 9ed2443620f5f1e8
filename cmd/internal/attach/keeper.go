package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"skerry/nbd/kernel"
)

// ErrKept says that a device has a keeper already.
var ErrKept = errors.New("another process keeps the device")

// offerTicks is after how many ticks a device is offered new connections without a reason.
const offerTicks = 10

// flagReadOnly is NBD_FLAG_READ_ONLY of the protocol's transmission flags.
const flagReadOnly = 1 << 1

// keeper looks after one device.
type keeper struct {
	h   *Host
	rec Record

	child *child        // own server that this process started; nil: another keeper did, or nobody
	stale bool          // the device may have dead connections
	broke bool          // and it had, since this keeper began
	pause time.Duration // after the next start of the server
	next  time.Time     // no start of the server before
	ticks int
	said  string // what was logged last, to say it once

	unsaved bool    // the record could not be written
	served  Process // own server that the device has had connections to: it has open what the device is of
}

// RunKeeper keeps the device of a record until it is detached or ctx ends, and calls ready once, when the device is usable or why it is
// not. It leaves device and server as they are. It fails with ErrKept if the device has a keeper.
func (h *Host) RunKeeper(ctx context.Context, key string, ready func(Record, error)) error {
	unlock, err := tryLock(h.files(key).keeper)
	if errors.Is(err, errLocked) {
		err = ErrKept
	}
	if err != nil {
		ready(Record{}, err)
		return err
	}
	ctx, leave := h.register(ctx, key)
	defer func() { unlock(); leave() }() // who waits for the end finds the lock free
	k := &keeper{h: h}
	if k.rec, err = h.load(key); err == nil {
		k.rec.Keeper, err = h.sign(key)
	}
	if err == nil {
		err = k.begin(ctx)
	}
	ready(k.rec, err)
	if err != nil {
		return err
	}
	return k.keep(ctx)
}

// sign writes who the keeper is to the file of its lock, where it is found also when the record is lost.
func (h *Host) sign(key string) (Process, error) {
	p, err := self()
	if err != nil {
		return p, err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return p, err
	}
	return p, os.WriteFile(h.files(key).keeper, b, 0o600)
}

// keeperOf returns the process that signed last; the zero Process if there is none, or one that is about to.
func (h *Host) keeperOf(key string) (p Process, err error) {
	b, err := os.ReadFile(h.files(key).keeper)
	if err != nil || json.Unmarshal(b, &p) != nil {
		p = Process{}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return p, err
}

// register makes a keeper known to the rest of this process.
func (h *Host) register(ctx context.Context, key string) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{end: cancel, ended: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running == nil {
		h.running = map[string]*running{}
	}
	h.running[key] = r
	return ctx, func() {
		cancel()
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.running, key)
		close(r.ended)
	}
}

// begin makes the device, or takes over one that is there.
func (k *keeper) begin(ctx context.Context) error {
	found, err := k.h.find(k.rec.Target)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		d := found[0]
		k.rec.Device, k.rec.Index, k.rec.Size = kernel.Path(d.Index), d.Index, d.Size
		k.stale = true
		if err := k.save(); err != nil {
			return err
		}
		k.step(ctx) // what fails is tried again
		return nil
	}
	k.rec.Device = ""
	if err := k.save(); err != nil {
		return err
	}
	made, err := k.make(ctx)
	if err == nil {
		err = ctx.Err() // who waited for the device does not any more
	}
	if err == nil {
		return nil
	}
	// What cannot be attached leaves nothing behind.
	if made {
		return errors.Join(err, k.h.undo(context.WithoutCancel(ctx), k.rec))
	}
	return errors.Join(err, k.h.endServer(context.WithoutCancel(ctx), k.rec, unix.SIGTERM), k.h.forget(k.rec.key()))
}

// undo takes back a device that nobody has used yet.
func (h *Host) undo(ctx context.Context, r Record) error {
	return errors.Join(h.Kernel.Disconnect(r.Index), h.endServer(ctx, r, unix.SIGTERM), h.forget(r.key()))
}

// make makes the device, and reports whether it is there.
func (k *keeper) make(ctx context.Context) (made bool, err error) {
	if k.rec.Server.Own {
		// One that an earlier device left, which was read-only.
		if e, p, err := probe(ctx, k.rec.Server.URI); err == nil && kernel.IsReadOnly(e) && !k.rec.ReadOnly {
			if err := p.end(ctx, unix.SIGTERM); err != nil {
				return false, err
			}
		}
		if err := k.serve(ctx); err != nil {
			return false, err
		}
	}
	sockets, e, err := k.h.connect(ctx, k.rec)
	if err != nil {
		return false, fmt.Errorf("connect to %s: %w", k.rec.Server.URI, err)
	}
	defer kernel.Close(sockets)
	config, err := kernel.ConfigFor(e)
	if err != nil {
		return false, fmt.Errorf("%s: %w", k.rec.Name(), err)
	}
	if k.rec.ReadOnly {
		config.Flags |= flagReadOnly
	}
	config.Index = kernel.AnyIndex
	if k.rec.Want != "" {
		if config.Index, err = kernel.ParsePath(k.rec.Want); err != nil {
			return false, err
		}
	}
	config.Backend, config.DeadTimeout, config.RequestTimeout = k.rec.backend(), k.rec.Dead, k.rec.Request
	index, err := k.h.Kernel.Connect(config, sockets)
	if err != nil {
		return false, err
	}
	k.served = k.rec.Server.Process
	k.rec.Device, k.rec.Index, k.rec.Size, k.rec.Connected = kernel.Path(index), index, e.Size, true
	k.rec.ReadOnly = config.Flags&flagReadOnly != 0
	k.rec.Connections = len(sockets)
	k.rec.Server.Single = k.rec.URI != "" && !kernel.CanMultiConn(e)
	if err := k.save(); err != nil {
		return true, err
	}
	if err := k.h.Kernel.RaiseRequestSize(index, int64(e.MaxPayload)); err != nil {
		k.h.Log.Warn("large requests are cut into small ones", "device", k.rec.Device, "err", err)
	}
	return true, nil
}

// serve sees to it that the own server runs: one that another keeper started, or a new one.
func (k *keeper) serve(ctx context.Context) error {
	if _, p, err := probe(ctx, k.rec.Server.URI); err == nil {
		k.rec.Server.Process = p
		k.note()
		return nil
	}
	c, err := k.h.startServer(ctx, k.rec, func(p Process) {
		k.rec.Server.Process = p
		k.note()
	})
	if err != nil {
		return err
	}
	k.child = c
	k.h.Log.Info("server started", "volume", k.rec.Name(), "pid", c.process.PID)
	return nil
}

func (k *keeper) save() error { return k.h.save(k.rec) }

// note writes the record, or says that it cannot be written and tries again later: without it the device is found all the same, so it is no
// reason to let I/O wait.
func (k *keeper) note() {
	err := k.save()
	k.unsaved = err != nil
	if err != nil {
		k.h.Log.Warn("the record cannot be written", "device", k.rec.Device, "volume", k.rec.Name(), "err", err)
	}
}

// keep looks after the device until it is gone or ctx ends.
func (k *keeper) keep(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	breaks := make(chan struct{}, 1)
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		err := k.h.Kernel.Breaks(ctx, func(index int) {
			if index != k.rec.Index && index != kernel.AnyIndex {
				return
			}
			select {
			case breaks <- struct{}{}:
			default: // it will be looked at anyhow
			}
		})
		if err != nil {
			k.h.Log.Warn("broken connections are found late", "device", k.rec.Device, "err", err)
		}
	}()
	defer func() { cancel(); <-listening }()
	tick := time.NewTicker(k.h.Tick)
	defer tick.Stop()
	for {
		var ended chan struct{} // never, if the server is not this process's child
		if k.child != nil {
			ended = k.child.ended
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			k.child = nil
			k.stale = true
			k.h.Log.Warn("the server has died", "volume", k.rec.Name(), "pid", k.rec.Server.Process.PID)
		case <-breaks:
			k.stale, k.broke = true, true
		case <-tick.C:
			// Notices may be lost. A socket that the kernel has no use for is only closed again.
			k.ticks++
			k.stale = k.stale || k.ticks%offerTicks == 0 && !k.rec.Server.Single
		}
		if err := k.step(ctx); errors.Is(err, errGone) {
			return k.leave(ctx)
		}
	}
}

// step looks at device and server once, and mends what can be mended. It fails only with errGone.
func (k *keeper) step(ctx context.Context) error {
	d, there, err := k.h.device(k.rec.Index, k.rec.Target)
	if err == nil && !there {
		return errGone
	}
	if err == nil {
		err = k.mend(ctx, d)
	}
	if ctx.Err() != nil {
		return nil // what failed for that says nothing
	}
	if k.rec.Connected != (err == nil) {
		k.rec.Connected, k.unsaved = err == nil, true
	}
	if k.unsaved {
		k.note()
	}
	switch {
	case err != nil && err.Error() != k.said:
		k.said = err.Error()
		k.h.Log.Warn("the device waits for its server", "device", k.rec.Device, "volume", k.rec.Name(), "err", err)
	case err == nil && k.said != "":
		k.said = ""
		k.h.Log.Info("the device is connected again", "device", k.rec.Device, "volume", k.rec.Name())
	}
	return nil
}

// mend gives the device a server, connections and the volume's size.
func (k *keeper) mend(ctx context.Context, d kernel.Device) error {
	if k.rec.Server.Single {
		return k.mendSingle(ctx, d)
	}
	e, p, err := probe(ctx, k.rec.Server.URI)
	if err != nil {
		k.stale = true // whatever it was, the connections may have ended with it
		if err := k.revive(ctx, err); err != nil {
			return err
		}
		if e, p, err = probe(ctx, k.rec.Server.URI); err != nil {
			return err
		}
	}
	if k.rec.Server.Process != p {
		k.rec.Server.Process = p
		k.note()
	}
	if k.stale {
		if _, err := k.reconnect(ctx, d.Index); err != nil {
			return err
		}
		k.stale = false
	}
	return k.resize(d, e.Size)
}

// mendSingle is mend for a server that has perhaps no time for anybody beside the device: only a connection that broke, or may have before this
// keeper began, is a reason to turn to it.
func (k *keeper) mendSingle(ctx context.Context, d kernel.Device) error {
	if !k.stale {
		return nil
	}
	size, err := k.reconnect(ctx, d.Index)
	if !k.broke && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)) {
		k.stale = false // it listens and does not answer: busy with the connection that the device has
		return nil
	}
	if err != nil {
		return err
	}
	k.stale, k.broke = false, false
	return k.resize(d, size)
}

// resize makes the device as large as the server says.
func (k *keeper) resize(d kernel.Device, size int64) error {
	if size != d.Size {
		// The server has the new size first, or it would refuse what lies beyond the old one.
		if _, err := k.h.Kernel.Reconfigure(d.Index, kernel.Change{Backend: d.Backend, Size: size}, nil); err != nil {
			return err
		}
		k.h.Log.Info("the device has another size", "device", k.rec.Device, "volume", k.rec.Name(), "bytes", size, "before", d.Size)
	}
	if k.rec.Size != size {
		k.rec.Size = size
		k.note()
	}
	return nil
}

// reconnect offers the device new connections, of which the kernel takes as many as are dead, and returns the size of the export.
func (k *keeper) reconnect(ctx context.Context, index int) (size int64, err error) {
	sockets, e, err := k.h.connect(ctx, k.rec)
	if errors.Is(err, errOther) && k.rec.Server.Own && k.served != k.rec.Server.Process {
		// It has a volume open that is none of this device's.
		return 0, errors.Join(err, k.h.endServer(ctx, k.rec, unix.SIGTERM))
	}
	if err != nil {
		return 0, err
	}
	defer kernel.Close(sockets)
	k.served = k.rec.Server.Process
	taken, err := k.h.Kernel.Reconfigure(index, kernel.Change{Backend: k.rec.backend()}, sockets)
	if err == nil && taken > 0 {
		k.h.Log.Info("new connections", "device", k.rec.Device, "volume", k.rec.Name(), "number", taken)
	}
	return e.Size, err
}

// revive brings the server back that did not answer, if that can be done here; else it returns why.
func (k *keeper) revive(ctx context.Context, why error) error {
	if !k.rec.Server.Own {
		return k.follow(ctx, why)
	}
	if k.rec.Server.Process.alive() {
		return why // busy, stopped or hung: it may come back, and has what was acknowledged
	}
	now := time.Now()
	if now.Before(k.next) {
		return why
	}
	if err := k.h.verify(ctx, k.rec.Target); err != nil {
		return err
	}
	if now.After(k.next.Add(lastPause)) {
		k.pause = 0 // the last one lived long
	}
	k.pause = min(max(2*k.pause, firstPause), lastPause)
	k.next = now.Add(k.pause)
	return k.serve(ctx)
}

// follow finds the place where somebody's server serves the volume now.
func (k *keeper) follow(ctx context.Context, why error) error {
	if k.rec.URI != "" {
		return why
	}
	f, err := k.h.Lookup(ctx, k.rec.Target)
	if err != nil || f.Holder == nil {
		return why
	}
	uri, err := k.h.servedBy(ctx, k.rec.Target, f, k.rec.ReadOnly)
	if err != nil || uri == "" || uri == k.rec.Server.URI {
		return why
	}
	k.rec.Server.URI = uri
	k.note()
	return nil
}

// leave ends what belongs to a device that somebody else has disconnected.
func (k *keeper) leave(ctx context.Context) error {
	k.h.Log.Warn("the device was disconnected by another program", "device", k.rec.Device, "volume", k.rec.Name())
	return errors.Join(k.h.endServer(ctx, k.rec, unix.SIGTERM), k.h.forget(k.rec.key()))
}

// endServer ends the own server of a record, if it has one that lives, and returns when it has ended.
func (h *Host) endServer(ctx context.Context, r Record, sig unix.Signal) error {
	if !r.Server.Own {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, serverTime)
	defer cancel()
	if err := r.Server.Process.end(ctx, sig); err != nil {
		return err
	}
	// A keeper that died before it could write who its server is.
	if _, p, err := probe(ctx, r.Server.URI); err == nil {
		return p.end(ctx, sig)
	}
	return nil
}
