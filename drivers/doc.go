// Package drivers holds the contract between the volume store and its storage: a
// [Backend] is small and blocking, the [Engine] over it is asynchronous.
//
// # Layers
//
// Callers submit an [Op] to an [Engine], or use a [Client] to wait for one. The engine keeps lanes with workers of their own,
// serves tenants in turns, bounds what waits, keeps handles open, and calls the backend.
// Where a backend can tell that an operation will not block, the engine does it on the caller's goroutine.
//
// # Names
//
// Object names are opaque here. A name has a group (all before its last slash), the unit in
// which names are listed and made durable: a directory for backends that have those. So no name may be an object and
// a group at once.
//
// # Durability
//
// Write: the bytes have left the process. Sync: an object's bytes are durable. SyncGroup: names
// are durable. Replace: content and name are durable. A failed Sync is final: the engine answers it to every later sync of
// that name.
//
// # Lanes
//
// Each lane has its queue, workers and bounds, so that one that hangs holds up no other. Guest syncs, and guest I/O on
// objects that are not open, have workers of their own beside the guest lane's. A worker is started when there is work and
// none is idle, and ends after 10 s without work. A [Client] that cannot be told to stop waiting counts as a worker, and does its operation
// itself, where a worker would begin with it at once: nobody has to be woken twice. One goroutine, the sweeper, fails what waited past its deadline, also where all
// workers hang. What was handed to the backend is waited for, however long it takes, because it holds the caller's buffer.
//
// # Handles
//
// A handle is opened once for all who need it and kept until its place is needed. It is dirty from before its first
// change until a sync that began after its last change has ended well. Dirty handles are not closed; when there are too many, the
// longest dirty are synced in the background and changes that would make more wait. Syncs of one
// handle never overlap, as the operating system tells of a failure only once; who asks while one runs shares the next.
//
// Lock order: a shard of the handles, then the dirty set; lanes and the table of failed syncs are leaves. No backend is called, and no completion, under any
// of them.
package drivers
