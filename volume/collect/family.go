package collect

import (
	"context"
	"fmt"
	"slices"

	"skerry/chunk"
	"skerry/drivers"
)

// relatives is how many volumes' data objects are known at once.
const relatives = 8

// family knows which data objects volumes have.
type family struct {
	client drivers.Client
	known  []relative // the last used one comes last
}

type relative struct {
	id   chunk.VolumeID
	data *serials
}

// data returns the serials of the data objects that a volume had when it was first asked for.
func (f *family) data(ctx context.Context, id chunk.VolumeID) (*serials, error) {
	if i := slices.IndexFunc(f.known, func(r relative) bool { return r.id == id }); i >= 0 {
		r := f.known[i]
		f.known = append(slices.Delete(f.known, i, i+1), r)
		return r.data, nil
	}
	s := &serials{}
	err := f.client.List(ctx, chunk.GroupName(id, chunk.Data), func(info drivers.Info) error {
		if serial, ok := serialOf(info.Name); ok {
			s.add(serial)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list objects of volume %v: %w", id, err)
	}
	s.seal()
	if len(f.known) == relatives {
		f.known = slices.Delete(f.known, 0, 1)
	}
	f.known = append(f.known, relative{id, s})
	return s, nil
}

// forget makes the next call of data look again.
func (f *family) forget(id chunk.VolumeID) {
	f.known = slices.DeleteFunc(f.known, func(r relative) bool { return r.id == id })
}
