package nbd_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skerry/nbd"
	"skerry/nbd/nbdtest"
)

// tool runs a program and returns what it printed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: run `make deps`", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	// nbdsh needs the Python that it was packaged for.
	cmd.Env = append(os.Environ(), "PATH=/usr/bin:/bin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (r *rig) uri(export string) string { return "nbd+unix:///" + export + "?socket=" + r.socket }

func TestInteropNbdinfo(t *testing.T) {
	m := nbdtest.NewMemory(mib)
	r := serve(t, map[string]nbd.Device{"disk": m, "disk@snap": nbdtest.NewReadOnly(make([]byte, 5000))}, nbd.Options{})
	must(t, r.dial().Write(make([]byte, 8192), 4096, 0))
	out := tool(t, "nbdinfo", r.uri("disk"))
	for _, want := range []string{
		"using structured packets", "export-size: 1048576", "is_read_only: false", "can_multi_conn: true", "can_fua: true",
		"can_trim: true", "can_zero: true", "can_df: true", "can_cache: true", "can_fast_zero: true",
		"base:allocation", "block_size_maximum: 33554432", "description: the volume disk",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out := tool(t, "nbdinfo", r.uri("disk@snap")); !strings.Contains(out, "is_read_only: true") || !strings.Contains(out, "export-size: 5000") {
		t.Errorf("snapshot:\n%s", out)
	}
	if out := tool(t, "nbdinfo", "--list", r.uri("")); !strings.Contains(out, `export="disk@snap"`) {
		t.Errorf("list:\n%s", out)
	}
	lines := strings.Split(strings.TrimSpace(tool(t, "nbdinfo", "--map", r.uri("disk"))), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[0], "hole,zero") || !strings.HasSuffix(lines[1], "data") {
		t.Errorf("map: %q", lines)
	}
}

func TestInteropNbdcopy(t *testing.T) {
	m := nbdtest.NewMemory(64 * mib)
	r := serveOne(t, m)
	dir := t.TempDir()
	want := make([]byte, 64*mib)
	copy(want[3*mib:], pattern(20*mib, 1))
	copy(want[60*mib+4096:], pattern(mib, 2))
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	must(t, os.WriteFile(in, want, 0o600))
	tool(t, "nbdcopy", "--flush", "--connections=4", in, r.uri("disk"))
	if !bytes.Equal(m.Bytes(), want) {
		t.Error("what was copied in differs")
	}
	if m.Flushes() == 0 {
		t.Error("no flush came")
	}
	tool(t, "nbdcopy", "--connections=4", r.uri("disk"), out)
	got, err := os.ReadFile(out)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("what was copied out differs")
	}
}

func TestInteropNbdsh(t *testing.T) {
	r := serveOne(t, nbdtest.NewMemory(mib))
	tool(t, "nbdsh", "-u", r.uri("disk"), "-c", `
import errno
def fails(want, fn, *args, **kw):
    try:
        fn(*args, **kw)
    except nbd.Error as e:
        assert e.errnum == want, e
    else:
        assert False, "no error"
h.set_strict_mode(0)
h.pwrite(b"hello" * 1000, 777, nbd.CMD_FLAG_FUA)
assert h.pread(5000, 777) == b"hello" * 1000
assert h.pread(6000, 0, nbd.CMD_FLAG_DF)[777:782] == b"hello"
h.zero(2000, 800, nbd.CMD_FLAG_NO_HOLE)
h.zero(4096, 8192, nbd.CMD_FLAG_FAST_ZERO)
h.trim(4096, 0, nbd.CMD_FLAG_FUA)
h.cache(4096, 0)
h.flush()
assert h.pread(4096, 0) == bytearray(4096)
fails(errno.ENOSPC, h.pwrite, b"x" * 512, 1 << 20)
fails(errno.EINVAL, h.pread, 512, (1 << 20) - 511)
fails(errno.EINVAL, h.pread, 1, 1 << 63)
fails(errno.EINVAL, h.flush, 1 << 9)
fails(errno.ENOTSUP, h.zero, 512, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
h.flush()
`)
	tool(t, "nbdsh", "-c", fmt.Sprintf(`
h.add_meta_context("base:allocation")
h.set_opt_mode(True)
h.connect_unix(%q)
names = []
h.opt_list(lambda name, desc: names.append(name))
assert names == ["disk"], names
h.set_export_name("nope")
try:
    h.opt_info()
    assert False
except nbd.Error:
    pass
h.set_export_name("disk")
h.opt_info()
assert h.get_size() == 1 << 20
h.opt_go()
entries = []
h.block_status(1 << 20, 0, lambda name, off, e, err: entries.extend(e))
assert sum(entries[::2]) == 1 << 20, entries
h.shutdown()
`, r.socket))
}

func TestInteropQemu(t *testing.T) {
	m := nbdtest.NewMemory(16 * mib)
	r := serveOne(t, m)
	out := tool(t, "qemu-io", "-f", "raw", r.uri("disk"),
		"-c", "write -P 17 4096 1M", "-c", "write -P 18 -f 2M 700", "-c", "read -P 17 4096 1M", "-c", "read -P 18 2M 700",
		"-c", "write -z 8192 4096", "-c", "write -z -u 16384 4096", "-c", "read -P 0 8192 4096", "-c", "discard 65536 65536",
		"-c", "read -P 0 65536 65536", "-c", "read -P 0 4M 8M", "-c", "aio_write -P 19 5M 64k", "-c", "aio_read 0 2M", "-c", "aio_flush",
		"-c", "flush")
	if strings.Contains(out, "error") || strings.Contains(out, "failed") {
		t.Error(out)
	}
	if data := m.Bytes(); data[4096] != 17 || data[2*mib+699] != 18 || data[5*mib] != 19 || m.Flushes() == 0 {
		t.Error("content differs, or no flush came")
	}
	out = tool(t, "qemu-img", "map", "--output=json", "-f", "raw", r.uri("disk"))
	if !strings.Contains(out, `"zero": true`) || !strings.Contains(out, `"data": true`) {
		t.Errorf("map: %s", out)
	}
	copied := filepath.Join(t.TempDir(), "copy.qcow2")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", r.uri("disk"), copied)
	tool(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", copied, r.uri("disk"))
}
