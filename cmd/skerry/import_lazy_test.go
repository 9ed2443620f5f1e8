package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lazyImage writes a sparse image with some megabytes of data, and returns its path and its content.
func (w *world) lazyImage(name string, size int64) (path string, want []byte) {
	w.t.Helper()
	parts := map[int64][]byte{0: noise(9*mib, 1), size / 4: noise(int(size/4), 2), size - 5000: noise(5000, 3)}
	want = make([]byte, size)
	for off, p := range parts {
		copy(want[off:], p)
	}
	return w.image(name, size, parts), want
}

// imageOf returns what info says of the image that a volume is copied from; "" if it is copied.
func (w *world) imageOf(name string) string {
	w.t.Helper()
	for line := range strings.Lines(w.ok("info", name)) {
		if text, ok := strings.CutPrefix(line, "Image:"); ok {
			return strings.TrimSpace(text)
		}
	}
	return ""
}

// copied serves a volume until all of its image is copied, and nothing is left of that. A server that was killed may have done the
// first, and it need not have got to the second: what remains then is garbage.
func (w *world) copied(name string) {
	w.t.Helper()
	if w.imageOf(name) == "" {
		w.ok("gc")
		return
	}
	c := w.command("-v", "serve", name, "--nbd", "unix:"+name+".copied")
	stderr, err := c.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	waitFor(w.t, stderr, "not needed any more")
	w.end(c, syscall.SIGTERM)
}

func TestLazyImport(t *testing.T) {
	w := newPool(t)
	path, want := w.lazyImage("image.raw", 192*mib)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	w.ok("import", "--lazy", "image.raw", "vm1", "--chunk-size", "64K")
	if got, want := w.imageOf("vm1"), "copied 0 % from "+path+" on host "+host; got != want {
		t.Errorf("info says %q, want %q", got, want)
	}
	var v struct {
		Source struct {
			Path, Host string
			Percent    int
		}
	}
	if err := json.Unmarshal([]byte(w.ok("info", "vm1", "--json")), &v); err != nil || v.Source.Path != path || v.Source.Host != host {
		t.Errorf("info --json says %+v, %v", v, err)
	}
	w.script(`
		12 import --lazy image.raw vm1       | exists
		2 import --lazy image.raw vm2 --size 1M     | --size
		2 import --lazy image.raw vm2 --follow-backing
		1 import --lazy - vm2                | standard input without --lazy
		1 import --lazy /dev/null vm2        | /dev/null without --lazy
		10 info vm2                          | vm2
		13 snapshot vm1@s                    | vm1 image.raw skerry flatten vm1
		13 clone vm1 vm2                     | vm1 image.raw skerry flatten vm1
		13 rollback vm1@s                    | vm1 image.raw skerry flatten vm1
		check
		gc
		rename vm1 vm2
		rename vm2 vm1
	`)
	w.has("vm1", want)
	// The server dies in the middle of the copy, again and again; what was flushed and what was copied is there.
	for i := range 3 {
		s := w.serve(1, "vm1", "--nbd", "unix:s")
		if i > 0 {
			off := int64(i)*mib + 4096
			w.qemuIO(s.uris[0], fmt.Sprintf("write -P 0xab %d 8k", off), "flush")
			for j := range 8192 {
				want[off+int64(j)] = 0xab
			}
		}
		s.kill()
		w.ok("check")
		w.has("vm1", want)
	}
	w.copied("vm1")
	if got := w.imageOf("vm1"); got != "" {
		t.Errorf("info says %q in the end", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.has("vm1", want)
	w.ok("snapshot", "vm1@s")
	w.ok("gc")
	w.undamaged()
}

func TestFlattenEndsALazyImport(t *testing.T) {
	w := newPool(t)
	path, want := w.lazyImage("image.raw", 48*mib)
	w.ok("import", "--lazy", "image.raw", "vm1", "--chunk-size", "64K")
	w.ok("import", "--lazy", "image.raw", "vm2")
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	w.ok("flatten", "vm1") // by the server
	w.ok("flatten", "vm2")
	w.ok("snapshot", "vm1@s")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.stop()
	w.has("vm1", want)
	w.has("vm2", want)
	w.ok("gc")
	w.undamaged()
}

func TestLazyImportOfAnImageThatChanges(t *testing.T) {
	w := newPool(t)
	path, _ := w.lazyImage("image.raw", 64*mib)
	w.ok("import", "--lazy", "image.raw", "vm1")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	w.fails(14, "vm1 image.raw not there", "export", "vm1", "-")
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	// Renaming it has touched it.
	w.fails(16, "vm1 image.raw touched import", "export", "vm1", "-")
	w.fails(16, "vm1 image.raw", "serve", "vm1", "--nbd", "unix:s")
	if r := w.run(nil, "check"); r.code != 16 || !strings.Contains(r.stdout, "image.raw") {
		t.Errorf("check: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	w.ok("ls")
	w.ok("rm", "vm1")
	w.ok("check")
}

// TestLazyImportFromMemoryIsRefused: there a store to a mapping need not change any time of the file.
func TestLazyImportFromMemoryIsRefused(t *testing.T) {
	w := newPool(t)
	f, err := os.CreateTemp("/dev/shm", "image")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Error(err)
		}
	})
	if err := f.Truncate(mib); err != nil {
		t.Fatal(err)
	}
	w.fails(1, f.Name()+" tmpfs without --lazy", "import", "--lazy", f.Name(), "vm1")
	w.ok("import", f.Name(), "vm1")
}

// mountReflinks mounts a new file system that can share blocks, and returns where.
func mountReflinks(t *testing.T, dir string) string {
	t.Helper()
	return mountNew(t, dir, "xfs", "-m", "reflink=1")
}

// mountNew mounts a new file system of a kind, which mkfs makes with these options, and returns where.
func mountNew(t *testing.T, dir, kind string, options ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("only root can mount a file system: run this test as root")
	}
	image, mount := filepath.Join(dir, kind), filepath.Join(dir, "mount")
	if err := errors.Join(os.Mkdir(mount, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, 1<<30)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{append(append([]string{"mkfs." + kind, "-q"}, options...), image), {"mount", "-o", "loop", image, mount}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s; scripts/deps.sh clients installs what is missing", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return mount
}

// TestLazyImportWhereTimesAreWholeSeconds: a change in the second of the import is seen.
func TestLazyImportWhereTimesAreWholeSeconds(t *testing.T) {
	w := newPool(t)
	mountNew(t, w.dir, "ext4", "-I", "128")
	for i := range 3 {
		path, _ := w.lazyImage(fmt.Sprintf("mount/image%d", i), 48*mib)
		name := fmt.Sprintf("vm%d", i)
		w.ok("import", "--lazy", path, name)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("other"), mib); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		w.fails(16, name+" "+path, "export", name, name+".raw")
	}
}

func TestLazyImportByReflink(t *testing.T) {
	w := newWorld(t)
	mount := mountReflinks(t, w.dir)
	w.env = append(w.env, "SKERRY_POOL="+filepath.Join(mount, "pool"))
	w.ok("init")
	raw, want := w.lazyImage("mount/image.raw", 96*mib)
	w.qemuImg("convert", "-O", "qcow2", raw, "mount/image.qcow2")
	for _, name := range []string{"image.raw", "image.qcow2"} {
		path := filepath.Join(mount, name)
		began := time.Now()
		w.ok("import", "--lazy", path, "vm1")
		t.Logf("imported %s in %v", name, time.Since(began))
		// The file is of no concern any more.
		if err := errors.Join(os.WriteFile(path, []byte("other"), 0o600), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
		if got, want := w.imageOf("vm1"), "copied 0 % from "+path; got != want {
			t.Errorf("info says %q, want %q", got, want)
		}
		w.ok("gc")
		w.undamaged()
		w.has("vm1", want)
		w.fails(13, "vm1", "snapshot", "vm1@s")
		s := w.serve(1, "vm1", "--nbd", "unix:s")
		w.qemuIO(s.uris[0], "read 48M 20M", "flush")
		s.kill()
		w.copied("vm1")
		w.has("vm1", want)
		if images, err := filepath.Glob(filepath.Join(mount, "pool", "v", "*", "image", "*")); err != nil || len(images) > 0 {
			t.Errorf("left: %v, %v", images, err)
		}
		w.ok("snapshot", "vm1@s")
		w.ok("rm", "vm1", "--snapshots")
	}
	w.ok("gc")
	w.undamaged()
}
