// Package control is how a command works on a volume that another process of this host holds: each process that
// holds volumes answers HTTP requests with JSON bodies on a Unix socket, whose path its leases name.
//
// # Socket
//
// The socket lies in $XDG_RUNTIME_DIR/skerry, else for root in /run/skerry, else in a directory of the user's own below
// the directory for temporary files. The directory has mode 0700, the socket 0600: who can reach it may do all that the owner may. Its name,
// "<pid>-<random>.sock", is never used again, so a request never ends in another process than the
// one that the lease names. Sockets of dead processes are removed by the next one that listens.
//
// # Calls
//
//	GET    /v1/process                              [Process]; touches no storage, so it tells whether the process lives,
//	                                                and where it shows volumes to other programs: [Shows]
//	GET    /v1/volumes                              names of the volumes held: [Volumes]
//	GET    /v1/volumes/{volume}                     [Volume]
//	POST   /v1/volumes/{volume}/snapshots           [NewSnapshot]; answers 201 with [Snapshot]
//	DELETE /v1/volumes/{volume}/snapshots/{name}    [Removal]
//	POST   /v1/volumes/{volume}/clones              [NewClone]; answers 201 with the new [Volume]
//	POST   /v1/volumes/{volume}/size                [NewSize]; answers with the [Volume]
//	POST   /v1/volumes/{volume}/flatten             answers with a [FlattenLine] a second; ends with the connection
//
// An error is a status of 400 or more and a [Problem], whose code keeps the class of the error (package failure).
// Bodies are bounded: 64 KiB for requests, 8 MiB for answers. Unknown keys in a request are an error.
package control
