package locking

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// inspections bounds how often a read of the root in force is begun anew because the root went away under it.
const inspections = 8

// Inspect returns the root in force of a volume, without a lease: it may be
// replaced at any time. It fails with [drivers.ErrNotFound] if the volume has no root and with [mapper.ErrDamaged] if the
// highest one cannot be read.
func Inspect(ctx context.Context, c drivers.Client, id chunk.VolumeID) (*mapper.Root, error) {
	root, _, err := inForce(ctx, c, id)
	return root, err
}

// inForce returns the root in force, and all generations that have roots, ascending.
func inForce(ctx context.Context, c drivers.Client, id chunk.VolumeID) (*mapper.Root, []uint32, error) {
	for try := 1; ; try++ {
		generations, err := listRoots(ctx, c, id)
		if err != nil {
			return nil, nil, fmt.Errorf("list roots of volume %v: %w", id, err)
		}
		if len(generations) == 0 {
			return nil, nil, fmt.Errorf("volume %v: %w", id, drivers.ErrNotFound)
		}
		root, err := loadRoot(ctx, c, id, generations[len(generations)-1])
		switch {
		case err == nil:
			return root, generations, nil
		case errors.Is(err, drivers.ErrNotFound) && try < inspections:
			continue // it was removed after the list was made
		}
		return nil, nil, err
	}
}

// listRoots returns the generations that have roots, ascending.
func listRoots(ctx context.Context, c drivers.Client, id chunk.VolumeID) ([]uint32, error) {
	var generations []uint32
	err := c.List(ctx, chunk.GroupName(id, chunk.Roots), func(info drivers.Info) error {
		if g, ok := chunk.ParseRootName(info.Name); ok {
			generations = append(generations, g)
		}
		return nil
	})
	slices.Sort(generations)
	return generations, err
}

// loadRoot reads one root and checks that it is the one it should be.
func loadRoot(ctx context.Context, c drivers.Client, id chunk.VolumeID, generation uint32) (*mapper.Root, error) {
	b, err := c.Load(ctx, chunk.RootName(id, generation))
	if err != nil {
		return nil, fmt.Errorf("root %d of volume %v: %w", generation, id, err)
	}
	root, err := mapper.DecodeRoot(b)
	if err != nil {
		return nil, fmt.Errorf("root %d of volume %v: %w", generation, id, err)
	}
	if root.Volume != id || root.Generation != generation {
		return nil, fmt.Errorf("root %d of volume %v: %w: it is root %d of volume %v",
			generation, id, mapper.ErrDamaged, root.Generation, root.Volume)
	}
	return root, nil
}
