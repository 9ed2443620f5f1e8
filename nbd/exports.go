package nbd

import (
	"context"
	"errors"

	"skerry/volume"
)

// ErrUnknownExport says that there is no export of a name.
var ErrUnknownExport = errors.New("no such export")

// Device is what an export serves; a volume's device is one. All methods may be called
// concurrently, from many connections.
type Device interface {
	// Submit hands over a request, see [volume.Request]. It returns true if the request has ended,
	// with its outcome in Err; otherwise Done hears of it. The range lies within the device and is not empty, but for Flush.
	Submit(r *volume.Request) (done bool)
	// Extents calls fn for the extents of [off, off+n), ascending and without gaps, until it
	// returns false. It may block.
	Extents(ctx context.Context, off, n int64, fn func(volume.Extent) bool) error
	// Size returns the size in bytes.
	Size() int64
	// ReadOnly reports whether the device refuses every change.
	ReadOnly() bool
}

var _ Device = (*volume.Device)(nil)

// FastZeroer is a [Device] that knows when writing zeroes is quicker than writing data.
type FastZeroer interface {
	// FastZero reports whether [off, off+n) can be zeroed faster than written. It does not block.
	FastZero(off, n int64, flags volume.Flags) bool
}

// Info describes an export.
type Info struct {
	Size        int64 // bytes
	ReadOnly    bool
	Description string // for people; may be empty
}

// Exports finds devices by the names of exports. All methods may be called concurrently. Names are as
// clients send them: any bytes, at most 4096 of them, perhaps none.
type Exports interface {
	// Open returns the device of an export, or an error that matches [ErrUnknownExport] if there is none.
	// release is called once, when a connection is done with the device and no request is outstanding.
	Open(ctx context.Context, name string) (d Device, release func(), err error)
	// Describe returns what Open would serve, without opening anything for writing.
	Describe(ctx context.Context, name string) (Info, error)
	// List returns the names of all exports.
	List(ctx context.Context) ([]string, error)
}
