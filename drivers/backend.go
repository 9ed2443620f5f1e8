package drivers

import (
	"context"
	"io"
)

// Backend is one implementation of storage: a small, blocking object store. All
// methods may be called concurrently. Names follow [ValidName]; sizes and offsets
// are bytes. An I/O call does all of what was asked or returns an error; after an
// error of a mutation nothing is known about how much of it happened, and an error
// that matches [ErrUnknownOutcome] says that it may still happen later.
type Backend interface {
	// Properties returns facts about this backend. They never change while it is open.
	Properties() Properties

	// Open opens the object called name. Mode [Create] makes it, empty, and fails
	// with [ErrExists] if the name is taken; exactly one of several concurrent
	// creators wins. The other modes fail with [ErrNotFound] if it is missing. The
	// new name is durable only after [Backend.SyncGroup] of its group.
	Open(ctx context.Context, name string, mode Mode) (Object, error)

	// Stat returns the facts of one object, [ErrNotFound] if there is none.
	Stat(ctx context.Context, name string) (Info, error)

	// Unlink removes a name, [ErrNotFound] if there is none. Open objects stay
	// readable and writable until closed. The removal is durable only after
	// SyncGroup.
	Unlink(ctx context.Context, name string) error

	// List calls fn for every object whose name lies below group, at any depth, in
	// no promised order, until fn returns an error, which List returns. A group
	// that was never used lists as empty. Objects created or removed meanwhile may
	// or may not be seen; all others are seen exactly once.
	List(ctx context.Context, group string, fn func(Info) error) error

	// Load returns the whole content of a small object (at most [MaxSmall] bytes),
	// [ErrNotFound] if there is none. It sees one [Backend.Replace] entirely or not
	// at all.
	Load(ctx context.Context, name string) ([]byte, error)

	// Replace sets the whole content of a small object, atomically, if cond holds.
	// When it returns nil the content and the name are durable: no SyncGroup is
	// needed. With cond.Absent it is an exclusive create, atomic against all
	// other creators: [ErrExists] if the name is taken. With cond.Prefix the
	// present content must begin with these bytes: else [ErrConflict], or
	// ErrNotFound. Unless Properties.AtomicCondition is set, the prefix is compared
	// and the content switched in two steps, so only the holder of a lease may use it.
	Replace(ctx context.Context, name string, data []byte, cond Condition) error

	// SyncGroup makes every creation and removal of names directly in this group
	// that returned before the call durable.
	SyncGroup(ctx context.Context, group string) error

	// Close releases everything. Objects must have been closed before.
	Close() error
}

// Object is an open object. Its methods may be called concurrently, but for Close,
// which comes last. Buffers are the callee's until the call returns.
type Object interface {
	// ReadAt fills p from offset off. Bytes past the object's end, and bytes that
	// were never written, read as zero.
	ReadAt(p []byte, off int64) error

	// WriteAt writes all of p at off and extends the object as needed. When it
	// returns, the bytes have left the process: they survive its death. They are
	// durable after Sync (at once if Properties.DurableWrites).
	WriteAt(p []byte, off int64) error

	// Sync makes every write, punch and allocation that returned before the call durable.
	// A failed Sync leaves the state of all of them unknown for ever.
	Sync() error

	// Size returns the object's length in bytes.
	Size() (int64, error)

	// Close ends the use of the object. It does not sync.
	Close() error
}

// Optional abilities are the small interfaces below. A wrapper that cannot know what it wraps answers
// errors.ErrUnsupported, which means the same as not to have the ability.

// Puncher is an [Object] that can give back the space of a range.
type Puncher interface {
	// PunchHole makes [off, off+n) read as zero and frees its whole blocks. It
	// never changes the object's size.
	PunchHole(off, n int64) error
}

// Allocator is an [Object] that can reserve space.
type Allocator interface {
	// Allocate reserves space for [off, off+n), so that writes there do not fail
	// for lack of it. It changes no content but may extend the object with zeros.
	Allocate(off, n int64) error
}

// TryReader is an [Object] that can tell that a read would block.
type TryReader interface {
	// TryReadAt reads like ReadAt if that will not block (the data is cached).
	// Otherwise it returns false, and p's content is undefined.
	TryReadAt(p []byte, off int64) (done bool, err error)
}

// TryWriter is an [Object] whose writes are usually absorbed without blocking.
type TryWriter interface {
	// TryWriteAt writes like WriteAt if it expects not to block: the write goes to
	// a cache, and such writes have lately been quick. Otherwise it returns
	// false and has written nothing.
	TryWriteAt(p []byte, off int64) (done bool, err error)
}

// CacheDropper is an [Object] whose cached clean data can be forgotten, so that the
// next read comes from the storage itself.
type CacheDropper interface {
	// DropCache forgets the cached clean data. Dirty data stays.
	DropCache() error
}

// Locker is a [Backend] whose storage has locks that the operating system ties to the
// life of the process that took them.
type Locker interface {
	// Lock makes the object called name if it is missing, and locks it exclusively,
	// without waiting: [ErrLocked] if another open of it, in any process or in this one,
	// holds the lock. It ends when the result is closed or the process dies, and not
	// before. Closing does not remove the object. Holding the lock of an object that was
	// unlinked meanwhile counts for nothing; Lock never returns such a lock.
	Lock(ctx context.Context, name string) (io.Closer, error)
}

// Mode says how [Backend.Open] opens an object.
type Mode uint8

// The modes of Open.
const (
	ReadOnly  Mode = iota // read an existing object
	ReadWrite             // read and write an existing object
	Create                // make it exclusively, then read and write it
)

// Condition is what must hold for a [Backend.Replace]. The zero value always holds.
type Condition struct {
	Absent bool   // the name must not exist
	Prefix []byte // the present content must begin with these bytes; at most 512
}

// Info is what Stat and List say about an object.
type Info struct {
	Name      string
	Size      int64 // bytes, the object's length
	Allocated int64 // bytes of storage in use, as far as the backend knows; else Size
}

// Properties are facts about a backend that decide how it is used.
type Properties struct {
	// Kind is for people and logs. No code decides by it.
	Kind string
	// DurableWrites says that a completed write is durable: Sync has nothing to do.
	DurableWrites bool
	// AtomicCondition says that Replace compares and switches in one step.
	AtomicCondition bool
	// MaxWorkers bounds how many calls are useful at once; 0 leaves it to the engine.
	MaxWorkers int
}

// MaxSmall is the largest content in bytes of an object used with Load and Replace.
const MaxSmall = 64 << 20
