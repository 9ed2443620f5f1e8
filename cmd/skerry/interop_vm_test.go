package main

import (
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bootTime bounds a boot, which takes 20 seconds without hardware acceleration.
const bootTime = 90

// guestPartition is where the guest's file system begins, in the manner of e2fsprogs.
const guestPartition = "?offset=1048576"

// console is what a guest said, and what to do when it says a word; each once, in this order.
type console struct {
	said  strings.Builder
	words []string
	do    func()
}

// follow reads the console to its end.
func (c *console) follow(r io.Reader) error {
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		c.said.Write(b[:n])
		for len(c.words) > 0 && strings.Contains(c.said.String(), c.words[0]) {
			c.words = c.words[1:]
			c.do()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// vmScript returns the path of one of the scripts that make and boot the guest.
func vmScript(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../scripts/vm/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var guestOK = regexp.MustCompile(`OS-OK .* boots=(\d+) data=([0-9a-f]{64})`)

// boot boots the guest from an NBD export or a file until it powers off, and does something whenever it says one of the words. It returns the digest of
// the file that the guest wrote.
func (w *world) boot(disk string, boots int, do func(), words ...string) (sum string) {
	w.t.Helper()
	script := "boot-nbd.sh"
	if filepath.IsAbs(disk) {
		script = "boot-file.sh"
	}
	for try := 0; ; try++ {
		cmd := w.foreign(vmScript(w.t, script), disk)
		cmd.Env = append(cmd.Env, fmt.Sprintf("LIMIT=%d", bootTime))
		out, err := cmd.StdoutPipe()
		if err != nil {
			w.t.Fatal(err)
		}
		cmd.Stderr = cmd.Stdout
		if err := cmd.Start(); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { w.end(cmd, syscall.SIGTERM) }) // for when the test fails meanwhile
		c := &console{words: words, do: do}
		if err := c.follow(out); err != nil {
			w.t.Error(err)
		}
		err = cmd.Wait()
		said := c.said.String()
		if err == nil {
			m := guestOK.FindStringSubmatch(said)
			if m == nil || m[1] != fmt.Sprint(boots) || len(c.words) > 0 {
				w.t.Fatalf("want boots=%d, and %q:\n%s", boots, c.words, said)
			}
			return m[2]
		}
		// A guest that has not changed its disk yet may try again: emulation on a busy machine can be too slow.
		if try > 0 || strings.Contains(said, "OS-") || len(c.words) < len(words) {
			w.t.Fatalf("boot %d: %v\n%s", boots, err, said)
		}
		w.t.Logf("boot %d is tried again: %v\n%s", boots, err, said)
	}
}

// guestVolume makes a volume that a guest boots from, a clone of debian@v1, and returns the image that this is.
func (w *world) guestVolume(name string) (image string) {
	w.t.Helper()
	made := w.foreign(vmScript(w.t, "image.sh"))
	made.Stderr = w.t.Output()
	out, err := made.Output()
	if err != nil {
		w.t.Fatal(err)
	}
	image = strings.TrimSpace(string(out))
	w.ok("import", "-q", image, "debian")
	w.ok("snapshot", "-q", "debian@v1")
	w.ok("clone", "-q", "debian@v1", name)
	return image
}

func TestInteropGuestBootsFromAClone(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	image := w.guestVolume("vm1")

	s := w.serve(1, "vm1", "--nbd", "unix:s")
	sums := []string{w.boot(s.uris[0], 1, nil)}
	w.ok("snapshot", "-q", "vm1@one")
	sums = append(sums, w.boot(s.uris[0], 2, nil))
	s.stop()
	w.exported("debian@v1", image)
	w.undamaged()

	// The server is killed while the boot loader reads and while the guest writes; QEMU waits for the next one.
	s = s.again()
	sums = append(sums, w.boot(s.uris[0], 3, func() {
		s.kill()
		s = s.again()
	}, "SYSLINUX", "OS-SYNC"))
	s.kill()
	w.undamaged()

	w.guestFiles("vm1", sums)
	w.guestFiles("vm1@one", sums[:1])
	w.exported("debian@v1", image)
}

// guestFiles checks the file system that the guest left, and in it the files of each boot.
func (w *world) guestFiles(name string, sums []string) {
	w.t.Helper()
	disk, file := w.path("disk.raw"), w.path("file")
	w.ok("export", "-q", "--force", name, disk)
	w.tool("e2fsck", "-f", "-n", disk+guestPartition)
	for i, want := range sums {
		w.debugfs(disk+guestPartition, fmt.Sprintf("dump /data.%d %s", i+1, file))
		if got := w.sum(file); got != want {
			w.t.Errorf("%s: the file of boot %d has the digest %s, want %s", name, i+1, got, want)
		}
	}
	w.debugfs(disk+guestPartition, "dump /boots "+file)
	if n := strings.Count(w.tool("cat", file), "boot "); n != len(sums) {
		w.t.Errorf("%s: %d boots, want %d", name, n, len(sums))
	}
}

func TestInteropGuestBootsFromAFile(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.limit = 3 * bootTime * time.Second
	image := w.guestVolume("vm1")
	m := w.mountFiles()
	sums := []string{w.boot(m.path("vm1.raw"), 1, nil)}
	sums = append(sums, w.boot(m.path("vm1.raw"), 2, func() { w.ok("snapshot", "-q", "vm1@busy") }, "OS-SYNC"))
	m.umount()
	w.undamaged()
	w.guestFiles("vm1", sums)
	w.exported("debian@v1", image)

	// To the file system the snapshot is a loss of power.
	w.ok("clone", "-q", "vm1@busy", "replayed")
	m = w.mountFiles()
	if out, err := w.foreign("e2fsck", "-f", "-y", m.path("replayed.raw")+guestPartition).CombinedOutput(); err != nil && !strings.Contains(string(out), "recovering journal") {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	m.umount()
	w.ok("export", "-q", "--force", "replayed", w.path("disk.raw"))
	disk := w.path("disk.raw") + guestPartition
	w.tool("e2fsck", "-f", "-n", disk)
	w.debugfs(disk, "dump /data.1 "+w.path("file"))
	if got := w.sum(w.path("file")); got != sums[0] {
		t.Errorf("the snapshot's file of boot 1 has the digest %s, want %s", got, sums[0])
	}
}
