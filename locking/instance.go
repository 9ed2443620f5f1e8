package locking

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"skerry/chunk"
	"skerry/drivers"
)

// Options tune an [Instance]. The zero value means the defaults.
type Options struct {
	Now    func() time.Time // what grants are dated with; nil: time.Now
	Logger *slog.Logger     // nil: none
}

// Instance is this process as a holder of the volumes of one pool. Its methods may be called concurrently.
type Instance struct {
	engine *drivers.Engine
	client drivers.Client
	id     Identity
	nonce  [16]byte
	now    func() time.Time
	log    *slog.Logger

	granting chan struct{} // has room for the one who grants or closes

	mu        sync.Mutex
	lock      io.Closer // of the instance file; nil before the first grant
	leases    map[chunk.VolumeID]*Lease
	abandoned bool
	closed    bool
}

// NewInstance returns this process as a holder, under a fresh random nonce. It touches no storage before the first grant.
func NewInstance(e *drivers.Engine, id Identity, o Options) *Instance {
	i := &Instance{
		engine: e, client: e.Client(drivers.LaneLease, 0, nil), id: id, now: o.Now, log: o.Logger,
		granting: make(chan struct{}, 1), leases: make(map[chunk.VolumeID]*Lease),
	}
	i.id.Host = id.Host[:min(len(id.Host), maxText)]
	if len(id.Socket) > maxText {
		i.id.Socket = "" // no address of a Unix socket is that long (unix(7))
	}
	rand.Read(i.nonce[:]) // never fails, says its documentation
	if i.now == nil {
		i.now = time.Now
	}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	return i
}

// Nonce returns the nonce that grants to this instance carry and that names its instance file.
func (i *Instance) Nonce() [16]byte { return i.nonce }

// enter waits for the right to grant or close; leave gives it back.
func (i *Instance) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case i.granting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (i *Instance) leave() { <-i.granting }

// appear makes and locks the instance file if that was not done yet. The caller has entered.
func (i *Instance) appear(ctx context.Context) error {
	i.mu.Lock()
	there, closed := i.lock != nil, i.closed
	i.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if there {
		return nil
	}
	lock, err := i.engine.Lock(ctx, instanceName(i.nonce))
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock instance file: %w", err)
	}
	i.mu.Lock()
	i.lock = lock
	i.mu.Unlock()
	return nil
}

// Appear makes this process known as one that lives, as a grant does, and returns how others are told of it. On storage without
// locks only that.
func (i *Instance) Appear(ctx context.Context) (Holder, error) {
	if err := i.enter(ctx); err != nil {
		return Holder{}, fmt.Errorf("make the process known: %w", err)
	}
	defer i.leave()
	if err := i.appear(ctx); err != nil {
		return Holder{}, fmt.Errorf("make the process known: %w", err)
	}
	return i.holder(), nil
}

// holder describes this process.
func (i *Instance) holder() Holder {
	return Holder{
		Host: i.id.Host, HostID: i.id.HostID, Boot: i.id.Boot, Instance: i.nonce,
		PID: uint32(i.id.PID), Socket: i.id.Socket, Since: i.now(),
	}
}

// lease returns the lease of a volume that this instance holds, nil if it holds none.
func (i *Instance) lease(id chunk.VolumeID) *Lease {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.leases[id]
}

// forget removes an ended lease.
func (i *Instance) forget(l *Lease, abandoned bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.leases[l.volume] == l {
		delete(i.leases, l.volume)
	}
	i.abandoned = i.abandoned || abandoned
}

// Close abandons the leases that were not released and gives up the instance file, which is removed if no
// lease was ever abandoned. From then on others may take what this instance held, so no
// operation under one of its leases may be outstanding.
func (i *Instance) Close(ctx context.Context) error {
	if err := i.enter(ctx); err != nil {
		return fmt.Errorf("close instance: %w", err)
	}
	defer i.leave()
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return fmt.Errorf("close instance: %w", ErrClosed)
	}
	i.closed = true
	var left []*Lease
	for _, l := range i.leases {
		left = append(left, l)
	}
	lock := i.lock
	i.mu.Unlock()
	for _, l := range left {
		l.Abandon()
	}
	if lock == nil {
		return nil
	}
	var err error
	if !i.abandonedAny() {
		if err = i.client.Unlink(ctx, instanceName(i.nonce)); errors.Is(err, drivers.ErrNotFound) {
			err = nil
		}
	}
	if err = errors.Join(err, lock.Close()); err != nil {
		return fmt.Errorf("close instance: %w", err)
	}
	return nil
}

func (i *Instance) abandonedAny() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.abandoned
}
