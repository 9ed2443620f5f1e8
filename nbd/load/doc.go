// Package load makes load on an NBD server, or on a plain file beside it, and measures what comes of it.
//
// A [Config] says what to do. [Run] opens the connections, keeps a fixed number of requests in flight on each
// of them, and returns a [Result]: rates, latencies, and the processor time that the load itself took. It is a closed loop: a request's latency
// runs from the moment at which its predecessor in the same place has ended. Nothing is allocated for a request.
//
// # Order
//
// Each connection has a [session], which belongs to the goroutine of its client: the first request is submitted by
// the completion of an uncounted one, all others by the completion of one before, so that a session needs no
// lock. With FlushEvery, a session that has begun that many changes waits until nothing of its own is in flight, flushes, and goes on when the
// flush has ended: the flush covers exactly the changes that were counted.
//
// # Verification
//
// With Verify the range is divided into slots of one block. Each has a state, shared by all connections: what was written to it last and whether a
// request is under way. A request takes its slot for itself, so what a read must return is never in doubt. Each sector of 512 bytes that is
// written describes itself:
//
//	0   8  magic "skryLOAD"
//	8   8  key of the run, random
//	16  8  offset of the sector in the export, bytes
//	24  8  version: how many changes the run has made to this slot, this one included
//	32     words that follow from the three numbers above
//
// All numbers are big-endian. So a read tells data of another place, data of an earlier write, a torn block and other damage apart. A slot that the run
// has not changed may hold anything, but a sector that begins with the magic must be whole and in its place.
package load
