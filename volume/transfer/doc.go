// Package transfer moves the content of volumes from and to foreign disk files,
// images: import, export, and the formats that they know; from pool to pool: copy; and what changed between two snapshots: delta.
//
// A copy is positional and checked: the range is cut into segments of 4 MiB, each worker takes the next
// segment, reads all of it or fails, and writes it where it was read, so that nothing depends on the order in
// which segments end. A read that ends early is an error, never zeros. Every copy ends with
// a flush of what was written.
//
// Zeros are not copied: neither where the source knows that it has them (holes, unallocated clusters,
// zero extents), nor blocks of 4 KiB that turn out to be zero. An import therefore wants a
// new volume, which reads as zeros. An exported file is sparse; on a block device zeros are made.
//
// An image is a raw or qcow2 file, or one of them compressed as a whole. It is read by position (source), or,
// if it is compressed or comes through a pipe, from front to back (stream); a qcow2 image that comes from front to
// back is spooled to a temporary file without a name first. A qcow2 image and its backing files are layers, the first that has
// something at a place decides. Images are not trusted: a qcow2 file is walked through before anything is
// read by it (qcow2_check.go), unpacking takes bounded memory whatever the file asks for, and no file is opened because
// an image names it unless the caller allows that. Internal snapshots of qcow2 images are passed over: the content is that of the disk as it is.
//
// Exported qcow2 images have version 3 and clusters of 64 KiB; clusters of zeros are left out, and there is no backing file. To a file
// clusters go in the order in which workers have them (qcow2_export.go), compressed ones share clusters of the file. To a pipe
// the tables go first (qcow2_stream.go): what has data is known from the extents.
//
// An image can also be shown before it is copied (lazy.go): as the objects of an id that the volume's map adopts (source.go), read by
// position from an object of the pool or from a file of this host, which is looked at after each read (binding.go).
//
// A copy to another pool (copy_pool.go) goes from snapshot to snapshot. Each is matched with what the copy has (copy_match.go): only blocks that differ are
// written, so that a copy can go on from any state in which it was cut off; that of the mark in its root on is looked at again. A
// delta (delta.go, docs/delta-format.md) is written and read from front to back in bounded memory, and applied by catalog.Pool.Update.
//
// An exported file appears under its name only when it is complete and durable: until then it is a hidden file
// beside it, "."+name+".<random>.partial", with as much of the name as fits.
package transfer
