// Package transfer moves the content of volumes from and to foreign disk files,
// images: import, export, and the formats that it reads.
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
// An exported file appears under its name only when it is complete and durable: until then it is a hidden file
// beside it, "."+name+".<random>.partial".
package transfer
