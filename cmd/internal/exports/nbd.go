package exports

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"skerry/nbd"
	"skerry/volume"
	"skerry/volume/catalog"
)

// NBD returns the exports as an NBD server shows them. The empty name means the only export, if there is only one.
func (t *Table) NBD() nbd.Exports { return nbdExports{t} }

type nbdExports struct{ *Table }

// Open returns the device of an export.
func (x nbdExports) Open(ctx context.Context, name string) (nbd.Device, func(), error) {
	name, err := x.find(name)
	if err != nil {
		return nil, nil, err
	}
	d, release, err := x.Device(ctx, name)
	if err != nil {
		x.log.Warn("export cannot be opened", "volume", name, "err", err)
		return nil, nil, unknownIfMissing(err)
	}
	if x.readOnly {
		return readOnlyDevice{d}, release, nil
	}
	return d, release, nil
}

// Describe returns size and kind of an export.
func (x nbdExports) Describe(ctx context.Context, name string) (nbd.Info, error) {
	name, err := x.find(name)
	if err != nil {
		return nbd.Info{}, err
	}
	r, err := catalog.ParseRef(name)
	if err != nil {
		return nbd.Info{}, fmt.Errorf("%w: %w", nbd.ErrUnknownExport, err)
	}
	what := "volume "
	if r.Snapshot != "" {
		what = "snapshot "
	}
	// Who asks for the size of an open device every second costs the storage nothing, and hears of it when the storage hangs, too.
	if d := x.opened(name); d != nil {
		return nbd.Info{Size: d.Size(), ReadOnly: x.readOnly || d.ReadOnly(), Description: what + name}, nil
	}
	i, err := x.pool.Info(ctx, r.Volume)
	if err != nil {
		return nbd.Info{}, unknownIfMissing(err)
	}
	if r.Snapshot == "" {
		return nbd.Info{Size: i.Size, ReadOnly: x.readOnly, Description: what + name}, nil
	}
	for _, s := range i.Snapshots {
		if s.Name == r.Snapshot {
			return nbd.Info{Size: s.Size, ReadOnly: true, Description: what + name}, nil
		}
	}
	return nbd.Info{}, fmt.Errorf("%s: %w", name, nbd.ErrUnknownExport)
}

// List returns the names of all exports.
func (x nbdExports) List(ctx context.Context) ([]string, error) {
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
func (x nbdExports) find(name string) (string, error) {
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
