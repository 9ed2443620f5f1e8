package main

import (
	"skerry/nbd/load"
)

// disk says what stands behind a server.
type disk string

// The disks.
const (
	full     disk = "full"        // all blocks hold random data, written in blocks of 4 KiB
	imported disk = "as-imported" // all blocks hold random data, as the program that made the disk wrote them
	sparse   disk = "sparse"      // nothing was ever written
	clone    disk = "clone"       // made anew for each measurement: nothing of its own yet, over a full one
	shown    disk = "shown"       // a full one, shown as a file through FUSE
	slow     disk = "slow"        // the same, and the storage takes its time; its blocks are there, so writes change no map
	none     disk = "none"        // a server without storage
)

// filled reports whether a disk begins with data in all its blocks.
func (d disk) filled() bool { return d == full || d == imported || d == shown || d == slow }

// rewritten reports whether a disk is written once, in blocks of 4 KiB, before it is measured.
func (d disk) rewritten() bool { return d == full || d == shown || d == slow }

// row is one kind of work.
type row struct {
	id, title, group, unit string
	disk                   disk
	load                   load.Config
	image                  bool // not served: an image is brought in
}

// group is a set of rows that share a table and a plot.
type group struct{ id, title, note string }

// groups returns the groups in the order of the document.
func groups() []group {
	return []group{
		{"random-read", "Random reads of 4 KiB", ""},
		{"random-write", "Random writes of 4 KiB", ""},
		{"large", "64 KiB and 1 MiB", ""},
		{"flush", "Writes that are flushed", "The writes are in flight together; when all have ended, one flush follows; then the next ones. Rates count writes."},
		{"imported", "Disks as they were brought in", "The same work on disks as `skerry import`, `cp` and `qemu-img convert` leave them in the page cache."},
		{"clone", "First writes to a fresh clone", "A clone, or overlay, is made anew for each measurement; every block is written once, in random order."},
		{"fuse", "Files through FUSE", "fio drives them with O_DIRECT through libaio. The writes of qemu-storage-daemon's export are not to be trusted when several are in flight; only their time is taken."},
		{"slow", "A storage that is far away", "Files through FUSE as above; each call of the storage takes 1 ms, and up to 0.1 ms for the timer, more than it takes anyway."},
		{"other", "Mixed, sparse, several connections", ""},
		{"import", "Bringing in an image", "The image is a raw file of random data in the page cache. skerry's import is durable when it returns."},
		{"ceiling", "What the load itself can make", "Servers without storage: what stands here is the most that any row above could show."},
	}
}

// work returns the load of a row.
func work(mix load.Mix, block int64, depth int) load.Config {
	return load.Config{Mix: mix, Block: block, Depth: depth, Conns: 1}
}

func sequential(c load.Config) load.Config {
	c.Pattern = load.Sequential
	return c
}

func flushed(c load.Config, every int64) load.Config {
	c.FlushEvery = every
	return c
}

func shuffled(c load.Config) load.Config {
	c.Pattern = load.Shuffle
	return c
}

func connections(c load.Config, n int) load.Config {
	c.Conns = n
	return c
}

// rows returns all rows in the order in which they are measured.
func rows() []row {
	reads, writes, mixed := load.Mix{Read: 100}, load.Mix{Write: 100}, load.Mix{Read: 70, Write: 30}
	const k, m = 1 << 10, 1 << 20
	return []row{
		{"read-4k-1", "4 KiB random read, depth 1", "random-read", iops, full, work(reads, 4*k, 1), false},
		{"read-4k-16", "4 KiB random read, depth 16", "random-read", iops, full, work(reads, 4*k, 16), false},
		{"read-4k-64", "4 KiB random read, depth 64", "random-read", iops, full, work(reads, 4*k, 64), false},
		{"write-4k-1", "4 KiB random write, depth 1", "random-write", iops, full, work(writes, 4*k, 1), false},
		{"write-4k-16", "4 KiB random write, depth 16", "random-write", iops, full, work(writes, 4*k, 16), false},
		{"write-4k-64", "4 KiB random write, depth 64", "random-write", iops, full, work(writes, 4*k, 64), false},
		{"mixed-4k-16", "4 KiB random, 70 % reads, depth 16", "other", iops, full, work(mixed, 4*k, 16), false},
		{"read-64k-16", "64 KiB random read, depth 16", "large", rate, full, work(reads, 64*k, 16), false},
		{"write-64k-16", "64 KiB random write, depth 16", "large", rate, full, work(writes, 64*k, 16), false},
		{"read-1m-4", "1 MiB sequential read, depth 4", "large", rate, full, sequential(work(reads, m, 4)), false},
		{"write-1m-4", "1 MiB sequential write, depth 4", "large", rate, full, sequential(work(writes, m, 4)), false},
		{"flush-8", "8 random 4 KiB writes + flush", "flush", iops, full, flushed(work(writes, 4*k, 8), 8), false},
		{"flush-64", "64 random 4 KiB writes + flush", "flush", iops, full, flushed(work(writes, 4*k, 64), 64), false},
		{"imported-write-4k-16", "4 KiB random write to an imported disk, depth 16", "imported", iops, imported, work(writes, 4*k, 16), false},
		{"imported-flush-8", "8 random 4 KiB writes + flush, imported disk", "imported", iops, imported, flushed(work(writes, 4*k, 8), 8), false},
		{"imported-flush-64", "64 random 4 KiB writes + flush, imported disk", "imported", iops, imported, flushed(work(writes, 4*k, 64), 64), false},
		{"clone-4k-16", "first 4 KiB random writes to a fresh clone, depth 16", "clone", iops, clone, shuffled(work(writes, 4*k, 16)), false},
		{"fuse-read-4k-16", "FUSE file, 4 KiB random read, depth 16", "fuse", iops, shown, work(reads, 4*k, 16), false},
		{"fuse-write-4k-16", "FUSE file, 4 KiB random write, depth 16", "fuse", iops, shown, work(writes, 4*k, 16), false},
		{"fuse-read-1m-4", "FUSE file, 1 MiB sequential read, depth 4", "fuse", rate, shown, sequential(work(reads, m, 4)), false},
		{"fuse-write-1m-4", "FUSE file, 1 MiB sequential write, depth 4", "fuse", rate, shown, sequential(work(writes, m, 4)), false},
		{"fuse-flush-8", "FUSE file, 8 random 4 KiB writes + fdatasync", "fuse", iops, shown, flushed(work(writes, 4*k, 8), 8), false},
		{"slow-read-4k-64", "FUSE file, 4 KiB random read, storage of 1 ms, depth 64", "slow", iops, slow, work(reads, 4*k, 64), false},
		{"slow-write-4k-64", "FUSE file, 4 KiB random write, storage of 1 ms, depth 64", "slow", iops, slow, work(writes, 4*k, 64), false},
		{"sparse-64k-16", "64 KiB random read of holes, depth 16", "other", rate, sparse, work(reads, 64*k, 16), false},
		{"read-4k-4x16", "4 KiB random read, 4 connections with depth 16", "other", iops, full, connections(work(reads, 4*k, 16), 4), false},
		{"write-4k-4x16", "4 KiB random write, 4 connections with depth 16", "other", iops, full, connections(work(writes, 4*k, 16), 4), false},
		{"import", "import of a raw image, ended with a sync", "import", seconds, none, load.Config{}, true},
		{"null-read-4k-64", "4 KiB read without storage, depth 64", "ceiling", iops, none, work(reads, 4*k, 64), false},
		{"null-write-4k-64", "4 KiB write without storage, depth 64", "ceiling", iops, none, work(writes, 4*k, 64), false},
		{"null-read-1m-4", "1 MiB read without storage, depth 4", "ceiling", rate, none, work(reads, m, 4), false},
	}
}
