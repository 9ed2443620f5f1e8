// Package fuse shows volumes and snapshots as files of a directory: a volume as NAME.raw, a snapshot as NAME@SNAP.raw.
//
// It knows no pool: what it shows comes from a [Volumes]. The kernel's protocol is spoken by github.com/hanwen/go-fuse.
//
// # Files
//
// A file is known by the number of its volume or snapshot, so renaming changes nothing else. Its device is opened with the first handle and closed
// after the last one; names and sizes are looked up without opening anything, and the kernel keeps them for Options.Expiry.
// Notifications would be quicker, but nobody tells of what other processes do to a pool, so they could not replace that time.
//
// A file that is created is pending: it has no volume until truncate or the first write tells how large that has to be. Handles that are opened
// for writing while it is pending, handles that empty a volume, and those that are opened while there are such, may make the file longer.
// The device then grows by doubling, and is cut to the file's length when a program closes or syncs the file, unless a write that may make it
// longer is under way: then the next close does. Every growing write is counted before it looks at the size, under the same lock under which the
// cut looks at the count, so that nothing is cut off that was answered. A file whose volume somebody else resizes or writes meanwhile becomes as
// long as that.
//
// # Requests
//
// The kernel's requests come on goroutines of go-fuse, which hand them to the device and wait. Requests and their buffers are pooled and hold
// the data apart from the connection's: a request that was answered because it took too long keeps its buffer until the storage lets go. The
// buffer of a read goes to the kernel as it is. Data to write is copied once, and not at all where the device writes it before Submit returns. Bytes in flight are bounded, of one file and of all.
//
// Volumes are never cached by the kernel (FOPEN_DIRECT_IO): another export of the same process may write them. Snapshots are. Where it does not cache,
// the kernel leaves O_SYNC, O_DSYNC and RWF_DSYNC to the file system, and the package flushes after such a write.
//
// # The end
//
// After unmounting, the kernel forgets handles without a word; the server closes them. As long as another mount namespace has a copy of the mount the
// kernel goes on asking; it gets errors then.
//
// # Order of locks
//
// A file's turn, then tree.mu, then file.mu. Only the turn is held across calls of the storage.
package fuse
