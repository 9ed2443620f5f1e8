// Package fsxtest exercises disks at random and compares them with a model, in the manner of Apple's fsx.
//
// An [Exerciser] makes reads, writes, zeros, holes and syncs of lengths and at offsets that lie around the edges: of sectors,
// blocks, chunks, of the disk and of what was touched lately. Some are made at once, beside each other in one block. A
// [Volume] is also made larger and smaller, and snapshots of it are taken, read, removed and gone back to. Every read is compared, and at times
// all there is. What a write writes depends on the number of the operation and the place alone, so that a byte that is wrong tells where it
// comes from.
//
// The operations follow from a seed. A failure tells it, the last operations and those that touched the byte that is wrong.
// [Settings] reads the environment: SKERRY_SEED gives the seed, SKERRY_FSX_OPS the number of operations, so that a failure is found again, and
// by bisection the operation after which it shows; SKERRY_SOAK makes runs long.
package fsxtest
