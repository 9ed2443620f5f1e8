package catalog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
)

// reserveSize is the space in bytes that a pool keeps back for what must be written to get space back: roots, and the pages of a
// volume that was not closed cleanly.
const reserveSize = 8 << 20

// leastReserve is the smallest reserve that is worth it.
const leastReserve = 512 << 10

// fillReserve makes the pool's reserve, a smaller one if there is no space for all of it.
func fillReserve(ctx context.Context, c drivers.Client) error {
	err := makeReserve(ctx, c, reserveSize)
	for size := int64(reserveSize / 2); errors.Is(err, drivers.ErrNoSpace) && size >= leastReserve; size /= 2 {
		err = makeReserve(ctx, c, size)
	}
	return err
}

func makeReserve(ctx context.Context, c drivers.Client, size int64) error {
	var digits [8]byte
	rand.Read(digits[:]) // never fails, says its documentation
	name := chunk.ReserveGroup + "/" + hex.EncodeToString(digits[:])
	if err := c.Create(ctx, name); err != nil {
		return fmt.Errorf("make the reserve: %w", err)
	}
	err := c.Allocate(ctx, name, 0, size)
	if err == nil {
		err = errors.Join(c.Sync(ctx, name), c.SyncGroup(ctx, chunk.ReserveGroup))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make the reserve: %w", err), c.Unlink(ctx, name))
	}
	return nil
}

// spendReserve gives the pool's reserve back to the storage and reports whether there was one.
func (p *Pool) spendReserve(ctx context.Context) (spent bool, err error) {
	err = p.client.List(ctx, chunk.ReserveGroup, func(info drivers.Info) error {
		spent = true
		return p.client.Unlink(ctx, info.Name)
	})
	return spent, err
}

// WithReserve does what gives space back, or what must come before that: if the storage is full, fn is
// done again with the space that the pool keeps back for it. Afterwards that is kept back again, as far as there is space.
func (p *Pool) WithReserve(ctx context.Context, fn func() error) error {
	err := fn()
	if !errors.Is(err, drivers.ErrNoSpace) {
		return err
	}
	if spent, failed := p.spendReserve(ctx); failed != nil || !spent {
		return errors.Join(err, failed)
	}
	err = fn()
	if failed := fillReserve(ctx, p.client); failed != nil {
		p.log.Warn("the pool has no reserve: remove volumes or snapshots, or run gc", "err", failed)
	}
	return err
}

// KeepReserve makes the pool's reserve again if it was spent when there was no space for all of it, or by a process that died before
// it made a new one. Storage that has no space for it is no error.
func (p *Pool) KeepReserve(ctx context.Context) error {
	var there []string
	var size int64
	err := p.client.List(ctx, chunk.ReserveGroup, func(info drivers.Info) error {
		there, size = append(there, info.Name), max(size, info.Size)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the reserve: %w", err)
	}
	if size >= reserveSize {
		return nil
	}
	if err = makeReserve(ctx, p.client, reserveSize); errors.Is(err, drivers.ErrNoSpace) {
		if len(there) > 0 {
			return nil
		}
		if err = fillReserve(ctx, p.client); errors.Is(err, drivers.ErrNoSpace) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	for _, name := range there { // smaller ones
		if err := p.client.Unlink(ctx, name); err != nil && !errors.Is(err, drivers.ErrNotFound) {
			return fmt.Errorf("remove the smaller reserve: %w", err)
		}
	}
	return nil
}
