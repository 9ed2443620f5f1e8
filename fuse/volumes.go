package fuse

import (
	"context"
	"time"

	"skerry/volume"
)

// Device is what an open file reads and writes. All methods may be called concurrently.
type Device interface {
	// Submit hands over a request, see [volume.Request]. It returns true if the request has ended,
	// with its outcome in Err; otherwise Done hears of it.
	Submit(r *volume.Request) (done bool)
	// Extents calls fn for the extents of [off, off+n), ascending and without gaps, until it
	// returns false. It may block.
	Extents(ctx context.Context, off, n int64, fn func(volume.Extent) bool) error
	// Size returns the size in bytes.
	Size() int64
	// ReadOnly reports whether the device refuses every change.
	ReadOnly() bool
	// Resize makes the device size bytes large, a multiple of 512; it is durable when Resize returns. Making it smaller fails with
	// [skerry/volume/catalog.ErrInUse] if not only this opening uses the volume.
	Resize(ctx context.Context, size int64) error
	// Changes returns how many requests have changed the device since it was opened, whoever made them.
	Changes() int64
}

// Entry is what there is to say of a volume or a snapshot without opening it.
type Entry struct {
	Name    string    // "vol" or "vol@snap"
	ID      uint64    // of this volume or snapshot and no other one, whatever its name
	Size    int64     // bytes
	Granted time.Time // when it was last opened for writing, by whomever; of a snapshot when it was taken
	Grant   uint32    // the number of that opening
	Changes int64     // as Device.Changes, if this process has it open
}

// Space is what the storage has, in bytes.
type Space struct {
	Total, Free int64
	Available   int64 // to users without privileges
}

// Volumes is what a mount shows. All methods may be called concurrently; names are "vol" or "vol@snap". Errors match those of the packages
// volume, catalog, locking and drivers.
type Volumes interface {
	// List returns all volumes and snapshots that can be read. It opens nothing.
	List(ctx context.Context) ([]Entry, error)
	// Lookup returns one of them. It opens nothing.
	Lookup(ctx context.Context, name string) (Entry, error)
	// Open opens a volume, which leases it, or a snapshot. release is called once, when no request is outstanding.
	Open(ctx context.Context, name string) (d Device, release func(), err error)
	// Create makes a volume of size bytes, all zeros.
	Create(ctx context.Context, name string, size int64) error
	// Rename gives a volume another name. It fails if there is one of that name.
	Rename(ctx context.Context, name, to string) error
	// Remove removes a volume that has no snapshots, or a snapshot.
	Remove(ctx context.Context, name string) error
	// Space returns what the storage has.
	Space(ctx context.Context) (Space, error)
}
