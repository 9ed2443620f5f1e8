// Package attach makes volumes block devices of this host, with the kernel's NBD client.
//
// # Processes
//
// A device needs a server, which is a process, and has a keeper, which is another one. The server is the process that serves the
// volume by NBD already; if there is none the keeper starts one of its own and owns it: starts it anew at the same socket when it has
// died, and ends it when the device is detached. A server that a URI names is somebody else's.
//
// The keeper gives the device new connections when those that it had have ended, makes the device as large as the volume is, and
// keeps the record. No I/O goes through it: if it dies the device goes on, until its connections end. Then I/O waits, for
// [Options.Dead], and the next attach of the same volume finds the device and starts another keeper. When a keeper ends it leaves
// device and server as they are; only [Host.Detach] ends these.
//
// # Records
//
// The directory "attach" beside the control sockets has for each device, named by a key that is made of what is attached:
//
//	KEY.json      the [Record]: written before anything is started, replaced at each change
//	KEY.lock      held by who attaches or detaches: one at a time
//	KEY.keeper    held by the keeper as long as it lives: there is one, and a dead one is seen as such; names its process
//	KEY.sock      where the keeper's own server listens; the peer of a connection is the server's process
//	KEY.log       what the server and the keeper say
//
// The kernel keeps a string for each device, the backend identifier, that says what the device is of: the id of the volume, the name
// of the snapshot and when it was taken, the URL of the pool. So a device whose record was not written, or is lost, is found all the same.
// Processes are known by their number and the time that they began at, since numbers come again.
//
// # Order
//
// Attach: record, server, device, record with the device. Whatever of it was done when a process died, the next attach goes on
// from there. Before a device gets connections, the volume that the server has open is compared, by its id, with the one that the device
// is of: while the server was dead the name may have gone to another volume. A device that has lost the race against that never gets
// another volume's data.
//
// Detach: see that nothing uses the device, with the device opened exclusively until the end, so that nothing can begin to;
// flush; end the keeper; disconnect; end the server, which gives the lease back; remove the record.
package attach
