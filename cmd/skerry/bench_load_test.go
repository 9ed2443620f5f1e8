package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestBenchVerifiesAServedVolume(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "8M", "--chunk-size", "64K")
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	uri := s.uri("vm1")
	out := w.ok("bench", uri, "--rw", "read=40,write=40,zero=10,trim=10", "--connections", "2", "--depth", "16", "--block", "12K", "--size", "7992K",
		"--flush-every", "50", "--verify", "--fill", "--count", "3000", "--seed", "5", "--destroy-data", "--json")
	var r benchResult
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Requests != 3000 || r.Verified == 0 || r.IOPS <= 0 || r.CPU <= 0 || r.Seed != 5 || r.Block != 12<<10 || len(r.Kinds) != 5 {
		t.Errorf("got %+v", r)
	}
	// What it wrote can still be checked when the volume was opened again, and by people.
	s.stop()
	s = w.serve(1, "vm1", "--nbd", "unix:s", "--read-only")
	out = w.ok("bench", s.uri("vm1"), "--pattern", "shuffle", "--verify")
	for _, word := range []string{"2048 requests", "no wrong data", "REQUESTS", "read", "P99.9", "seed"} {
		if !strings.Contains(out, word) {
			t.Errorf("no %q in %q", word, out)
		}
	}
	w.fails(2, "read-only", "bench", s.uri("vm1"), "--rw", "write", "--destroy-data", "--count", "1")
}

func TestBenchWritesOnlyWhenToldTo(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	uri := s.uri("vm1")
	for _, flag := range []string{"--rw=write", "--rw=mixed:99", "--rw=trim", "--fill"} {
		w.fails(2, "overwrite "+uri+" --destroy-data", "bench", uri, flag, "--count", "1")
	}
	w.ok("bench", uri, "--count", "1")
	w.ok("bench", uri, "--count", "1", "--rw", "write", "--destroy-data")
}

func TestBenchWrongUsage(t *testing.T) {
	w := newPool(t)
	w.script(`
		2 bench                                                  | accepts 1
		2 bench /some/path                                       | nbd+unix
		2 bench nbd+unix:///x                                    | socket
		2 bench nbd://127.0.0.1:1/x --rw reads                   | mixed:70
		2 bench nbd://127.0.0.1:1/x --pattern up                 | shuffle
		2 bench nbd://127.0.0.1:1/x --block 4KB                  | 4KB
		14 bench nbd://127.0.0.1:1/x                             | connection refused`)
	w.ok("create", "vm1", "--size", "1M")
	uri := w.serve(1, "vm1", "--nbd", "unix:s").uri("vm1")
	w.fails(2, "does not fit", "bench", uri, "--offset", "2M")
	w.fails(2, "depth", "bench", uri, "--depth", "0")
	w.fails(2, "when to end", "bench", uri, "--time", "0s")
}
