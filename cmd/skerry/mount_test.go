package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// mounted is a server that shows files.
type mounted struct {
	*server
	dir string
}

// mountFiles starts a mount on a directory of its own.
func (w *world) mountFiles(args ...string) *mounted {
	w.t.Helper()
	dir := w.path("m")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { // of a test that has failed
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
		}
	})
	m := &mounted{w.start(1, append([]string{"mount", dir}, args...)...), dir}
	if m.uris[0] != dir {
		w.t.Fatalf("ready: %q, want %q", m.uris[0], dir)
	}
	return m
}

func (m *mounted) path(name string) string { return filepath.Join(m.dir, name) }

// sh runs a shell script in the directory.
func (m *mounted) sh(script string) string {
	m.w.t.Helper()
	c := exec.Command("timeout", "60", "bash", "-euc", script)
	c.Dir, c.Env = m.w.dir, append(slices.Clone(m.w.env), "m="+m.dir)
	out, err := c.CombinedOutput()
	if err != nil {
		m.w.t.Fatalf("%s: %v\n%s\nmount: %s", script, err, out, m.stderr.String())
	}
	return string(out)
}

// shFails runs a shell script that fails, and says all of the words.
func (m *mounted) shFails(words, script string) {
	m.w.t.Helper()
	c := exec.Command("timeout", "60", "bash", "-euc", script)
	c.Dir, c.Env = m.w.dir, append(slices.Clone(m.w.env), "m="+m.dir)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() == 124 || !strings.Contains(string(out), words) {
		m.w.t.Errorf("%s: %v\n%swant it to say %q", script, err, out, words)
	}
}

// umount ends the mount by the command.
func (m *mounted) umount() {
	m.w.t.Helper()
	m.w.ok("umount", m.dir)
	if err := m.cmd.Wait(); err != nil {
		m.w.t.Fatalf("mount: %v\n%s", err, m.stderr.String())
	}
	if strings.Contains(m.stderr.String(), "DATA RACE") {
		m.w.t.Fatal(m.stderr.String())
	}
}

func TestMountShowsVolumesAsFiles(t *testing.T) {
	w := newPool(t)
	data := noise(6*mib, 1)
	w.put("vm1", data)
	w.ok("snapshot", "vm1@s")
	m := w.mountFiles()
	if out := m.sh("ls $m"); out != "vm1.raw\nvm1@s.raw\n" {
		t.Errorf("listed: %q", out)
	}
	if out := w.ok("lease", "show", "vm1"); !strings.Contains(out, "free") {
		t.Errorf("a listing leased: %s", out)
	}
	m.sh("printf changed | dd of=$m/vm1.raw bs=1 seek=3M conv=notrunc,fsync status=none")
	got, err := os.ReadFile(m.path("vm1@s.raw"))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("the snapshot: %d bytes, %v", len(got), err)
	}
	copy(data[3*mib:], "changed")
	if got, err = os.ReadFile(m.path("vm1.raw")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the volume: %d bytes, %v", len(got), err)
	}
	m.shFails("Read-only", "echo x > $m/vm1@s.raw")
	m.stop()
	w.has("vm1", data)
	if out := w.ok("check"); out != "" {
		t.Error(out)
	}
}

func TestUmountReturnsWhenAllIsReleased(t *testing.T) {
	w := newPool(t)
	m := w.mountFiles()
	m.sh("head -c 3000000 /dev/urandom > image; cp image $m/vm1.raw; truncate -s 10M $m/vm2.raw")
	f, err := os.Open(m.path("vm1.raw"))
	if err != nil {
		t.Fatal(err)
	}
	w.fails(13, "process", "umount", m.dir)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	m.umount()
	w.script("lease show vm1 | free")
	w.fails(2, "no mount", "umount", m.dir)
	want, err := os.ReadFile(w.path("image"))
	if err != nil {
		t.Fatal(err)
	}
	w.has("vm1", append(want, make([]byte, 512-len(want)%512)...))
	w.has("vm2", make([]byte, 10*mib))
	w.script("check")
}

func TestMountReplacesWhatAKilledOneLeft(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "8M")
	m := w.mountFiles()
	w.fails(1, "already umount", "mount", m.dir)
	m.sh("printf acknowledged | dd of=$m/vm1.raw conv=notrunc status=none")
	m.kill()
	if err := unix.Statfs(m.dir, new(unix.Statfs_t)); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("what was left: %v", err)
	}
	m = w.mountFiles()
	if out := m.sh("head -c 12 $m/vm1.raw"); out != "acknowledged" {
		t.Errorf("read %q", out)
	}
	m.kill()
	w.ok("umount", m.dir)
	if _, err := os.Stat(m.dir); err != nil {
		t.Error(err)
	}
}
