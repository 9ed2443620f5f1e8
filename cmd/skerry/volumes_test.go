package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"skerry/cmd/internal/control"
)

// noise returns n bytes that no other seed gives.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b) // never fails
	return b
}

const mib = 1 << 20

func TestR05SnapshotsAndClones(t *testing.T) {
	w := newPool(t)
	data := noise(9*mib, 5)
	w.put("vm1", data)
	w.script(`
		snapshot vm1@s
		12 snapshot vm1@s                   | vm1@s exists
		clone vm1@s same
		info same --json                    | "size": 9437184
		2 clone vm1@s less --size 8M
		10 info less
		clone vm1@s more --size 20M`)
	w.has("vm1@s", data)
	w.has("same", data)
	w.has("more", append(bytes.Clone(data), make([]byte, 11*mib)...))
	w.ok("check")
}

func TestR06CreateRefuses(t *testing.T) {
	w := newPool(t)
	data := noise(mib, 6)
	w.put("vm1", data)
	w.script(`
		2 create vm2 --size 0
		10 info vm2
		12 create vm1 --size 5M             | vm1 exists
		12 import vm1.image vm1             | vm1 exists
		snapshot vm1@s
		12 clone vm1@s vm1                  | vm1 exists`)
	w.has("vm1", data)
}

func TestR07RemovedStaysRemoved(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(5*mib, 7))
	id := strings.Fields(w.ok("info", "vm1"))[3]
	w.script(`
		rm vm1
		10 rm vm1                           | vm1 not found
		10 info vm1
		10 export vm1 x
		10 serve vm1 --nbd unix:x.sock
		10 snapshot vm1@s
		create vm1 --size 5M`)
	w.has("vm1", make([]byte, 5*mib))
	if again := strings.Fields(w.ok("info", "vm1"))[3]; again == id {
		t.Errorf("the id %s was used again", id)
	}
	w.ok("gc")
	w.ok("check")
}

func TestR12Rename(t *testing.T) {
	w := newPool(t)
	data, other := noise(3*mib, 12), noise(mib, 13)
	w.put("vm1", data)
	w.put("vm2", other)
	w.script(`
		10 rename nope x                    | nope not found
		12 rename vm1 vm2                   | vm2 exists
		snapshot vm1@s
		rename vm1 web
		10 info vm1
		10 export vm1@s x
		clone web@s new
		rollback web@s`)
	w.has("web", data)
	w.has("web@s", data)
	w.has("vm2", other)
	w.has("new", data)
	w.script(`
		create vm1 --size 1M
		ls                                  | new vm1 vm2 web
		check`)
}

func TestRollbackGivesUpWhatCameLater(t *testing.T) {
	w := newPool(t)
	data := noise(5*mib, 1)
	w.put("vm1", data)
	w.ok("snapshot", "vm1@a")
	later := noise(64<<10, 2)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	c := w.dial(s, "vm1")
	c.write(later, mib)
	c.close()
	s.stop()
	changed := bytes.Clone(data)
	copy(changed[mib:], later)
	w.has("vm1", changed)
	w.script(`
		snapshot vm1@b
		10 rollback vm1@c
		rollback vm1@a`)
	w.has("vm1", data)
	w.has("vm1@b", changed)
	w.ok("rollback", "vm1@b")
	w.has("vm1", changed)
	w.ok("check")
}

func TestImportAndExport(t *testing.T) {
	w := newPool(t)
	data := noise(5*mib+100, 3)
	padded := append(bytes.Clone(data), make([]byte, 512-100)...)
	if err := os.WriteFile(w.path("image"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.script(`
		import image vm1 --chunk-size 64K
		import image vm2 --size 6M
		2 import image vm3 --size 1M        | --size
		1 import nothing vm3                | nothing no such file
		10 info vm3
		export vm1 out
		12 export vm1 out                   | --force
		export vm1 out --force`)
	got, err := os.ReadFile(w.path("out"))
	if err != nil || !bytes.Equal(got, padded) {
		t.Errorf("export: %d bytes, %v", len(got), err)
	}
	w.has("vm1", padded)
	w.has("vm2", append(bytes.Clone(padded), make([]byte, 6*mib-len(padded))...))
	w.okWith(bytes.NewReader(data), "import", "-", "piped", "--size", "6M")
	w.has("piped", append(bytes.Clone(padded), make([]byte, 6*mib-len(padded))...))
	if r := w.run(bytes.NewReader(data), "import", "-", "vm4"); r.code != 2 || !strings.Contains(r.stderr, "--size") {
		t.Errorf("a pipe without size: %+v", r)
	}
	if r := w.run(bytes.NewReader(data), "import", "-", "vm4", "--size", "5M"); r.code != 1 {
		t.Errorf("a pipe with more than the volume: %+v", r)
	}
	f, err := os.Open(w.path("image"))
	if err != nil {
		t.Fatal(err)
	}
	w.okWith(f, "import", "-", "redirected") // a file knows its size
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w.has("redirected", padded)
	w.fails(10, "vm4", "info", "vm4")
	w.ok("check")
}

func TestInterruptedImportLeavesNothing(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		w := newPool(t)
		c := w.command("import", "-", "vm1", "--size", "100M")
		stdin, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		// Of 9 MiB at most 4 KiB are read before the import has begun, and a little more stays in the pipe.
		if _, err := io.Copy(stdin, bytes.NewReader(noise(9*mib, 4))); err != nil {
			t.Fatal(err)
		}
		w.script(`
			10 info vm1
			12 create vm1 --size 1M`) // the name is taken, and not to be seen
		if err := c.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait() // the exit code tells
		if code := c.ProcessState.ExitCode(); code != 130 {
			t.Errorf("%v: exit code %d, want 130", sig, code)
		}
		w.script(`
			10 info vm1
			create vm1 --size 1M`)
		w.has("vm1", make([]byte, mib))
		if out := w.ok("check"); strings.Contains(out, "leak") || strings.Contains(out, "damage") {
			t.Errorf("%v: %s", sig, out)
		}
	}
}

func TestKilledImportGoesWithGC(t *testing.T) {
	w := newPool(t)
	c := w.command("import", "-", "vm1", "--size", "100M")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(stdin, bytes.NewReader(noise(9*mib, 4))); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // says that it was killed
	w.script(`
		10 info vm1
		gc
		create vm1 --size 1M`)
	w.has("vm1", make([]byte, mib))
	if out := w.ok("check"); out != "" {
		t.Error(out)
	}
}

func TestOneOfManyProcessesCreatesAName(t *testing.T) {
	w := newPool(t)
	var wg sync.WaitGroup
	var codes [8]int
	for i := range codes {
		wg.Go(func() { codes[i] = w.run(nil, "create", "vm1", "--size", "1M").code })
	}
	wg.Wait()
	won := 0
	for _, c := range codes {
		switch c {
		case 0:
			won++
		case 12:
		default:
			t.Errorf("exit code %d, want 0 or 12", c)
		}
	}
	if won != 1 {
		t.Errorf("%d processes created the name", won)
	}
	if out := w.ok("check"); strings.Contains(out, "damage") {
		t.Error(out)
	}
}

func TestL2RemovalGivesSpaceBack(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(8*mib, 1))
	used := func(name string) (u usageView) {
		t.Helper()
		if err := json.Unmarshal([]byte(w.ok("du", name, "--json")), &u); err != nil {
			t.Fatalf("du: %+v, %v", u, err)
		}
		return u
	}
	about := func(n, want int64) bool { return n >= want && n < want+mib/2 } // records come to the data
	if u := used("vm1"); !about(u.Own, 8*mib) || u.Shared != 0 || u.Reclaimable != 0 {
		t.Errorf("imported: %+v", u)
	}
	w.ok("snapshot", "vm1@s")
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	c := w.dial(s, "vm1")
	c.write(noise(4*mib, 2), 0)
	c.close()
	s.stop()
	if u := used("vm1"); !about(u.Own, 12*mib) || len(u.States) != 2 || !about(u.States[0].Own, 4*mib) || !about(u.States[1].Own, 4*mib) {
		t.Errorf("written after a snapshot: %+v", u)
	}
	w.ok("clone", "vm1@s", "vm2")
	if u := used("vm2"); u.Own > mib/2 || !about(u.Shared, 8*mib) {
		t.Errorf("a clone: %+v", u)
	}
	w.script(`
		rm vm2
		rm vm1@s
		10 du vm2                           | vm2
		du                                  | vm1`)
	if u := used("vm1"); !about(u.Own, 8*mib) || u.Reclaimable != 0 {
		t.Errorf("without the snapshot: %+v", u)
	}
	var all poolUsage
	if err := json.Unmarshal([]byte(w.ok("du", "--json")), &all); err != nil || !about(all.Stored-all.Pool, 8*mib) || all.Removed != 0 {
		t.Errorf("the pool: %+v, %v", all, err)
	}
	if out := w.ok("check"); out != "" {
		t.Error(out)
	}
}

// TestL2HolderGivesSpaceBack removes a snapshot of a volume that is served: its holder gives the space back.
func TestL2HolderGivesSpaceBack(t *testing.T) {
	w := newPool(t)
	data := noise(8*mib, 1)
	w.put("vm1", data)
	w.ok("snapshot", "vm1@s")
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	c := w.dial(s, "vm1")
	later := noise(8*mib, 2)
	c.write(later, 0)
	c.flush()
	stored := func() (n int64) {
		for _, path := range w.objects("data") {
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			n += st.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return n
	}
	if n := stored(); n < 16*mib {
		t.Fatalf("%d bytes are stored before", n)
	}
	var r control.Removal
	if err := json.Unmarshal([]byte(w.ok("rm", "vm1@s", "--json")), &r); err != nil || r.Left || r.Bytes < 8*mib || r.Objects == 0 {
		t.Errorf("removed: %+v, %v", r, err)
	}
	if n := stored(); n >= 9*mib {
		t.Errorf("%d bytes are stored after it", n)
	}
	c.has(later, 0)
	c.close()
	s.stop()
	w.has("vm1", later)
	if out := w.ok("check"); out != "" {
		t.Error(out)
	}
}

func TestDamageIsToldWith16(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(9*mib, 8))
	objects := w.objects("data")
	if len(objects) != 3 {
		t.Fatalf("%d objects, want 3", len(objects))
	}
	if err := os.Remove(objects[1]); err != nil {
		t.Fatal(err)
	}
	r := w.run(nil, "check")
	if r.code != 16 || !strings.Contains(r.stdout, "damage") {
		t.Errorf("check: %+v", r)
	}
	if !strings.Contains(r.stderr, "1 problem") || !strings.Contains(r.stderr, "next: ") {
		t.Errorf("check: %+v", r)
	}
	w.ok("create", "sound", "--size", "1M")
	if err := os.WriteFile(w.objects("page")[0], []byte("XX"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.run(nil, "du"); r.code != 16 || !strings.Contains(r.stdout, "sound") || !strings.Contains(r.stderr, "vm1") {
		t.Errorf("du: %+v", r)
	}
	r = w.run(nil, "check", "vm1", "--json")
	if r.code != 16 || !strings.Contains(r.stdout, `"kind": "damage"`) {
		t.Errorf("check --json: %+v", r)
	}
	w.fails(16, "vm1", "export", "vm1", "out")
	if _, err := os.Stat(w.path("out")); !os.IsNotExist(err) {
		t.Errorf("an export that failed left a file: %v", err)
	}
}
