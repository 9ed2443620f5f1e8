package main

import (
	"strconv"
	"testing"
)

func TestServedSnapshotsAreNotRemoved(t *testing.T) {
	w := newPool(t)
	w.script(`
		create vm1 --size 1M
		snapshot vm1@s1
		snapshot vm1@s2`)
	for _, volume := range []bool{false, true} { // served with the volume: the process that is asked to remove is the reader
		names := []string{"vm1@s1", "--nbd", "unix:" + w.path("s")}
		if volume {
			names = append(names, "vm1")
		}
		s := w.serve(len(names)-2, names...)
		w.fails(13, "vm1@s1 read process "+strconv.Itoa(s.cmd.Process.Pid), "rm", "vm1@s1")
		if !volume {
			w.fails(13, "vm1 read process", "rm", "vm1", "--snapshots")
		}
		w.ok("gc")
		if volume {
			s.kill()
		} else {
			s.stop()
		}
	}
	w.script(`
		check                               | stale
		rm vm1@s1
		rm vm1 --snapshots
		gc
		check --json                        | "problems": []`)
}
