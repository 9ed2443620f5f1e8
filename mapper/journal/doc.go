// Package journal is the redo log of one open volume: map changes and small writes, made
// durable by one append and one sync, whatever number of objects they belong to.
//
// # Frames
//
// A journal is one object of fixed size, filled with zeros and synced before it is used, so
// that an append changes no length and allocates nothing. Frames lie in it at offsets
// that are multiples of 512; each is as long as its header and its entries, rounded up to
// 512. Numbers are little endian. The header:
//
//	 0   8  "skryjrnl"
//	 8   4  format version, 1
//	12   4  generation of the grant
//	16  16  volume id
//	32  16  boot id of the host that wrote
//	48   8  serial of the journal's object
//	56   8  sequence: one more than that of the frame before; the first is 1 or more
//	64   8  synced: the last sequence known durable when the frame was written
//	72   4  lap
//	76   4  length of the entries in bytes, at most 2 MiB
//	80   4  checksum of the frame before, 0 in a journal's first
//	84   4  checksum: CRC-32C of the whole frame, padding included, without these 4 bytes
//	88      entries, then zeros
//
// Entries follow each other without gaps. All begin with 8 bytes:
//
//	0   1  kind: 1 touch, 2 delta, 3 data, 4 supersede, 5 flush
//	1   1  flags of a delta: 1 zeros, 2 durable by itself; else 0
//	2   2  first block   } of delta, data and supersede: first < end <= 8192;
//	4   2  end block     } else 0
//	6   2  0
//
// and go on with
//
//	touch, delta      8  8  chunk, 16  8  serial of the object
//	supersede         the same, 24  8  as of + 1; 0: none
//	data              the same, 32  (end - first) * 4096  the blocks
//	flush             8  8  covers
//
// One batch lies in one frame; batches that wait for the same write share one. As of and covers are smaller than the
// sequence of their frame.
//
// # The ring
//
// The first frame has lap 1 and offset 0. A frame that does not fit before the end of the
// object goes to offset 0 of the next lap; what is left of the lap is not used. Live space is what
// lies between the start, which the volume's root names, and the head; no frame is written over it. The
// start moves when a root that names a later one is durable: objects, groups, pages, root, group of the root,
// and only then [Writer.Release].
//
// # Reading
//
// A reader starts at a [Position] and takes frames as long as volume, generation, object, lap,
// sequence, checksum of the frame before and checksum are as expected; what an
// earlier lap left fails by its sequence. Where that ends it looks through the object for a later frame whose
// synced field says that the missing one was durable. If there is one, the journal is damaged; else the journal ends
// there, and what follows was never synced. A damaged last frame can't be told from a torn one.
// A frame that is valid and holds entries without a meaning is damage too.
//
// # What counts
//
// Bits are published by touch, delta: the data is written to the object first, then the
// delta is appended, then the write is answered. After the death of the process alone, all that was
// written is there, objects are newer than the journal's data, and all deltas count. After a loss of power:
//
//   - A delta counts if its frame is not later than the highest covers of any flush entry, or
//     if it is durable by itself: the data lies in the same batch.
//   - Data and supersede entries count if a flush entry follows them; a flush larger than a frame has its
//     flush entry in the last.
//   - Of each block the newest data counts that no newer supersede entry that counts, and no newer
//     delta with zeros that counts, makes void.
//
// Newer is not the same as later in the journal: a FUA write may be appended between a flush's reading of the
// same block and the flush's append, and must win. So data and supersede entries say as of which frame they were
// captured: they are newer than the entries up to that frame, and older than all after it, wherever
// they lie. An entry without an as of is newer than all before its own place.
//
// What this rests on:
//
//   - A write puts its data into the object, then marks the blocks dirty, then appends its delta, then is
//     answered. Deltas and FUA data are appended under the block's lock, which is held from the data write until the
//     append has returned. FUA data has no as of. Its batch holds the delta of its blocks, durable by itself, also where an
//     earlier delta set the bits already, unless a flush is known to cover that; and a flush entry that covers 0, so
//     that the data counts.
//   - A flush takes these steps in order: it notes covers ([Writer.Last]); takes the set of dirty blocks; notes its as of
//     ([Writer.Last] again); reads blocks under their locks, or syncs their objects; appends; syncs the
//     journal. Noted earlier, the as of would let FUA data of a block win over a write that came after it and that the set
//     holds; noted later, it would beat FUA data that is newer than what was read. A covers that is noted later would
//     cover deltas of blocks that the set lacks.
//   - Blocks whose object was synced get a supersede entry if the journal may hold data of them, looked up after
//     the as of was noted. One too many does no harm.
//   - Flushes do not overlap. A cut that clears dirty blocks does not lie between a flush's taking of
//     the set and its append.
//   - What a cut writes holds every delta before the [Writer.Head] that it names as start. A cut forgets that the journal
//     holds data of a block only if that data lies before this head.
//
// # Concurrency
//
// One appender at a time leads: it writes what waits as one frame, tells the others, and hands the lead
// to the first that waits. So there is one write at a time, and a frame is handed to the storage only when all before it have been
// written. Syncs run beside writes, one at a time; a sync makes durable what was written
// when it began. The writer's lock is not held during I/O. A failed write or sync is final.
package journal
