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
//	supersede         the same, 24  8  as of
//	data              the same, 32  (end - first) * 4096  the blocks
//	flush             8  8  covers
//
// One batch lies in one frame; batches that wait for the same write share one. The sequences in as of
// and covers are smaller than that of their frame.
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
// Newer is not the same as later in the journal. A flush first notes the last frame (covers) and what is dirty, then reads
// or syncs blocks, then appends; a FUA write of the same block may be appended meanwhile, and must win. So a data or
// supersede entry says as of which frame it was captured: it is newer than the entries up
// to that frame, and older than all after it, wherever it lies. An entry without it is newer than all before
// its own place; this is what a FUA write uses, which holds its block's lock from its
// data write until the append has returned. A flush that reads each block under its lock may use covers as its
// as of for all: a FUA write between covers and the reading is durable in the journal by itself.
//
// # Concurrency
//
// One appender at a time leads: it writes what waits as one frame, tells the others, and hands the lead
// to the first that waits. So there is one write at a time, and a frame is handed to the storage only when all before it have been
// written. Syncs run beside writes, one at a time; a sync makes durable what was written
// when it began. The writer's lock is not held during I/O. A failed write or sync is final.
package journal
