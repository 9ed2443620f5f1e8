package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

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
	lines := 1
	if slices.Contains(args, "--nbd") {
		lines++
	}
	m := &mounted{w.start(lines, append([]string{"mount", dir}, args...)...), dir}
	if m.uris[0] != dir {
		w.t.Fatalf("ready: %q, want %q", m.uris[0], dir)
	}
	m.uris = m.uris[1:]
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

func TestMountAndNBDShowTheSame(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "8M")
	w.ok("create", "vm2", "--size", "8M")
	m := w.mountFiles("--nbd", "unix:s")
	c := w.dial(m.server, "vm1")
	c.write([]byte("by nbd"), 5000)
	if out := m.sh("dd if=$m/vm1.raw bs=1 skip=5000 count=6 status=none"); out != "by nbd" {
		t.Errorf("the file has %q", out)
	}
	m.sh("printf 'by file' | dd of=$m/vm1.raw bs=1 seek=9000 conv=notrunc status=none")
	c.has([]byte("by file"), 9000)
	m.shFails("busy", "truncate -s 1M $m/vm1.raw")
	m.shFails("busy", "printf x > $m/vm1.raw")
	m.shFails("busy", "rm $m/vm1.raw")
	c.has([]byte("by file"), 9000)
	m.sh("truncate -s 1M $m/vm2.raw")
	w.ok("resize", "vm1", "12M")
	m.sh("timeout 5 bash -c 'until [ $(stat -c %s $m/vm1.raw) = 12582912 ]; do :; done'")
	c.close()
	// The server closes the volume a moment after the client has gone.
	m.sh("timeout 10 bash -c 'until rm $m/vm1.raw 2>/dev/null; do :; done'; mv $m/vm2.raw $m/vm3.raw")
	m.umount()
	if out := w.ok("ls"); strings.Contains(out, "vm1") || !strings.Contains(out, "vm3") {
		t.Error(out)
	}
	w.script("check")
}

func TestMountOfGivenVolumesHoldsThem(t *testing.T) {
	w := newPool(t)
	w.script(`
		create vm1 --size 8M
		create vm2 --size 8M
		snapshot vm2@s`)
	m := w.mountFiles("vm1", "vm2@s")
	w.script(`
		11 serve vm1 --nbd unix:s | process
		lease show vm1            | held`)
	if out := m.sh("ls $m"); out != "vm1.raw\nvm2@s.raw\n" {
		t.Errorf("%q", out)
	}
	m.shFails("not permitted", "touch $m/new.raw")
	m.shFails("No such file", "cat $m/vm2.raw")
	m.sh("truncate -s 4M $m/vm1.raw")
	m.stop()
	w.script("lease show vm1 | free")
}

func TestReadOnlyMount(t *testing.T) {
	w := newPool(t)
	data := noise(mib, 3)
	w.put("vm1", data)
	m := w.mountFiles("--read-only")
	got, err := os.ReadFile(m.path("vm1.raw"))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, script := range []string{"rm $m/vm1.raw", "touch $m/x.raw", "printf x >> $m/vm1.raw"} {
		m.shFails("Read-only", script)
	}
	m.umount()
}

func TestMountDrainsBeforeItEnds(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "8M")
	m := w.mountFiles()
	f, err := os.OpenFile(m.path("vm1.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	m.signal(syscall.SIGTERM)
	if _, err := f.Write([]byte("late")); err != nil {
		t.Errorf("the file failed while it was open: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, m.stderr.String())
	}
	got := w.ok("export", "vm1", "-")
	if got[:4] != "late" {
		t.Errorf("the volume has %q", got[:4])
	}
}

func TestRemovedFilesGoWhereThePoolSays(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(3*mib, 5))
	w.ok("snapshot", "vm1@s")
	config := "[pools.p]\nurl = \"" + w.pool + "\"\ntrash = \"1d\"\n"
	if err := os.WriteFile(w.path("c"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	m := w.mountFiles("--config", w.path("c"), "--pool", "p")
	m.sh("dd if=/dev/urandom of=$m/vm1.raw bs=1M count=3 conv=notrunc status=none; rm $m/vm1@s.raw; rm $m/vm1.raw")
	m.umount()
	w.script("check") // the space of the snapshot is back
	if out := w.ok("ls", "--trash"); !strings.Contains(out, "vm1") {
		t.Error(out)
	}
}

// TestMountShowsAtOpenWhatChangedElsewhere: the kernel knows sizes and names from before, which count until somebody opens the file.
func TestMountShowsAtOpenWhatChangedElsewhere(t *testing.T) {
	w := newPool(t)
	data := noise(2*mib, 1)
	w.put("vm1", data)
	w.ok("snapshot", "vm1@s")
	m := w.mountFiles()
	for _, size := range []int64{5 * mib, mib} {
		if _, err := os.Stat(m.path("vm1.raw")); err != nil {
			t.Fatal(err)
		}
		w.ok("resize", "-q", "--allow-shrink", "vm1", fmt.Sprint(size))
		f, err := os.Open(m.path("vm1.raw"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.Seek(0, io.SeekEnd); err != nil || got != size {
			t.Errorf("the file ends at %d, want %d: %v", got, size, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		w.unused("export", "-q", "vm1", w.path("copy")) // the process gives the volume up a while after close
		if err := os.Remove(w.path("copy")); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(m.path("vm1@s.raw")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the snapshot: %d bytes, %v", len(got), err)
	}
	w.unused("rm", "-q", "vm1@s")
	w.ok("snapshot", "vm1@s")
	if got, err := os.ReadFile(m.path("vm1@s.raw")); err != nil || !bytes.Equal(got, data[:mib]) {
		t.Errorf("another snapshot of the name: %d bytes, %v", len(got), err)
	}
	m.stop()
}

// unused runs a command for which nobody may use something, which ends soon.
func (w *world) unused(args ...string) {
	w.t.Helper()
	for range 100 {
		switch r := w.run(nil, args...); r.code {
		case 0:
			return
		case 11, 13:
		default:
			w.t.Fatalf("%v: exit code %d\n%s", args, r.code, r.stderr)
		}
	}
	w.t.Fatalf("%v: it is still in use", args)
}

func TestWhatAKilledMountLeavesOfANewFile(t *testing.T) {
	w := newPool(t)
	m := w.mountFiles()
	f, err := os.Create(m.path("new.raw"))
	if err != nil {
		t.Fatal(err)
	}
	data := noise(5*mib, 9)
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	m.kill()
	if err := f.Close(); err == nil {
		t.Error("the file was closed as if its size had been set")
	}
	w.ok("umount", m.dir)
	w.has("new", append(data, make([]byte, 3*mib)...)) // all that was answered, and zeros
	w.script("check")
}

func TestUmountWaitsForWhatIsAboutToEnd(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	m := w.mountFiles()
	f, err := os.Open(m.path("vm1.raw"))
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	time.AfterFunc(busyTime/3, func() { closed <- f.Close() })
	m.umount()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
