// Package kerneltest gives tests a Linux kernel with an nbd client: user-mode-linux, a guest that is a process
// (scripts/uml). The host's own kernel need not have the module, and nothing that goes wrong touches it.
//
// The guest is root in the host's file system, read-only, so all programs of the host are there; [Bed.Dir] is the
// directory that both can write, at the same path in both; /run and $TMPDIR are the guest's own. It has the modules nbd, loop, dm_flakey, nfs
// and others for modprobe, and ext4, xfs and btrfs. Go programs are about 25 times slower in it, and the race detector does not work, so servers run on
// the host, in a network of the bed's own that the guest reaches: [Bed.Listen] for servers in the test's process, [Bed.Do]
// to start others. A program for the guest is built without the race detector: [Build].
//
//	bed := kerneltest.New(t)
//	l := bed.Listen(10809)                    // 10.9.0.1:10809 in the guest
//	bed.Do(func() { server = start(...) })    // a process that listens on 10.9.0.1
//	g := bed.Boot(`
//		modprobe nbd nbds_max=1
//		step() { echo "STEP $1"; read answer; }   # tell the test, and wait for it
//		...
//		step written
//	`)
//	g.Until("STEP written")
//	...                                       // kill the server, for example
//	g.Say("go on")
//	g.End()                                   // fails the test if the script failed
//
// The script runs under set -e in Bed.Dir. A boot takes two seconds. Everything ends with the test; a test that fails shows what the guest said.
//
// guestctl (package main below this one) is package nbd/kernel as a command, for scripts in the guest.
package kerneltest
