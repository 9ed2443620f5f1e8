package catalog

import (
	"context"
	"errors"

	"skerry/locking"
	"skerry/mapper"
)

// Rename gives a volume another name. The volume must not be open. A rename that was interrupted after its commit is finished
// by repeating it.
func (p *Pool) Rename(ctx context.Context, old, name string) error {
	if err := p.rename(ctx, old, name); err != nil {
		return doing(err, "rename volume %s to %s", old, name)
	}
	return nil
}

func (p *Pool) rename(ctx context.Context, old, name string) error {
	if old == name {
		_, _, err := p.lookup(ctx, old)
		return err
	}
	if _, _, err := p.lookup(ctx, old); err != nil {
		if errors.Is(err, ErrNotFound) && p.finishRename(ctx, old, name) {
			return nil
		}
		return err
	}
	return p.naming(ctx, name, func() error { return p.tryRename(ctx, old, name) })
}

func (p *Pool) tryRename(ctx context.Context, old, name string) error {
	h, err := p.holdNamed(ctx, old)
	if err != nil {
		return err
	}
	if h.dev != nil {
		h.done(ctx)
		return openHere(old)
	}
	err = p.reserve(ctx, name, h.id)
	if err == nil {
		err = h.lease.Switch(ctx, func(r *mapper.Root) { r.Name = name })
		if err == nil {
			err = h.unname(ctx, old)
		} else if h.lease.Err() == nil && h.settledName(ctx) == old {
			if undoErr := h.unname(context.WithoutCancel(ctx), name); undoErr != nil {
				p.log.Warn("name record is left for gc", "volume", name, "err", undoErr)
			}
		}
	}
	return errors.Join(err, h.Done(ctx))
}

// settledName returns the name of the volume after a switch that failed: after one more, of which nobody doubts.
func (h *Held) settledName(ctx context.Context) string {
	if err := h.lease.Switch(context.WithoutCancel(ctx), func(*mapper.Root) {}); err != nil {
		return ""
	}
	return h.Root().Name
}

// finishRename removes the old record if the volume that it points to has the new name already.
func (p *Pool) finishRename(ctx context.Context, old, name string) bool {
	id, err := p.record(ctx, old)
	if err != nil {
		return false
	}
	root, err := locking.Inspect(ctx, p.client, id)
	if err != nil || !namedBack(name, root) {
		return false
	}
	if counts, err := p.counts(ctx, name, root); err != nil || !counts {
		return false
	}
	_, err = p.Tidy(ctx, id, old)
	return err == nil
}
