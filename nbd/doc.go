// Package nbd serves volumes as NBD devices.
//
// The protocol is fixed newstyle NBD with structured replies, as its document defines it:
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md ("proto.md" below).
//
// # One connection
//
// One goroutine a connection reads requests into an input buffer of 256 KiB and gives them to
// the [Device]. What the device does inline is answered in a batch, sent when no whole request
// is left in the input buffer, or 64 replies or 256 KiB wait, or half as many replies as requests came together
// if those are few: the client goes on with the first half while the server does the second. What ends later is answered by
// whoever completes it: if nobody is sending, the completer sends as much as the kernel takes
// without blocking; the rest is left to a goroutine of the connection (package
// internal/outbox). BLOCK_STATUS may read the map, so it has goroutines of its own.
//
// # Memory
//
// A write's payload of up to 64 KiB is used where it lies in the input buffer; if the device keeps it,
// the buffer is pinned until the request is released, and the next writes are
// copied, so that few buffers are pinned at a time. Other payloads take pooled
// buffers. Whatever a client sends, memory is bounded:
//   - strings and options are bounded before they are read; what is longer is read and dropped;
//   - a connection has at most Options.MaxRequests requests that are not answered and released;
//   - buffers of all connections together are bounded by Options.MaxInFlight, one
//     connection's by an eighth of it (but one request always fits). A small part per connection does not count,
//     so that small requests go on when others have taken all.
//
// Buffers that are in no use are kept for the next requests, up to 64 MiB of all sizes, as long as there is a connection: a process
// through which memory is freed had better not ask for any.
//
// A connection that has reached a bound is not read until a request ends. If the client has closed it meanwhile, what it sent and was not
// begun never is: the kernel's client sends such requests again on another connection. The same holds for changes that were not read for
// a quarter of a second, because one before them took long.
//
// # Order of locks
//
// Server.mu, then conn.mu, then a pool's; the outbox's own is never held together with them.
package nbd
