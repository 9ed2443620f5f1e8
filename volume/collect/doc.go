// Package collect removes what nothing reaches any more, and finds what is wrong with a pool.
//
// # What is collected
//
// An object is removed only under the lease of the volume that owns it, and only if its serial is at or below a bound, taken
// before anything is listed, up to which the root in force reaches all that is alive: the generation before the grant's own for a lease taken
// for it, what a cut says for an open volume. It is removed if neither the root, nor a snapshot's record, nor a journal that the root names
// reaches it. Journals are not applied for that; all that they name stays. If one page, record or journal cannot be read, nothing of that
// volume is removed.
//
// Beside that: volumes being created or deleted that nobody holds, volumes whose time in the trash is over, name records that do not count, registrations without a clone, hidden
// snapshots without registrations, records of dead readers, and instance files of dead processes. Clones come before their parents, by age, so that one
// run frees what a clone was the last to need.
//
// # Check
//
// Check takes no lease and writes nothing. What changes while it looks, it looks at again.
//
// # Scrub
//
// Scrub reads what maps reach, page number by page number, with all snapshots of a volume at once, so that each object is read once; objects of
// another volume are read with that one. What cannot be read is only suspected. At the end roots and records are read anew, and what they still
// reach is damage: a name is never used again, so what was missing before a root was read and is reached by it is missing indeed.
//
// # Repair
//
// Repair writes records anew whose right content others prove, under the lease of the volume that they are of, and then nothing else. It can be cut
// off anywhere and repeated. Damaged name records come first, so that volumes without a name find theirs free or taken for good.
//
// # Memory
//
// Serials are kept as sorted numbers, eight bytes for an object of the volumes that are looked at, which are those that one volume's map
// names.
package collect
