package main

import (
	"encoding/json"
	"path/filepath"
	"syscall"
	"testing"
)

// dataObjects returns how many data objects the pools in a directory have.
func dataObjects(t *testing.T, pool string) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(pool, "v", "*", "data", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// stopCopy runs a copy until the other pool has so many data objects, and ends it with a signal. It returns the exit code: -1 for a process that was
// killed, 0 if it was quicker.
func stopCopy(w *world, sig syscall.Signal, other string, objects int, args ...string) int {
	w.t.Helper()
	c := w.command(args...)
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // its state tells
		close(ended)
	}()
	for running := true; running && dataObjects(w.t, other) < objects; {
		select {
		case <-ended:
			running = false
		default:
		}
	}
	_ = c.Process.Signal(sig) // it may have ended
	<-ended
	return c.ProcessState.ExitCode()
}

// TestCopyGoesOnAfterItWasKilled: by SIGKILL again and again, and by SIGINT, while the original is served and written.
func TestCopyGoesOnAfterItWasKilled(t *testing.T) {
	w := newPool(t)
	content := noise(40*mib, 1)
	w.put("vm1", content, "--chunk-size", "256K")
	w.ok("snapshot", "-q", "vm1@s1")
	other := w.path("other")
	w.ok("init", "-q", "--pool", other)
	to := other + "/copy"
	args := []string{"copy", "vm1", to, "--snapshots"}
	s := w.serve(1, "vm1", "--nbd", "unix:"+w.path("sock"))
	killed, interrupted := 0, 0
	for i := 1; i <= 6; i++ {
		sig := syscall.SIGKILL
		if i%3 == 1 { // the first time for certain while it copies: later there may be that many objects before it handles signals
			sig = syscall.SIGINT
		}
		switch code := stopCopy(w, sig, other, 20*i, args...); {
		case code == -1:
			killed++
		case code == 130:
			interrupted++
		case code != 0:
			t.Fatalf("exit code %d", code)
		}
		if l := w.ok("ls", "--pool", other, "--json"); l != "[]\n" && i < 6 {
			t.Fatalf("the copy shows: %s", l)
		}
		w.ok("check", "-q", "--pool", other)
	}
	if killed == 0 || interrupted == 0 {
		t.Fatalf("killed %d times, interrupted %d times", killed, interrupted)
	}
	w.fails(12, "copy interrupted skerry rm", "create", to, "--size", "1M")
	w.fails(12, "copy else skerry rm", "copy", "vm1", to)
	w.ok("gc", "-q", "--pool", other)
	var r struct {
		Copied            []string `json:"copied_snapshots"`
		Resumed, Verified bool
	}
	if err := json.Unmarshal([]byte(w.ok(append(args, "--json")...)), &r); err != nil {
		t.Fatal(err)
	}
	if !r.Resumed || !r.Verified || len(r.Copied) != 1 {
		t.Errorf("%+v", r)
	}
	s.stop()
	w.has(to, content)
	w.has(to+"@s1", content)
	for _, pool := range []string{w.pool, other} {
		w.ok("gc", "-q", "--pool", pool)
		if out := w.ok("check", "--pool", pool); out != "" {
			t.Errorf("check: %s", out)
		}
	}
}

func TestCopyBetweenPools(t *testing.T) {
	w := newPool(t)
	content := noise(3*mib, 2)
	w.put("vm1", content)
	w.ok("snapshot", "-q", "vm1@s1")
	other := w.path("other")
	w.ok("init", "-q", "--pool", other)
	w.ok("copy", "-q", "vm1@s1", other+"/a", "--chunk-size", "64K")
	w.has(other+"/a", content)
	w.ok("copy", "-q", other+"/a", "b")
	w.has("b", content)
	w.ok("copy", "-q", "--pool", other, "a", "c")
	w.has(other+"/c", content)
	if a, b := w.ok("hash", "vm1@s1"), w.ok("hash", "vm1@s1"); a != b {
		t.Errorf("%q, %q", a, b)
	}
	w.fails(12, "volume a exists", "copy", "vm1", other+"/a")
	w.fails(10, "vm2 not found", "copy", "vm2", other+"/d")
	w.fails(10, "vm1@s2 not found", "copy", "vm1@s2", other+"/d")
	w.fails(2, "snapshot", "copy", "vm1", other+"/d@s")
	w.fails(10, "pool", "copy", "vm1", w.path("none")+"/d")
}

func TestInterruptedCopyIsRemovedByItsName(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(40*mib, 1), "--chunk-size", "256K")
	other := w.path("other")
	w.ok("init", "-q", "--pool", other)
	if code := stopCopy(w, syscall.SIGTERM, other, 20, "copy", "vm1", other+"/copy"); code != 130 {
		t.Fatalf("exit code %d", code)
	}
	w.ok("rm", "-q", other+"/copy")
	if out := w.ok("check", "--pool", other); out != "" || dataObjects(t, other) > 0 {
		t.Errorf("%d objects are left: %s", dataObjects(t, other), out)
	}
	w.ok("rm", "-q", "vm1") // though the copy might have gone on
	w.ok("gc", "-q")
	if out := w.ok("check"); out != "" {
		t.Errorf("check: %s", out)
	}
}
