package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mount is an export as a file, by nbdfuse.
type mount struct {
	w    *world
	cmd  *exec.Cmd
	file string
	errs bytes.Buffer
}

// mount shows an export as a file.
func (w *world) mount(uri string) *mount {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.dir, "mount")
	if err != nil {
		w.t.Fatal(err)
	}
	// nbdfuse writes its process id once the file is there: a FIFO lets us wait for it.
	fifo := filepath.Join(w.dir, filepath.Base(dir)+".pid")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		w.t.Fatal(err)
	}
	ready, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer ready.Close()
	m := &mount{w: w, file: filepath.Join(dir, "disk")}
	m.cmd = w.foreign("nbdfuse", "--pidfile", fifo, m.file, uri)
	m.cmd.Stderr = &m.errs
	if err := m.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(m.end)
	if err := ready.SetReadDeadline(time.Now().Add(limit / 4)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := ready.Read(make([]byte, 32)); err != nil {
		m.end()
		w.t.Fatalf("nbdfuse is not ready: %v\n%s", err, m.errs.String())
	}
	return m
}

// end removes the file.
func (m *mount) end() {
	m.w.t.Helper()
	m.w.end(m.cmd, syscall.SIGTERM)
}

// debugfs runs a command of debugfs on a file system, after options.
func (w *world) debugfs(file, command string, options ...string) {
	w.t.Helper()
	out := w.tool("debugfs", append(options, "-R", command, file)...)
	if strings.Contains(out, "rror") || strings.Contains(out, "not found") || strings.Contains(out, "failed") {
		w.t.Fatalf("debugfs %s: %s", command, out)
	}
}

// holds checks a file in a file system.
func (w *world) holds(fs, name, want string) {
	w.t.Helper()
	out := w.path("dumped")
	w.debugfs(fs, "dump "+name+" "+out)
	w.same(out, want)
}

// A file system lives on a volume through restarts, crashes, snapshots and clones.
func TestR18FileSystem(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.ok("create", "-q", "vm1", "--size", "200M")
	files := map[string]string{}
	for i, name := range []string{"a", "b", "c"} {
		files[name] = w.image(name, 20*mib, map[int64][]byte{0: noise(20*mib, uint64(i))})
	}
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	m := w.mount(s.uri("vm1"))
	w.tool("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,discard", m.file)
	w.debugfs(m.file, "write "+files["a"]+" a", "-w")
	w.holds(m.file, "a", files["a"])
	w.toolFails("dd", "if="+files["b"], "of="+m.file, "bs=1M", "seek=200", "conv=notrunc") // past the end
	m.end()
	s.stop()

	// The whole stack anew; then once more, after a crash.
	s = s.again()
	m = w.mount(s.uri("vm1"))
	w.tool("e2fsck", "-f", "-n", m.file)
	w.holds(m.file, "a", files["a"])
	w.debugfs(m.file, "write "+files["b"]+" b", "-w")
	m.end()
	s.kill()
	w.undamaged()
	w.ok("snapshot", "-q", "vm1@s")
	w.ok("clone", "-q", "vm1@s", "vm2")

	// Volume and clone go different ways.
	s = w.serve(3, "vm1", "vm2", "vm1@s", "--nbd", "unix:s")
	one, two := w.mount(s.uri("vm1")), w.mount(s.uri("vm2"))
	w.debugfs(one.file, "rm a", "-w")
	w.debugfs(two.file, "rm b", "-w")
	w.debugfs(two.file, "write "+files["c"]+" c", "-w")
	w.debugfs(two.file, "write "+files["a"]+" b", "-w")
	w.debugfs(one.file, "write "+files["c"]+" a", "-w")
	one.end()
	two.end()
	s.kill()
	s = s.again()
	for export, want := range map[string]map[string]string{
		"vm1":   {"a": "c", "b": "b"},
		"vm1@s": {"a": "a", "b": "b"},
		"vm2":   {"a": "a", "b": "a", "c": "c"},
	} {
		m := w.mount(s.uri(export))
		w.tool("e2fsck", "-f", "-n", m.file)
		for name, file := range want {
			w.holds(m.file, name, files[file])
		}
		if export != "vm2" && !strings.Contains(w.tool("debugfs", "-R", "stat c", m.file), "not found") {
			t.Errorf("%s has the clone's file", export)
		}
		m.end()
	}
	s.stop()
	w.undamaged()
}
