package locking

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// Seize takes a volume whose root in force cannot be read: root becomes the next one. What was in force before is lost with
// that. Who held the volume is not known for sure; Seize fails with ErrHeld if a living process's nonce stands in what there is of the
// root, and with [drivers.ErrInvalid] if the root can be read, or was written by another version. Generation, sequence, nonce and
// holder of root are set here.
func (i *Instance) Seize(ctx context.Context, root *mapper.Root) (*Lease, error) {
	l, err := i.seize(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("seize volume %v: %w", root.Volume, err)
	}
	return l, nil
}

func (i *Instance) seize(ctx context.Context, root *mapper.Root) (*Lease, error) {
	if err := i.enter(ctx); err != nil {
		return nil, err
	}
	defer i.leave()
	if err := i.appear(ctx); err != nil {
		return nil, err
	}
	generations, err := listRoots(ctx, i.client, root.Volume)
	if err != nil {
		return nil, err
	}
	if len(generations) == 0 {
		return nil, drivers.ErrNotFound
	}
	last := generations[len(generations)-1]
	if _, err = loadRoot(ctx, i.client, root.Volume, last); !errors.Is(err, mapper.ErrDamaged) {
		return nil, errors.Join(fmt.Errorf("root %d can be read: %w", last, drivers.ErrInvalid), err)
	}
	b, err := i.client.Load(ctx, chunk.RootName(root.Volume, last))
	if err != nil {
		return nil, err
	}
	if mapper.Intact(b) {
		return nil, fmt.Errorf("root %d was written by another version of skerry: use that: %w", last, drivers.ErrInvalid)
	}
	if err := i.unclaimed(ctx, b); err != nil {
		return nil, err
	}
	next := i.granted(root, last+1)
	if next.Generation == 0 {
		return nil, errors.New("generations are used up")
	}
	won, err := i.publish(ctx, next)
	if err == nil && !won {
		err = drivers.ErrConflict
	}
	if err != nil {
		return nil, err
	}
	i.log.Warn("volume taken whose root cannot be read", "volume", next.Name, "lease", next.Generation)
	return i.hold(next), nil
}

// unclaimed fails with ErrHeld if the nonce of a living process stands anywhere in b.
func (i *Instance) unclaimed(ctx context.Context, b []byte) error {
	return i.client.List(ctx, chunk.InstanceGroup, func(info drivers.Info) error {
		nonce, ok := parseInstanceName(info.Name)
		if !ok || !bytes.Contains(b, nonce[:]) {
			return nil
		}
		alive, err := i.Alive(ctx, Holder{Instance: nonce})
		if errors.Is(err, errors.ErrUnsupported) {
			alive, err = true, nil // nobody can tell
		}
		if alive && nonce != i.nonce {
			return fmt.Errorf("%w that lives: end that first", ErrHeld)
		}
		return err
	})
}
