// Package local is a backend in a directory of a local file system.
//
// # Layout
//
// The object a/b/c is the file DIR/a/b/c. Missing directories are made, and made durable, before the first file in
// them. SyncGroup removes those that are empty; another process that knew one sees by its inode number and time of birth
// that its place was taken, and syncs the parent again. A name cannot be an object and a group at once. Files that begin with a dot are
// temporary: List does not show them, and one that is left over harms nothing, see [Backend.CleanTemp].
//
// # Durability order
//
// Replace writes a temporary file, syncs it, links it under the name (exclusive) or renames it there, and
// syncs the directory. Create and Unlink leave the directory to SyncGroup. Sync is
// fdatasync(2), which covers the size.
//
// # What does not block
//
// TryReadAt is preadv2(2) with RWF_NOWAIT, or a plain read where the file system holds everything in memory. TryWriteAt
// is a plain write, as long as writes have lately been quick: the page cache takes it.
package local
