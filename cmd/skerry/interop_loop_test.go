package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests of this file put file systems of the kernel on loop devices, and those on files that show volumes.

// fileSystem says how a file system is made, checked, and mounted where one like it is mounted already.
type fileSystem struct {
	name  string
	make  []string
	check []string
	copy  string // mount option for a copy of one
}

func fileSystems() []fileSystem {
	return []fileSystem{
		{"ext4", []string{"mkfs.ext4", "-q", "-F"}, []string{"e2fsck", "-f", "-n"}, "rw"},
		{"xfs", []string{"mkfs.xfs", "-q", "-f"}, []string{"xfs_repair", "-n"}, "nouuid"},
		{"btrfs", []string{"mkfs.btrfs", "-q", "-f"}, []string{"btrfs", "check", "--readonly"}, "rw"},
	}
}

// loopSize is that of the volumes: mkfs.xfs makes nothing smaller.
const loopSize = "320M"

// loop is a loop device on a file.
type loop struct {
	w       *world
	fs      fileSystem
	file    string
	device  string
	dir     string // where it is mounted
	mounted bool
}

// loop makes a loop device that no one else has.
func (w *world) loop(fs fileSystem, file string, direct bool) *loop {
	w.t.Helper()
	args, want := []string{"--find", "--show", "--direct-io=off", file}, "0"
	if direct {
		args[2], want = "--direct-io=on", "1"
	}
	l := &loop{w: w, fs: fs, file: file, device: strings.TrimSpace(w.tool("losetup", args...)), dir: w.t.TempDir()}
	w.t.Cleanup(l.drop)
	if got := strings.TrimSpace(w.tool("losetup", "--noheadings", "--output", "DIO", l.device)); got != want {
		w.t.Fatalf("%s has direct I/O %s, want %s", l.device, got, want)
	}
	return l
}

// drop takes the loop device away, and what is mounted from it.
func (l *loop) drop() {
	l.w.t.Helper()
	l.unmount()
	if l.device == "" {
		return
	}
	l.w.tool("losetup", "--detach", l.device)
	// That waits for any other program that just looks at the device. Then somebody else may have the device.
	l.w.eventually("the loop device lets its file go", func() bool {
		file, err := os.ReadFile("/sys/block/" + filepath.Base(l.device) + "/loop/backing_file")
		return err != nil || strings.TrimSpace(string(file)) != l.file
	})
	l.device = ""
}

func (l *loop) makeFS() {
	l.w.t.Helper()
	l.w.tool(l.fs.make[0], append(l.fs.make[1:], l.device)...)
}

func (l *loop) mount(options string) {
	l.w.t.Helper()
	l.w.tool("mount", "-t", l.fs.name, "-o", options, l.device, l.dir)
	l.mounted = true
}

func (l *loop) unmount() {
	l.w.t.Helper()
	if !l.mounted {
		return
	}
	// A process that is just being started has the files of this one for a moment.
	l.w.eventually("the file system is unmounted", func() bool {
		err := unix.Unmount(l.dir, 0)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			l.w.t.Fatal(err)
		}
		return err == nil
	})
	l.mounted = false
}

// clean checks the file system while it is not mounted.
func (l *loop) clean() {
	l.w.t.Helper()
	out := l.w.tool(l.fs.check[0], append(l.fs.check[1:], l.device)...)
	if l.fs.name == "btrfs" && !strings.Contains(out, "no error found") {
		l.w.t.Fatalf("btrfs check: %s", out)
	}
}

// put writes a file into the file system, durably.
func (l *loop) put(name string, content []byte) {
	l.w.t.Helper()
	f, err := os.Create(filepath.Join(l.dir, name))
	if err == nil {
		_, err = f.Write(content)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		l.w.t.Fatal(err)
	}
}

// has checks a file in the file system.
func (l *loop) has(name string, want []byte) {
	l.w.t.Helper()
	got, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		l.w.t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		l.w.t.Fatalf("%s on %s: %d bytes, want %d; differs from byte %d on", name, l.fs.name, len(got), len(want), at)
	}
}

// load returns a fio that writes files of the file system, and verifies what it reads of them.
func (l *loop) load(args ...string) *exec.Cmd {
	return l.w.foreign("fio", append([]string{
		"--name=load", "--thread", "--directory=" + l.dir, "--nrfiles=4", "--rw=randrw", "--bsrange=512-64k", "--ioengine=libaio", "--iodepth=8",
		"--fsync=32", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256", "--verify_state_save=0", "--output=/dev/null",
	}, args...)...)
}

// verified runs the load to its end.
func (l *loop) verified() {
	l.w.t.Helper()
	if out, err := l.load("--size=24M", "--do_verify=1").CombinedOutput(); err != nil {
		l.w.t.Fatalf("fio: %v\n%s", err, out)
	}
}

// busy runs the load until it is ended, or its files fail.
func (l *loop) busy() (end func()) {
	l.w.t.Helper()
	c := l.load("--size=32M", "--time_based", "--runtime=100")
	if err := c.Start(); err != nil {
		l.w.t.Fatal(err)
	}
	end = func() { l.w.end(c, os.Kill) }
	l.w.t.Cleanup(end)
	l.w.eventually("fio writes", func() bool {
		st, err := os.Stat(filepath.Join(l.dir, "load.0.3"))
		return err == nil && st.Size() > 0
	})
	return end
}

// eventually waits for something of which the kernel gives no notice.
func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for until := time.Now().Add(limit / 4); !is(); {
		if time.Now().After(until) {
			w.t.Fatalf("never so: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// stored returns how many bytes the pool takes on its file system.
func (w *world) stored() int64 {
	w.t.Helper()
	var u struct{ Stored int64 }
	if err := json.Unmarshal([]byte(w.ok("du", "--json")), &u); err != nil {
		w.t.Fatal(err)
	}
	return u.Stored
}

// uncache drops the pool's objects from the page cache.
func (w *world) uncache() {
	w.t.Helper()
	err := filepath.WalkDir(w.pool, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestInteropLoop(t *testing.T) {
	t.Parallel()
	for _, fs := range fileSystems() {
		t.Run(fs.name, func(t *testing.T) { loopKeeps(t, fs, true) })
	}
	t.Run("ext4 in the page cache", func(t *testing.T) { loopKeeps(t, fileSystems()[0], false) })
}

// loopKeeps checks that a file system keeps what is written, and that what it discards comes back to the pool.
func loopKeeps(t *testing.T, fs fileSystem, direct bool) {
	t.Parallel()
	w := newPool(t)
	w.ok("create", "-q", "vm1", "--size", loopSize)
	m := w.mountFiles()
	l := w.loop(fs, m.path("vm1.raw"), direct)
	l.makeFS()
	l.mount("discard")
	l.verified()
	kept, gone := noise(8*mib, 1), noise(40*mib, 2)
	l.put("kept", kept)
	l.put("gone", gone)
	before := w.stored()
	for _, name := range []string{"gone", "load.0.0", "load.0.1", "load.0.2", "load.0.3"} {
		if err := os.Remove(filepath.Join(l.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	// XFS frees the space of removed files in the background.
	w.eventually("what is discarded comes back to the pool", func() bool {
		w.tool("sync", "-f", l.dir)
		w.tool("fstrim", l.dir)
		return before-w.stored() >= int64(len(gone))
	})
	l.drop()
	m.stop()
	w.undamaged()
	w.uncache()

	m = w.mountFiles()
	l = w.loop(fs, m.path("vm1.raw"), direct)
	l.clean()
	l.mount("ro")
	l.has("kept", kept)
	l.drop()
	m.stop()
	w.undamaged()
}

// durable returns the content of the n-th file that a test makes durable.
func durable(n int) []byte { return noise(300*1024+n*1111, uint64(n)) }

// A snapshot of a volume whose file system is mounted and written is, once the file system has replayed its journal, clean, and
// has what was durable before.
func TestInteropLoopSnapshots(t *testing.T) {
	t.Parallel()
	const snapshots = 3
	for _, fs := range fileSystems() {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			w := newPool(t)
			w.ok("create", "-q", "vm1", "--size", loopSize)
			m := w.mountFiles()
			l := w.loop(fs, m.path("vm1.raw"), true)
			l.makeFS()
			l.mount("rw")
			end := l.busy()
			for i := range snapshots {
				l.put(fmt.Sprint("file", i), durable(i))
				w.ok("snapshot", "-q", fmt.Sprint("vm1@s", i))
			}
			end()
			l.unmount()
			l.clean()
			l.drop()
			for i := range snapshots {
				clone := fmt.Sprint("clone", i)
				w.ok("clone", "-q", fmt.Sprint("vm1@s", i), clone)
				l := w.loop(fs, m.path(clone+".raw"), true)
				l.mount(fs.copy)
				for n := range i + 1 {
					l.has(fmt.Sprint("file", n), durable(n))
				}
				l.unmount()
				l.clean()
				l.drop()
			}
			m.stop()
			w.undamaged()
		})
	}
}

// What a file system made durable is there after the process that shows the volume was killed.
func TestInteropLoopKilled(t *testing.T) {
	t.Parallel()
	const files = 4
	for _, fs := range fileSystems() {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			w := newPool(t)
			w.ok("create", "-q", "vm1", "--size", loopSize)
			m := w.mountFiles()
			l := w.loop(fs, m.path("vm1.raw"), true)
			l.makeFS()
			l.mount("rw")
			end := l.busy()
			for i := range files {
				l.put(fmt.Sprint("file", i), durable(i))
			}
			m.kill()
			end()
			l.drop()
			w.undamaged()

			m = w.mountFiles()
			l = w.loop(fs, m.path("vm1.raw"), true)
			l.mount("rw")
			for i := range files {
				l.has(fmt.Sprint("file", i), durable(i))
			}
			l.unmount()
			l.clean()
			l.drop()
			m.stop()
			w.undamaged()
		})
	}
}
