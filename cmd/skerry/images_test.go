package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func (w *world) qemuImg(args ...string) {
	w.t.Helper()
	c := exec.Command("qemu-img", args...)
	c.Dir = w.dir
	if out, err := c.CombinedOutput(); err != nil {
		w.t.Fatalf("qemu-img %s: %v: %s (install it with: make deps)", strings.Join(args, " "), err, out)
	}
}

func TestExportedQcow2ImagesComeBack(t *testing.T) {
	w := newPool(t)
	data := append(noise(5*mib, 3), make([]byte, 3*mib+512)...)
	w.okWith(bytes.NewReader(data), "import", "-", "vm1", "--size", "8389120")
	w.script(`
		export vm1 plain.qcow2
		export vm1 packed.qcow2 --compress zstd
		export vm1 old.img --format qcow2 --compress zlib
		12 export vm1 plain.qcow2           | --force
		1 export vm1 - --format qcow2 --compress zlib | file
		export vm1 raw --format raw`)
	if err := os.WriteFile(w.path("streamed"), []byte(w.ok("export", "vm1", "-", "--format", "qcow2")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plain.qcow2", "packed.qcow2", "old.img", "streamed"} {
		w.qemuImg("check", "-f", "qcow2", name)
		w.qemuImg("compare", "-f", "qcow2", "-F", "raw", name, "raw")
		w.ok("import", name, "again")
		w.has("again", data)
		w.ok("rm", "again")
	}
}

func TestImportedImagesThatArePackedOrHaveBackingFiles(t *testing.T) {
	w := newPool(t)
	data := noise(3*mib, 5)
	if err := os.WriteFile(w.path("raw"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.qemuImg("create", "-q", "-f", "qcow2", "-b", "raw", "-F", "raw", "top.qcow2")
	w.qemuImg("convert", "-O", "vmdk", "raw", "disk.vmdk")
	for _, program := range []string{"gzip", "zstd", "xz"} {
		c := exec.Command(program, "-k", "raw", "top.qcow2")
		c.Dir = w.dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s (install it with: make deps)", program, err, out)
		}
	}
	w.script(`
		1 import top.qcow2 vm1              | raw --follow-backing
		1 import top.qcow2.zst vm1          | raw --follow-backing
		1 import disk.vmdk vm1              | qemu-img convert -f vmdk
		10 info vm1
		import top.qcow2 backed --follow-backing
		import top.qcow2.xz packed --follow-backing
		import raw.gz gz
		import raw.zst zst
		import raw.xz xz
		import raw.xz large --size 4M
		1 import raw.xz small --size 1M     | large --size
		10 info small`)
	for _, name := range []string{"backed", "packed", "gz", "zst", "xz"} {
		w.has(name, data)
	}
	w.has("large", append(data, make([]byte, mib)...))
	f, err := os.Open(w.path("raw.zst"))
	if err != nil {
		t.Fatal(err)
	}
	w.okWith(io.MultiReader(f), "import", "-", "piped", "--size", "3M") // not a file, so it is copied to a pipe
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w.has("piped", data)
	w.ok("check")
}

// TestFilesThatAreNoImages: what is no image is refused with words that help, and so is a name that promises another format.
func TestFilesThatAreNoImages(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(mib, 1))
	for name, head := range map[string]string{
		"lz4": "\x04\x22\x4d\x18", "zip": "PK\x03\x04", "7z": "7z\xbc\xaf\x27\x1c", "ova": strings.Repeat("x", 257) + "ustar", "empty": "",
	} {
		if err := os.WriteFile(w.path(name), []byte(head), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(w.path("dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.script(`
		1 import lz4 new                    | lz4 -dc
		1 import zip new                    | unzip -p
		1 import 7z new                     | 7z x -so
		1 import ova new                    | tar -xf
		1 import empty new                  | skerry create
		1 import /dev/null new              | skerry create
		1 import dir new                    | name a file
		10 info new
		import lz4 new --format raw
		1 export vm1 dir                    | name a file
		2 export vm1 vm1.vmdk               | qemu-img convert
		2 export vm1 vm1.raw.zst            | --format raw
		export vm1 vm1.vmdk --format raw
		1 doctor lz4                        | name a directory
		1 ls --pool rados:///vms            | file:///path`)
}

// No space for an image says nothing of the pool.
func TestFullPlaceOfAnImage(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	w.fails(15, "image /dev/full", "export", "vm1", "/dev/full")
	if r := w.run(nil, "export", "vm1", "/dev/full"); strings.Contains(r.stderr, "skerry rm") || strings.Contains(r.stderr, "gc") {
		t.Error(r.stderr)
	}
}

// Whoever ends before the export is to be looked at, not a server or the pool.
func TestExportToAReaderThatEnds(t *testing.T) {
	w := newPool(t)
	w.okWith(bytes.NewReader(noise(9*mib, 1)), "import", "-", "vm1", "--size", "9M")
	w.ok("snapshot", "vm1@a")
	w.okWith(bytes.NewReader(noise(9*mib, 2)), "import", "-", "vm2", "--size", "9M")
	w.ok("snapshot", "vm2@b")
	for _, args := range [][]string{{"export", "vm1", "-"}, {"export", "vm1", "-", "--format", "qcow2"}, {"export", "vm2@b", "-", "--from", "vm1@a"}} {
		r, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var told bytes.Buffer
		c := w.command(args...)
		c.Stdout, c.Stderr = out, &told
		if err := errors.Join(c.Start(), out.Close(), r.Close()); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait() // its exit code is looked at
		text := told.String()
		if code := c.ProcessState.ExitCode(); code != 1 || !strings.Contains(text, "broken pipe") || !strings.Contains(text, "other end of the pipe") || strings.Contains(text, "server") {
			t.Errorf("skerry %s: exit code %d: %s", strings.Join(args, " "), code, text)
		}
	}
}

// No space where the result is written says nothing of the pool.
func TestFullPlaceOfAResult(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = full.Close() })
	for _, args := range [][]string{{"ls"}, {"ls", "--json"}, {"tree"}, {"hash", "vm1"}} {
		var told bytes.Buffer
		c := w.command(args...)
		c.Stdout, c.Stderr = full, &told
		_ = c.Run() // its exit code is looked at
		text := told.String()
		if code := c.ProcessState.ExitCode(); code != 15 || !strings.Contains(text, "standard output") || strings.Contains(text, "skerry rm") {
			t.Errorf("skerry %s: exit code %d: %s", strings.Join(args, " "), code, text)
		}
	}
}

// Commands that wait for a pipe end at the first signal.
func TestSignalsEndWaitsForPipes(t *testing.T) {
	w := newPool(t)
	w.okWith(bytes.NewReader(noise(9*mib, 1)), "import", "-", "vm1", "--size", "9M")
	if err := syscall.Mkfifo(w.path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	ends := func(name string, c *exec.Cmd, begun func() error) {
		t.Helper()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := begun(); err != nil {
			t.Fatal(err)
		}
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait() // the exit code tells
		if code := c.ProcessState.ExitCode(); code != 130 {
			t.Errorf("%s: exit code %d, want 130", name, code)
		}
	}
	one := make([]byte, 1)
	var other *os.File
	ends("export to a named pipe", w.command("export", "vm1", "fifo"), func() (err error) {
		if other, err = os.Open(w.path("fifo")); err == nil {
			_, err = other.Read(one)
		}
		return err
	})
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := w.command("export", "vm1", "-")
	c.Stdout = out
	ends("export to standard output", c, func() error {
		_, err := r.Read(one)
		return err
	})
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	ends("import from a named pipe", w.command("import", "fifo", "vm2", "--size", "1M"), func() (err error) {
		other, err = os.OpenFile(w.path("fifo"), os.O_WRONLY, 0)
		return err
	})
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	w.script(`
		10 info vm2
		export vm1 out`) // no lease is left
}
