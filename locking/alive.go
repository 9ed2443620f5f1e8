package locking

import (
	"context"
	"errors"
	"fmt"
	"io"

	"skerry/chunk"
	"skerry/drivers"
)

// Alive reports whether the process that a root names as its holder still has the lock of its instance file. On
// storage without locks it fails with [errors.ErrUnsupported].
func (i *Instance) Alive(ctx context.Context, h Holder) (bool, error) {
	if h.Instance == i.nonce {
		i.mu.Lock()
		defer i.mu.Unlock()
		return !i.closed, nil
	}
	lock, err := i.probe(ctx, h.Instance)
	switch {
	case errors.Is(err, drivers.ErrLocked):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("probe instance of process %d on host %s: %w", h.PID, h.Host, err)
	}
	if err := lock.Close(); err != nil {
		return false, fmt.Errorf("probe instance of process %d on host %s: %w", h.PID, h.Host, err)
	}
	return false, nil
}

// probe locks the instance file of a process that is dead. It fails with [drivers.ErrLocked] if it lives, or if
// another one probes it. It makes no file where there is none: a live process has one.
func (i *Instance) probe(ctx context.Context, nonce [16]byte) (io.Closer, error) {
	name := instanceName(nonce)
	_, err := i.client.Stat(ctx, name)
	if errors.Is(err, drivers.ErrNotFound) {
		return nothing{}, nil
	}
	if err != nil {
		return nil, err
	}
	return i.engine.Lock(ctx, name)
}

// nothing is the lock of a file that is gone.
type nothing struct{}

func (nothing) Close() error { return nil }

// dead calls fn with the name of every instance file whose process is dead, while it holds the file's lock.
func (i *Instance) dead(ctx context.Context, fn func(name string) error) error {
	var names []string
	err := i.client.List(ctx, chunk.InstanceGroup, func(info drivers.Info) error {
		if nonce, ok := parseInstanceName(info.Name); ok && nonce != i.nonce {
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list instance files: %w", err)
	}
	for _, name := range names {
		nonce, _ := parseInstanceName(name)
		lock, err := i.probe(ctx, nonce)
		if errors.Is(err, drivers.ErrLocked) {
			continue
		}
		if err == nil {
			if err = fn(name); errors.Is(err, drivers.ErrNotFound) {
				err = nil // another one was quicker
			}
			err = errors.Join(err, lock.Close())
		}
		if err != nil {
			return fmt.Errorf("instance file %s: %w", name, err)
		}
	}
	return nil
}

// Bury removes the instance files of dead processes and returns how many there were. Leases that these held stay as they are:
// a process without an instance file is dead. With dryRun it only counts.
func (i *Instance) Bury(ctx context.Context, dryRun bool) (int, error) {
	n := 0
	err := i.dead(ctx, func(name string) error {
		if !dryRun {
			if err := i.client.Unlink(ctx, name); err != nil {
				return err
			}
		}
		n++
		return nil
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return 0, nil
	}
	return n, err
}
