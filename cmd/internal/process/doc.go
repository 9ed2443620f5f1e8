// Package process makes a process fit to serve devices to its own host: a block device or a file system whose requests come
// from the kernel that the process itself depends on.
//
// Such a process must not wait for itself. If it needs memory, and the kernel frees memory by writing dirty pages to the
// device that the process serves, both wait for ever. [Prepare] does what a process can do about that:
//   - PR_SET_IO_FLUSHER on every thread: the kernel starts no I/O to find memory for this process, and does not hold
//     its writes back because the device behind it is slow (prctl(2));
//   - a memory limit for the Go runtime, so that garbage does not add up while others run short;
//   - if it serves FUSE, processors enough for the Go runtime ([PrepareFUSE]);
//   - if asked for, memory that is never swapped out or dropped (mlockall(2)).
//
// The flag belongs to a thread and is inherited by the threads and processes that it makes, and through execve. Threads that the
// runtime has already made, and those of C libraries, cannot be reached any more. So Prepare sets the flag
// on one thread and begins the program again from there, as the same process: all threads have it then.
package process
