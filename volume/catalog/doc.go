// Package catalog holds the names of a pool and what is done to whole volumes: create, import, clone, snapshot, roll back, rename,
// remove. It decides nothing about the content of a volume and moves no data.
//
// # Names
//
// A name record points from a name to a volume's id. It counts only if the root in force of that volume is live and
// names it back, so that one switch of that root is the commit of every change of a name. A record that does not count is removed under the
// lease of the volume that it points to, after reading it again, so that nobody removes a record that another one just made. Where
// that volume has no root left, a root in state deleted is made for the time, as something to hold.
//
// # Order of steps
//
// Each list is in the order of durability; [c] is the commit. A crash before it leaves what did not count, after it what only
// needs to be finished; package collect and whoever meets it next do both.
//
//	create, import  root (creating) · name record · objects, pages · root live and released [c]
//	clone           root (creating) · registration at the snapshot · snapshot read again · name record · root live and released [c]
//	rename          new name record · root names it [c] · old record gone
//	remove volume   snapshots flagged · their registrations listed · root deleted [c] · snapshots, name, objects, registration at the
//	                parent gone · roots gone, the highest last
//	copy            pin · root (creating) · name record · root kept · objects, pages, snapshots · root live and released [c] · pin gone
//	pin             root (creating) · registration at the snapshot · snapshot read again
//	remove snapshot record flagged · registrations listed · record gone [c] · seal gone
//	trash           trash record · root trashed [c] · name record gone
//	restore         name record · root live [c] · trash record gone
//	resize          what follows the end in its chunk zeros · root with the size and the pages [c]
//	flatten         copies, and cuts between · root without other owners [c]
//	rollback        root with the snapshot's pages, no journal, released [c]
//
// A name record of a volume that is being created reserves the name from the beginning, so that a long import does
// not end with a name that is taken. A volume that is creating or deleted while nobody holds it is removed
// with all it has. A live volume that has no name record was not left so by any crash; it is removed only if it has nothing else.
//
// # Creations that are kept, and pins
//
// A creation whose root names a time is pending while nobody holds it: it is kept until then, with its name, snapshots and what its root says
// of its source, and Resume goes on with it. Only its holder, or a removal by its name, ends it before.
//
// What it is copied from is kept by a pin: a volume without a name and content, in state creating with a time of its own, that is registered at the
// snapshot as a clone would be. A removal of the snapshot by its name ends pins that nobody holds; all else that removes snapshots heeds them.
//
// A volume in the trash has no name, is not opened and not cloned, and keeps all else: snapshots, registrations at them, its own at
// its parent. Its record in the trash counts only if its root is trashed. It is removed like any other volume once its time is over.
//
// # Sources
//
// A live volume whose root names a source is still copied from an image. Opening it attaches the image, after a check that it is the one, and
// the lease of the device detaches it (bound.go). The end of Flatten is the end of the source. Until then nothing is taken of the volume that
// would share its content.
//
// # Flag, then look
//
// A cloner, whose own root exists, registers at the snapshot and then reads the snapshot again. A remover flags the
// snapshot and then lists the registrations (it also looks before, to set no flag that it would take back). At least one of the two sees the other and backs off. A registration ends once
// nothing of the clone can be read, or nothing of it reaches what came before it.
//
// A reader leaves a record at the snapshot and then reads that again; the remover lists readers, too. Such a record counts as long
// as the process lives that made it, or, where nobody can tell, until its host is started anew. What dead ones leave is removed by the next
// remover or collection.
//
// # Lock order
//
// Every operation on a volume has the volume's turn in the pool, and its lease. The turn of a parent comes before that of
// its clones. Leases of other processes are never waited for. Pool.mu is not held during I/O.
package catalog
