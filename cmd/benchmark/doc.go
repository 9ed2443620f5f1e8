// The program benchmark measures skerry beside its peers: nbdkit, qemu-nbd, qemu-storage-daemon and a plain file, on one file system, in one run. It is run from a
// checkout by make bench and is not shipped.
//
// For each row it starts all servers, each with a disk of its own, and measures them in turns, round after round,
// each round beginning with another one. After each measurement the server is told to flush and the file system is
// synced, so that nothing of one is left to do while another is measured. What it found is kept as JSON (results.json), of which
// benchmarks.md, between its markers, and the plots are made; they can be made again without measuring.
//
// Servers that speak NBD are driven by package nbd/load, files through FUSE by fio. The slow storage is a pool of skerry that this program itself shows
// through package fuse: nothing of it is in the product.
package main
