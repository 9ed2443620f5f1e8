package journal

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
)

// Sizes in bytes.
const (
	// Align is the unit of offsets and lengths of frames.
	Align = chunk.SectorSize
	// DefaultSize is the size of a journal whose [Config] names none.
	DefaultSize = 4 << 20
	// MinSize and MaxSize bound the size of a journal.
	MinSize = 8 * Align
	MaxSize = 64 << 20
	// MaxFrame bounds the entries of a [Batch] and of a frame.
	MaxFrame = 2 << 20
)

// The errors of a journal. They come wrapped; test with [errors.Is]. Errors of the
// storage show through.
var (
	// ErrFull says that a batch does not fit between head and start: a cut makes room.
	ErrFull = errors.New("journal is full")
	// ErrTooLarge says that a batch is larger than a frame, or than the journal, can be.
	ErrTooLarge = errors.New("too large for the journal")
	// ErrDamaged says that a frame that was synced cannot be read, or holds nonsense.
	ErrDamaged = errors.New("journal is damaged")
	// ErrVersion says that a journal has a format that this program does not know.
	ErrVersion = errors.New("unknown journal format")
	// ErrInvalid says that the caller asked for something without a meaning.
	ErrInvalid = errors.New("invalid use of the journal")
	// ErrClosed says that the journal's writer is closed.
	ErrClosed = errors.New("journal is closed")
)

// Store is what a journal needs of its storage. Offsets and lengths are bytes. All
// methods may be called concurrently; buffers are the callee's until the call returns.
type Store interface {
	// Create makes an empty object and fails if the name is taken. The name is durable after SyncGroup.
	Create(ctx context.Context, name string) error
	// Allocate reserves the space of [off, off+n). It is a hint and may do nothing.
	Allocate(ctx context.Context, name string, off, n int64) error
	// ReadAt fills p. Bytes past the object's end read as zero.
	ReadAt(ctx context.Context, name string, p []byte, off int64) error
	// WriteAt writes all of p. When it returns, the bytes have left the process; they are durable after Sync.
	WriteAt(ctx context.Context, name string, p []byte, off int64) error
	// Sync makes every write durable that returned before the call.
	Sync(ctx context.Context, name string) error
	// SyncGroup makes every creation of a name in the group durable that returned before the call.
	SyncGroup(ctx context.Context, group string) error
}

// Object names an object with data of the volume that the journal belongs to.
type Object struct {
	Chunk  uint64
	Serial chunk.Serial
}

// Config says which journal [Create] makes.
type Config struct {
	Store      Store
	Volume     chunk.VolumeID
	Generation uint32       // of the grant under which the journal is written
	Boot       [16]byte     // the host's boot id
	Object     chunk.Serial // names the journal's object
	Size       int64        // bytes, a multiple of Align from MinSize to MaxSize; 0: DefaultSize
	FirstSeq   uint64       // sequence of the first frame; 0: 1
	// Lease is the context under which frames are written and synced, since that is done for many
	// callers at once. If it is nil, no cancellation ends them.
	Lease context.Context
}

// Create makes the object of a new journal exclusively, fills it with zeros, syncs it and
// its group, and returns its writer. When it fails the object may exist; its name must
// not be tried again. ctx bounds Create alone.
func Create(ctx context.Context, c Config) (*Writer, error) {
	if c.Size == 0 {
		c.Size = DefaultSize
	}
	if c.FirstSeq == 0 {
		c.FirstSeq = 1
	}
	if c.Lease == nil {
		c.Lease = context.WithoutCancel(ctx)
	}
	name := chunk.SerialName(c.Volume, chunk.Journals, c.Object)
	if c.Size < MinSize || c.Size > MaxSize || c.Size%Align != 0 {
		return nil, fmt.Errorf("create journal %s of %d bytes: %w", name, c.Size, ErrInvalid)
	}
	if err := format(ctx, c, name); err != nil {
		return nil, fmt.Errorf("create journal %s: %w", name, err)
	}
	return newWriter(c, name), nil
}

// format makes the object and leaves it zeroed and durable.
func format(ctx context.Context, c Config, name string) error {
	if err := c.Store.Create(ctx, name); err != nil {
		return err
	}
	if err := c.Store.Allocate(ctx, name, 0, c.Size); err != nil {
		return err
	}
	zeros := make([]byte, min(c.Size, 1<<20))
	for off := int64(0); off < c.Size; off += int64(len(zeros)) {
		if err := c.Store.WriteAt(ctx, name, zeros[:min(c.Size-off, int64(len(zeros)))], off); err != nil {
			return err
		}
	}
	if err := c.Store.Sync(ctx, name); err != nil {
		return err
	}
	return c.Store.SyncGroup(ctx, chunk.GroupName(c.Volume, chunk.Journals))
}
