// Package kernel attaches NBD exports to /dev/nbdN through the kernel's own client, and looks after what is attached.
//
// The interface is the generic netlink family of drivers/block/nbd.c; commands, attributes and their
// types are those of include/uapi/linux/nbd-netlink.h and, for flags, include/uapi/linux/nbd.h. The handshake is done in
// user space ([Dial], client.HandOver), the sockets go to the kernel, which then needs no process here. The calling
// process needs CAP_SYS_ADMIN; the module nbd must be loaded, which is the administrator's matter ([ErrNoModule]).
//
// # Attach
//
//	sockets, export, err := kernel.Dial(ctx, "unix", path, "vm1", 4)
//	config, err := kernel.ConfigFor(export)   // then: Index, DeadTimeout, Backend
//	index, err := control.Connect(config, sockets)
//	err = kernel.RaiseRequestSize(index, int64(export.MaxPayload))
//
// and close the sockets: the kernel holds its own references.
//
// The kernel spreads requests over as many connections as it has CPUs, and keeps the others for when those break.
//
// # A server that dies
//
// When a connection breaks, the kernel uses the others. When all are dead, requests wait for DeadTimeout, and only then
// fail, for good: the device must be detached. Before that, [Control.Reconfigure] gives it new sockets, to a server that was
// started again for example. A [Watcher] tells of each connection that breaks. Requests that were under way on a dead
// connection are sent again when RequestTimeout is over, not earlier; that is how long a guest may wait after a restart.
//
// Time-outs have a price. A server that takes longer than RequestTimeout for one request loses the
// connection, and the request is sent again on another one, while the first may still be carried out. This project's server changes a block
// in the order of arrival, and begins nothing that waited unread on a Unix socket that was closed; on TCP it cannot tell in time, and other servers
// may do neither. RequestTimeout should be longer than any time that a living server takes, its waiting for storage included. Kernels before 5.16 fail what was under way on a device's only
// connection; use at least two.
//
// # Detach
//
// [Control.Detach] refuses a device that is mounted or otherwise in use, and writes back what the page cache holds.
// [Control.Disconnect] does neither, and is the way with a dead server: what was not yet written fails. A device that
// is still open stays attached in [Control.Status] until it is closed.
package kernel
