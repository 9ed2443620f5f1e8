package catalog

import (
	"context"
	"errors"
	"sync"
	"time"

	"skerry/chunk"
	"skerry/mapper"
	"skerry/volume"
)

// attach makes the source of a volume readable, if it has one. It returns what a device of the volume is made of: the configuration and the
// lease; b is nil if there is no source.
func (p *Pool) attach(ctx context.Context, root *mapper.Root, lease volume.Lease) (config volume.Config, l volume.Lease, b *bound, err error) {
	config = p.config(root.Volume)
	s, err := p.reachable(root)
	if s == nil {
		return config, lease, nil, err
	}
	verify, detach, err := p.o.Sources.Attach(ctx, root.Volume, root.Geometry, s)
	if err != nil {
		return config, nil, nil, tell(err, "volume %s: it is still being copied from %s: %v", root.Name, s.Files[0].Path, err)
	}
	config.Verify = verify
	b = &bound{Lease: lease, detach: sync.OnceFunc(detach)}
	return config, b, b, nil
}

// bound is the lease of a device whose volume has a source, which is detached with it.
type bound struct {
	volume.Lease
	detach func()

	mu     sync.Mutex
	ended  bool
	whole  bool               // the image is copied, and detached
	cancel context.CancelFunc // of the copy; nil: none was begun
	copied chan struct{}      // closed when it has ended
}

// end detaches the source, once the copy has ended. It works on nil, a volume without a source.
func (b *bound) end() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.ended = true
	cancel, copied := b.cancel, b.copied
	b.mu.Unlock()
	if cancel != nil {
		cancel()
		<-copied
	}
	b.detach()
}

// pause ends the copy, if one was begun, and reports that; CopyBehind begins it anew. It works on nil.
func (b *bound) pause() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.cancel == nil {
		return false
	}
	cancel, copied := b.cancel, b.copied
	b.mu.Unlock()
	cancel()
	<-copied
	b.mu.Lock()
	if b.ended || b.whole || b.copied != copied {
		return false
	}
	b.cancel, b.copied = nil, nil
	return true
}

// Release implements [volume.Lease].
func (b *bound) Release(ctx context.Context, change func(*mapper.Root)) error {
	b.end() // no request is left that could read the source
	return b.Lease.Release(ctx, change)
}

// Abandon implements [volume.Lease].
func (b *bound) Abandon() {
	b.end()
	b.Lease.Abandon()
}

// CopyBehind begins to copy, in the background, what a volume that this pool has open still has in the image that it was imported from. It
// goes on until that is done or the device is closed; what the device's next opening finds copied stays so. It does nothing if there is
// nothing to copy, or if it was begun before.
func (p *Pool) CopyBehind(dev *volume.Device) {
	root := dev.Root()
	if root == nil {
		return
	}
	b := p.boundOf(root.Volume, dev)
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.whole || b.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.copied = cancel, make(chan struct{})
	go func() {
		defer close(b.copied)
		p.copyBehind(ctx, dev, root.Name, b)
	}()
}

// boundOf returns the lease of an open device whose volume has, or had, a source; nil if it is none.
func (p *Pool) boundOf(id chunk.VolumeID, dev *volume.Device) *bound {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.entries[id]; e != nil && e.dev == dev {
		return e.bound
	}
	return nil
}

// copyBehind copies all of an image, and lets go of it. After an error, of full storage for example, it tries again, unless that cannot help.
func (p *Pool) copyBehind(ctx context.Context, dev *volume.Device, name string, b *bound) {
	for {
		err := dev.Flatten(ctx, volume.FlattenOptions{})
		if err == nil {
			_, err = dev.Cut(ctx) // whoever may still read the image has ended then
		}
		switch {
		case err == nil:
			b.detach()
			b.mu.Lock()
			b.whole = true
			b.mu.Unlock()
			p.log.Info("the image is copied; it is not needed any more", "volume", name)
			return
		case ctx.Err() != nil || errors.Is(err, volume.ErrClosed):
			return
		case errors.Is(err, volume.ErrDamaged) || dev.Err() != nil:
			p.log.Error("the image cannot be copied", "volume", name, "err", err)
			return
		}
		p.log.Warn("the image is not all copied; it is tried again", "volume", name, "in", p.o.CopyRetry, "err", err)
		again := time.NewTimer(p.o.CopyRetry)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return
		}
	}
}
