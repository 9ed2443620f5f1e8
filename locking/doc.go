// Package locking grants the right to write volumes. A grant is a root: generation N+1 of a volume is
// taken by creating its root exclusively, as a copy of root N with a new holder and a random nonce. The root of the
// highest generation is in force. Only the holder replaces it, each time conditionally on the version before.
//
// # Who is alive
//
// Every process that holds volumes is an [Instance] with a random nonce and a file of that name in the pool,
// which it keeps locked by the operating system. Its grants name it. As long as the lock is held nobody
// takes its volumes; once it is free, or the file is gone, the process is dead and anybody may, at once. An instance file is made
// before the first grant that names it, and is removed only by someone who holds its lock. Whoever finds a holder dead reads the root once more:
// the holder may have switched it between the first read and its end.
//
// # Outcomes
//
// After any result of creating a root, also an error, the root is read back: the nonce says who won. The grant counts only
// if a list made after it shows no higher one. A root that a grant made that was then given up names
// an instance that knows nothing of it; that instance itself may take the volume again.
// A switch whose outcome is unknown is settled by reading before the next one; nothing that depends on it may
// be done until then.
//
// # Order of roots
//
// A grant of N+1 removes the roots before N. N itself keeps its number used, so that nobody who still believes
// in N-1 can be granted N again.
//
// # Lock order
//
// Instance.granting, then Lease.turn, then Instance.mu or Lease.mu. The first two are held during I/O, and waiting for them
// ends with the caller's context.
package locking
