package main

import (
	"bytes"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"skerry/nbd/client"
)

func TestServeOneVolume(t *testing.T) {
	w := newPool(t)
	data := noise(6*mib, 1)
	w.put("vm1", data)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	if want := "nbd+unix:///vm1?socket=" + w.path("s"); s.uris[0] != want {
		t.Errorf("ready: %q, want %q", s.uris[0], want)
	}
	if st, err := os.Lstat(w.path("s")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st, err)
	}
	c := w.dial(s, "vm1")
	c.has(data, 0)
	c.write([]byte("changed"), 3*mib)
	c.close()
	c = w.dial(s, "") // the only export needs no name
	c.has([]byte("changed"), 3*mib)
	c.close()
	s.stop() // no flush: a clean end makes all durable
	copy(data[3*mib:], "changed")
	w.has("vm1", data)
	if _, err := os.Lstat(w.path("s")); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	if out := w.ok("lease", "show", "vm1"); !strings.Contains(out, "free") {
		t.Error(out)
	}
	if out := w.ok("check"); out != "" {
		t.Error(out)
	}
}

func TestHeldVolumeIs11(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "8M")
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	w.script(`
		11 export vm1 x                     | vm1 process host
		11 serve vm1 --nbd unix:other       | vm1 process
		11 rename vm1 x                     | vm1 process
		13 rm vm1                           | vm1 process
		lease ls                            | vm1 held
		ls                                  | vm1
		gc
		check`)
	w.ok("snapshot", "vm1@s")
	w.fails(13, "vm1 process", "rollback", "vm1@s")
	for _, args := range []string{"export vm1 -", "rm vm1", "rename vm1 x", "rollback vm1@s"} {
		r := w.run(nil, strings.Fields(args)...)
		if strings.Count(r.stderr, "vm1") != 1 || !strings.HasPrefix(r.stderr, "skerry: volume vm1 is leased by process ") {
			t.Errorf("skerry %s: %q", args, r.stderr)
		}
	}
	s.stop()
	w.script(`
		rollback vm1@s
		rename vm1 x
		rm x --snapshots`)
}

func TestCommandsOnAHeldVolumeGoThroughItsHolder(t *testing.T) {
	w := newPool(t)
	data := noise(6*mib, 2)
	w.put("vm1", data)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	c := w.dial(s, "vm1")
	c.write([]byte("before"), 0) // not flushed
	w.ok("snapshot", "vm1@a")
	c.write([]byte("behind"), 0)
	w.script(`
		12 snapshot vm1@a                   | vm1@a exists
		ls vm1                              | a
		info vm1                            | process
		info vm1@a
		clone vm1 now
		clone vm1@a then
		12 clone vm1 then                   | then exists
		2 clone vm1 less --size 1M
		clone vm1 more --size 8M
		10 rm vm1@b                         | vm1@b not found
		13 rm vm1@a                         | then`)
	before, behind := bytes.Clone(data), bytes.Clone(data)
	copy(before, "before")
	copy(behind, "behind")
	w.has("vm1@a", before)
	w.has("then", before)
	w.has("now", behind)
	w.has("more", append(bytes.Clone(behind), make([]byte, 2*mib)...))
	w.script(`
		rm then
		rm vm1@a
		snapshot vm1@a`) // the name can be used again
	w.has("vm1@a", behind)
	c.has([]byte("behind"), 0)
	c.close()
	s.stop()
	w.has("vm1", behind)
	if out := w.ok("check"); strings.Contains(out, "damage") {
		t.Error(out)
	}
}

func TestR09SnapshotsOfAHeldVolumeAreServed(t *testing.T) {
	w := newPool(t)
	data := noise(5*mib, 9)
	w.put("vm1", data)
	holder := w.serve(1, "vm1", "--nbd", "unix:s")
	c := w.dial(holder, "vm1")
	c.write([]byte("since"), 4*mib)
	w.ok("snapshot", "vm1@s")
	other := w.serve(1, "vm1@s", "--nbd", "unix:o")
	r := w.dial(other, "vm1@s")
	copy(data[4*mib:], "since")
	r.has(data, 0)
	if err := r.Write([]byte("x"), 0, 0); err == nil || r.Export.Flags&flagReadOnly == 0 {
		t.Errorf("a snapshot can be written: %v, flags %#x", err, r.Export.Flags)
	}
	r.close()
	other.stop()
	c.close()
	holder.stop()
}

func TestServeAllLeasesOnDemand(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(2*mib, 1))
	w.ok("create", "vm2", "--size", "1M")
	w.ok("snapshot", "vm1@s")
	s := w.serve(1, "--nbd", "unix:s")
	if want := "nbd+unix:///?socket=" + w.path("s"); s.uris[0] != want {
		t.Errorf("ready: %q, want %q", s.uris[0], want)
	}
	raw, err := net.Dial("unix", w.path("s"))
	if err != nil {
		t.Fatal(err)
	}
	names, err := client.List(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"vm1", "vm1@s", "vm2"}; !slices.Equal(names, want) {
		t.Errorf("exports %q, want %q", names, want)
	}
	w.script(`
		rename vm2 vm3`)
	a, b := w.dial(s, "vm1"), w.dial(s, "vm1")
	a.write([]byte("both"), 0)
	b.has([]byte("both"), 0)
	w.fails(11, "vm1", "rename", "vm1", "x")
	w.ok("snapshot", "vm1@t")
	a.close()
	b.has([]byte("both"), 0)
	w.fails(11, "vm1", "rename", "vm1", "x")
	b.close()
	// The server ends the export once it has seen the connection end.
	for deadline := limit / 4; ; {
		if r := w.run(nil, "rename", "vm1", "x"); r.code == 0 {
			break
		} else if r.code != 11 {
			t.Fatalf("%+v", r)
		}
		if deadline--; deadline == 0 {
			t.Fatal("the lease is not released")
		}
	}
	c := w.dial(s, "x")
	c.has([]byte("both"), 0)
	s.stop() // with a client that is still connected
	if err := c.Client.Flush(); err == nil {
		t.Error("the server is gone and answers")
	}
	if out := w.ok("lease", "ls"); strings.Contains(out, "held") || strings.Contains(out, "stale") {
		t.Error(out)
	}
}

func TestReadOnlyServe(t *testing.T) {
	w := newPool(t)
	data := noise(mib, 1)
	w.put("vm1", data)
	s := w.serve(1, "vm1", "--read-only", "--nbd", "tcp:0")
	if !strings.HasPrefix(s.uris[0], "nbd://127.0.0.1:") || !strings.HasSuffix(s.uris[0], "/vm1") {
		t.Errorf("ready: %q", s.uris[0])
	}
	c := w.dial(s, "vm1")
	if c.Export.Flags&flagReadOnly == 0 {
		t.Errorf("flags %#x", c.Export.Flags)
	}
	for _, err := range []error{c.Client.Write([]byte("x"), 0, 0), c.Trim(0, 4096, 0), c.WriteZeroes(0, 4096, 0)} {
		if err == nil {
			t.Error("written")
		}
	}
	c.has(data, 0)
	c.flush()
	c.close()
	s.stop()
	w.has("vm1", data)
}

func TestServeSeveralWays(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	w.ok("create", "vm2", "--size", "2M")
	s := w.serve(4, "vm1", "--nbd", "nbd+unix:///vm2?socket="+w.path("a"), "--nbd", "nbd://127.0.0.1:0")
	want := []string{"nbd+unix:///vm1?socket=" + w.path("a"), "nbd+unix:///vm2?socket=" + w.path("a")}
	if !slices.Equal(s.uris[:2], want) {
		t.Errorf("ready: %q", s.uris)
	}
	for i, size := range []int64{mib, 2 * mib, mib, 2 * mib} {
		network, address := endpoint(t, s.uris[i])
		conn, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		e, err := client.Info(t.Context(), conn, []string{"vm1", "vm2"}[i%2])
		if err != nil || e.Size != size {
			t.Errorf("%s: %+v, %v", s.uris[i], e, err)
		}
	}
	conn, err := net.Dial("unix", w.path("a"))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := client.Info(t.Context(), conn, "vm3"); err == nil {
		t.Errorf("vm3: %+v", e)
	}
	s.stop()
}

func TestServeSaysWhatToDoWhereItCannotListen(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	if err := os.WriteFile(w.path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.fails(1, "no socket remove choose another address", "serve", "vm1", "--nbd", "unix:file")
	if err := os.Mkdir(w.path("closed"), 0o500); err != nil {
		t.Fatal(err)
	}
	limited := w.path("limited")
	script := "#!/bin/sh\nexec setpriv --bounding-set=-dac_override " + w.program + ` "$@"` + "\n"
	if err := os.WriteFile(limited, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	w.program = limited
	w.fails(1, "permission denied choose an address", "serve", "vm1", "--nbd", "unix:closed/s")
}

func TestServeTakesNoSocketFromTheLiving(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	w.ok("create", "vm2", "--size", "1M")
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	w.fails(1, "another process listens choose another address", "serve", "vm2", "--nbd", "unix:s")
	if out := w.ok("lease", "show", "vm2"); !strings.Contains(out, "free") {
		t.Errorf("a serve that failed kept its lease: %s", out)
	}
	c := w.dial(s, "vm1")
	c.close()
	s.stop()
}

// The invariant I7: an acknowledged write has left the process.
func TestI07AcknowledgedWritesSurviveTheServer(t *testing.T) {
	w := newPool(t)
	want := noise(12*mib, 1)
	w.put("base", want)
	w.script(`
		snapshot base@s
		clone base@s vm1`)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	for round := range 5 {
		c := w.dial(s, "vm1")
		c.has(want, 0)
		for i := range 40 {
			// Whole blocks, parts of blocks, across chunks; into the clone's own objects and its parent's.
			p := noise([]int{512, 4096, 7000, 70_000}[i%4], uint64(round*100+i))
			off := int64((i*7919*513 + round*4096) % (len(want) - len(p)))
			c.write(p, off)
			copy(want[off:], p)
			if i == 20 && round%2 == 0 {
				c.flush()
			}
		}
		if err := c.WriteZeroes(5*mib, 100_000, 0); err != nil {
			t.Fatal(err)
		}
		clear(want[5*mib : 5*mib+100_000])
		s.kill()
		_ = c.Client.Close() // the server is gone
		if out := w.ok("lease", "show", "vm1"); !strings.Contains(out, "stale") {
			t.Errorf("the lease of a dead process: %s", out)
		}
		s = w.serve(1, "vm1", "--nbd", "unix:s") // over the stale socket
	}
	c := w.dial(s, "vm1")
	c.has(want, 0)
	c.flush()
	c.close()
	s.stop()
	w.has("vm1", want)
	w.has("base", noise(12*mib, 1))
	if out := w.ok("check"); strings.Contains(out, "damage") {
		t.Error(out)
	}
}

func TestStoppedHolderKeepsItsVolume(t *testing.T) {
	w := newPool(t)
	data := noise(2*mib, 1)
	w.put("vm1", data)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	c := w.dial(s, "vm1")
	c.write([]byte("written"), 0)
	s.signal(syscall.SIGSTOP)
	w.script(`
		info vm1                            | process
		lease show vm1                      | held
		11 export vm1 x                     | vm1
		11 snapshot vm1@s                   | vm1 no answer next: see whether stopped
		13 rm vm1`)
	s.signal(syscall.SIGCONT)
	copy(data, "written")
	c.has(data, 0)
	w.ok("snapshot", "vm1@s")
	c.close()
	s.stop()
	w.has("vm1@s", data)
	w.has("vm1", data)
}

func TestServeSharesItsSocketsWithAGroup(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	groups, err := os.Getgroups() // root may give it to any, others to their own
	if err != nil {
		t.Fatal(err)
	}
	gid := append(groups, os.Getgid())[0]
	if os.Geteuid() == 0 {
		gid = 12345
	}
	s := w.serve(1, "vm1", "--nbd", "unix:s", "--group", strconv.Itoa(gid))
	st, err := os.Lstat(w.path("s"))
	if err != nil {
		t.Fatal(err)
	}
	if got := int(st.Sys().(*syscall.Stat_t).Gid); st.Mode().Perm() != 0o660 || got != gid {
		t.Errorf("socket: mode %v, group %d, want 0660 and %d", st.Mode().Perm(), got, gid)
	}
	s.stop()
	w.fails(2, "--group nobody-has-this", "serve", "vm1", "--nbd", "unix:s", "--group", "nobody-has-this")
	if got, err := groupID("root"); err != nil || got == nil || *got != 0 {
		t.Errorf("group root: %v, %v", got, err)
	}
}
