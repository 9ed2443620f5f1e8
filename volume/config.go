package volume

import (
	"context"
	"log/slog"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// Lease is the right to write the volume, as the device needs it; locking.Lease is one.
type Lease interface {
	// Claim is called once by the device that the lease is for; a second device is refused.
	Claim() error
	// Err returns nil while the lease holds. It guards every mutation.
	Err() error
	// Root returns a copy of the root in force.
	Root() *mapper.Root
	// Switch replaces the root by a copy that change has changed, atomically and durably.
	Switch(ctx context.Context, change func(*mapper.Root)) error
	// NextSerial returns a serial that was never used.
	NextSerial() (chunk.Serial, error)
	// Release switches the root for the last time, marked as cleanly released, and ends the lease.
	Release(ctx context.Context, change func(*mapper.Root)) error
	// Abandon ends the lease without a word on the storage: the next grant finds an unclean end.
	Abandon()
}

// Options tune a device. The zero value means the defaults.
type Options struct {
	Logger       *slog.Logger     // nil: none
	Deadline     time.Duration    // of a request; 0: 30 s
	JournalSize  int64            // bytes that the journal has at first; 0: 4 MiB
	JournalLimit int64            // bytes up to which it grows as it fills up; 0: 64 MiB
	MapMemory    int64            // bytes of clean map pages kept; 0: 32 MiB
	Workers      int              // goroutines for requests that cannot be done inline; 0: 256
	Boot         [16]byte         // boot id of this kernel
	Now          func() time.Time // for creation times; nil: time.Now
}

// Config says what a device is made of.
type Config struct {
	Engine *drivers.Engine
	Tenant uint64
	// Closed is called once when Close of a snapshot's device has waited for all requests; nil: nothing is. It is not called if Close gives
	// up before that.
	Closed func(context.Context)
	// Verify says whether the source, which the root names, is still what it was; nil if there is none. Flatten asks it before
	// the source leaves the root. It may be called concurrently.
	Verify func() error
	Options
}
