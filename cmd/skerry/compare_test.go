package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestDiffCommand(t *testing.T) {
	w := newPool(t)
	w.put("vm1", bytes.Repeat([]byte{1}, 8<<20))
	w.ok("snapshot", "vm1@a")
	w.ok("clone", "vm1@a", "big", "--size", "16M")
	w.script(`
		diff vm1@a                       | OFFSET KIND
		diff vm1@a --total               | 0 extents
		diff vm1@a big                   | 8388608 zero
		2 diff vm1                       | vm1@NAME
		10 diff vm1@none                 | vm1@none not found
		10 diff vm1@a none               | none not found`)

	// What is served is compared as it is now, through its holder, and no snapshot is left.
	s := w.serve(1, "vm1", "--nbd", "unix:"+w.path("s"))
	c := w.dial(s, "vm1")
	c.write(bytes.Repeat([]byte{2}, 4096), 5<<20)
	c.write(bytes.Repeat([]byte{1}, 4096), 6<<20)
	c.close()
	var got struct {
		Changed []diffExtent `json:"changed"`
		Total   diffTotal    `json:"total"`
	}
	for _, exact := range []bool{false, true} {
		args := []string{"diff", "vm1@a", "--json"}
		if exact {
			args = append(args, "--exact")
		}
		if err := json.Unmarshal([]byte(w.ok(args...)), &got); err != nil {
			t.Fatal(err)
		}
		want := []diffExtent{{5 << 20, 4096, "data"}, {6 << 20, 4096, "data"}}
		if exact {
			want = want[:1]
		}
		if len(got.Changed) != len(want) || got.Changed[0] != want[0] || got.Total.Extents != int64(len(want)) || got.Total.Data != int64(4096*len(want)) {
			t.Errorf("exact %v: %+v", exact, got)
		}
	}
	if out := w.ok("diff", "vm1@a", "--json", "-q"); strings.Count(out, "offset") != 2 {
		t.Errorf("diff --json: %s", out)
	}
	s.stop()
	w.script(`
		diff vm1@a vm1 --total           | 2 extents 8.0 KiB
		gc
		check --json                     | "problems": []`)
	if snapshots := w.objects("snap"); len(snapshots) != 1 {
		t.Errorf("snapshots %q are left", snapshots)
	}
}

func TestR15HashCommand(t *testing.T) {
	w := newPool(t)
	content := make([]byte, 9<<20)
	copy(content[5<<20:], bytes.Repeat([]byte("skerry"), 100000))
	w.put("vm1", content)
	w.put("vm2", content, "--chunk-size", "64K")
	w.ok("snapshot", "vm1@a")
	w.ok("clone", "vm1@a", "big", "--size", "20M")
	sum := strings.Fields(w.ok("hash", "vm1@a"))[0]
	if !strings.HasPrefix(sum, "skerry1-") || len(sum) != 72 {
		t.Errorf("hash %q", sum)
	}
	image := w.path("vm1.image")
	for _, args := range [][]string{{"vm1"}, {"vm2"}, {"--file", image}} {
		if out := w.ok(append([]string{"hash"}, args...)...); strings.Fields(out)[0] != sum {
			t.Errorf("hash %v: %q, want %s", args, out, sum)
		}
	}
	w.ok("export", "-q", "vm1@a", "out.raw")
	var result hashResult
	if err := json.Unmarshal([]byte(w.ok("hash", "--file", "out.raw", "--json")), &result); err != nil || result != (hashResult{File: "out.raw", Size: 9 << 20, Hash: sum}) {
		t.Errorf("%+v, %v", result, err)
	}
	if out := w.okWith(bytes.NewReader(content), "hash", "--file", "-"); out != sum+"  -\n" {
		t.Errorf("hash of a pipe: %q, want %s", out, sum)
	}
	w.has("big", append(bytes.Clone(content), make([]byte, 11<<20)...))
	grown := append(bytes.Clone(content), make([]byte, 11<<20)...)
	if err := os.WriteFile(image, grown, 0o600); err != nil {
		t.Fatal(err)
	}
	if a, b := strings.Fields(w.ok("hash", "big"))[0], strings.Fields(w.ok("hash", "--file", image))[0]; a != b || a == sum {
		t.Errorf("a larger clone: %s and %s", a, b)
	}

	s := w.serve(1, "vm1", "--nbd", "unix:"+w.path("s"))
	w.fails(11, "vm1 snapshot", "hash", "vm1") // it may be written
	if out := w.ok("hash", "vm1@a"); strings.Fields(out)[0] != sum {
		t.Errorf("hash of a snapshot of a volume in use: %q", out)
	}
	s.stop()
	w.script(`
		2 hash                           | --file
		2 hash vm1 --file out.raw        | --file
		10 hash vm1@none                 | not found
		1 hash --file none               | none`)
}

func TestScrubCommand(t *testing.T) {
	w := newPool(t)
	w.put("vm1", bytes.Repeat([]byte{1}, 8<<20))
	w.script(`
		snapshot vm1@a
		clone vm1@a vm2
		scrub                            |
		scrub vm2 --rate 1G --json       | "volumes": 1 "objects": 2 "bytes": 8388608 "damage": []
		10 scrub none                    | not found`)
	s := w.serve(1, "vm1", "--nbd", "unix:"+w.path("s"))
	c := w.dial(s, "vm1")
	c.write(bytes.Repeat([]byte{2}, 4096), 0)
	c.close()
	w.ok("scrub")
	for _, object := range w.objects("data") {
		if strings.Contains(object, "/data/0/1.") {
			if err := os.Truncate(object, 4<<20-4096); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := w.run(nil, "scrub")
	for _, want := range []string{"vm1: 4096 bytes at 8384512", "vm1@a: 4096 bytes at 8384512", "vm2: 4096 bytes at 8384512", "data/0/1.", "too short"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("scrub: %q, want %q", r.stdout, want)
		}
	}
	if r.code != 16 || !strings.Contains(r.stderr, "3 places damaged") {
		t.Errorf("scrub: exit code %d, %s", r.code, r.stderr)
	}
	s.stop()
}

func TestSealedSnapshots(t *testing.T) {
	w := newPool(t)
	w.put("vm1", bytes.Repeat([]byte{1}, 9<<20))
	w.ok("snapshot", "vm1@a")
	sum := strings.Fields(w.ok("hash", "vm1@a"))[0]
	w.script(`
		info vm1@a                       | Sealed: -
		hash vm1@a --seal                | ` + sum + `
		info vm1@a                       | Sealed: ` + sum + `
		info vm1@a --json                | "sealed": ` + sum + `
		scrub --json                     | "sealed": 1 "damage": []
		check --json                     | "problems": []
		2 hash vm1 --seal                | snapshot
		2 hash --file none --seal        | --seal`)
	for _, object := range w.objects("data") {
		if strings.Contains(object, "/data/0/1.") {
			b, err := os.ReadFile(object)
			if err == nil {
				b[4096] ^= 1
				err = os.WriteFile(object, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	w.fails(16, "vm1@a scrub", "hash", "vm1@a", "--seal")
	r := w.run(nil, "scrub")
	if r.code != 16 || !strings.Contains(r.stdout, "vm1@a: 4194304 bytes at 4194304") {
		t.Errorf("scrub: exit code %d, %s", r.code, r.stdout)
	}
	w.ok("rm", "vm1@a")
	if seals := w.objects("seal"); len(seals) > 0 {
		t.Errorf("seals %q are left", seals)
	}
	w.ok("scrub")
}
