// Package mem is a backend in memory, with a model of what storage may lose.
//
// # Volatility
//
// An object keeps, beside its content, its durable content and the writes, punches and allocations since its last
// Sync, in order. A group keeps the creations and removals of names since its last SyncGroup.
// [Backend.Crash] makes of these the storage after a power loss: what was synced and, of the
// rest, what a [Keep] says, down to single sectors of a write. [Backend.Kill] makes the storage
// after the death of all processes, which keeps everything but locks. Both leave the old backend
// as it is; the two share pages until one of them writes.
//
// # Layout
//
// A content is a map of leaves of 1 MiB, each an array of pages of 4 KiB; an absent page is zeros and takes no space.
// A leaf belongs to one content, told by its token, and so do the pages that its bits name; others are
// copied before they are changed.
//
// # Lock order
//
// Backend.world (shared by every operation, exclusive for Crash and Kill), then Backend.mu (names), then object.mu (one content).
package mem
