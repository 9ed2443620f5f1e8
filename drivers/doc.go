// Package drivers holds the contract between the volume store and its storage: a
// [Backend] is small and blocking, the [Engine] over it is asynchronous.
//
// # Layers
//
// Callers submit an [Op] to an [Engine]. The engine keeps lanes with workers of their own,
// serves tenants in turns, bounds what waits, keeps handles open, and calls the backend.
// Where a backend can tell that an operation will not block, the engine does it on the caller's goroutine.
//
// # Names
//
// Object names are opaque here. A name has a group (all before its last slash), the unit in
// which names are listed and made durable: a directory for backends that have those.
//
// # Durability
//
// Write: the bytes have left the process. Sync: an object's bytes are durable. SyncGroup: names
// are durable. Replace: content and name are durable. A failed Sync is final.
package drivers
