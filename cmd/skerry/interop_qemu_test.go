package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// qemuIO runs commands of qemu-io on an export, and returns what they print.
func (w *world) qemuIO(uri string, commands ...string) string {
	w.t.Helper()
	args := []string{"-f", "raw"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out := w.tool("qemu-io", append(args, uri)...)
	if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		w.t.Fatalf("qemu-io %s:\n%s", strings.Join(commands, "; "), out)
	}
	return out
}

func TestInteropQemuImg(t *testing.T) {
	w, image := golden(t)
	s := w.serve(2, "vm1", "golden@v1", "--nbd", "unix:s")
	if out := w.tool("qemu-img", "info", "--output=json", "-f", "raw", s.uri("vm1")); !strings.Contains(out, `"virtual-size": 67108864`) {
		t.Errorf("info: %s", out)
	}
	out := w.tool("qemu-img", "map", "--output=json", "-f", "raw", s.uri("vm1"))
	if !strings.Contains(out, `{ "start": 6291456, "length": 3145728, "depth": 0, "present": true, "zero": false, "data": true`) {
		t.Errorf("map: %s", out)
	}
	w.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", image, s.uri("vm1"))
	w.tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", s.uri("golden@v1"), "golden.qcow2")
	w.tool("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "golden.qcow2", s.uri("vm1"))
	// Into a volume that holds other data, out of order, several at a time.
	w.qemuIO(s.uri("vm1"), "write -P 1 0 32M", "write -P 2 32M 32M")
	if out := w.toolFails("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "golden.qcow2", s.uri("vm1")); !strings.Contains(out, "mismatch") {
		t.Errorf("compare: %s", out)
	}
	w.tool("qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "qcow2", "-O", "raw", "golden.qcow2", s.uri("vm1"))
	w.tool("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "golden.qcow2", s.uri("vm1"))
	// A qcow2 image inside of a volume, with the features that QEMU uses only there.
	w.tool("qemu-img", "create", "-q", "-f", "qcow2", s.uri("vm1"), "40M")
	w.tool("qemu-io", "-f", "qcow2", "-c", "write -P 3 1M 3M", "-c", "write -P 4 20M 512", s.uri("vm1"))
	w.tool("qemu-img", "check", "-f", "qcow2", s.uri("vm1"))
	w.tool("qemu-io", "-f", "qcow2", "-c", "read -P 3 1M 3M", "-c", "read -P 4 20M 512", "-c", "read -P 0 5M 10M", s.uri("vm1"))
	w.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", image, s.uri("golden@v1"))
	s.stop()
	w.exported("golden@v1", image)
	w.undamaged()
}

func TestInteropQemuIO(t *testing.T) {
	w, image := golden(t)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	// Sectors of blocks that the parent holds, of holes, and across chunks; FUA, zeros with and without a hole, discards.
	write := []string{
		"write -P 11 6M 512", "write -P 12 6292480 1536", "write -P 13 -f 7340544 512", "write -P 14 8388096 1024", "write -P 15 20M 2560",
		"writev -P 16 21M 512 1024 4096 512", "aio_write -P 17 22M 3M", "aio_write -P 18 25M 512", "aio_write -P 19 26214912 512", "aio_flush",
		"write -z 6297600 5120", "write -z -u 8M 1M", "write -z -f 41943040 512", "discard 40M 64k", "discard 22M 512", "discard 23M 1M", "flush",
	}
	read := []string{
		"read -P 11 6M 512", "read -P 12 6292480 1536", "read -P 13 7340544 512", "read -P 14 8388096 512", "read -P 0 8M 1M",
		"read -P 15 20M 2560", "read -P 0 20974080 1024", "read -P 16 21M 6144", "read -P 0 22M 512", "read -P 17 23069184 1048064",
		"read -P 0 23M 1M", "read -P 17 24M 1M", "read -P 18 25M 512", "read -P 19 26214912 512", "read -P 0 6297600 5120", "read -P 0 40M 64k",
		"aio_read -P 17 24M 512", "aio_read -P 16 21M 512", "aio_flush",
	}
	w.qemuIO(s.uri("vm1"), append(write, read...)...)
	// What no command touched is the image's.
	want := w.path("want.raw")
	w.tool("cp", "--sparse=always", image, want)
	w.tool("qemu-io", append([]string{"-f", "raw", "-d", "unmap"}, commands(write, want)...)...)
	w.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", want, s.uri("vm1"))
	s.kill()
	s = s.again()
	w.qemuIO(s.uri("vm1"), read...)
	s.stop()
	w.exported("vm1", want)
	w.exported("golden@v1", image)
	w.undamaged()
}

// commands returns the arguments of qemu-io for commands on a file.
func commands(list []string, file string) []string {
	var args []string
	for _, c := range list {
		args = append(args, "-c", c)
	}
	return append(args, file)
}

// living is a qemu-io that is told commands one by one.
type living struct {
	w      *world
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.Reader
}

const qemuPrompt = "qemu-io> "

// qemu starts a qemu-io whose NBD client connects again when the server is gone.
func (w *world) qemu(socket, export string) *living {
	w.t.Helper()
	q := &living{w: w, cmd: w.foreign("qemu-io", "--image-opts", "driver=nbd,server.type=unix,server.path="+socket+",export="+export+",reconnect-delay=60")}
	var err error
	if q.stdin, err = q.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := q.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	q.stdout, q.cmd.Stderr = out, q.cmd.Stdout
	if err := q.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if q.cmd.ProcessState == nil {
			_ = q.stdin.Close() // the test has failed already
			_ = q.cmd.Process.Kill()
			_ = q.cmd.Wait()
		}
	})
	waitFor(w.t, q.stdout, qemuPrompt)
	return q
}

// tell gives a command.
func (q *living) tell(command string) {
	q.w.t.Helper()
	if _, err := io.WriteString(q.stdin, command+"\n"); err != nil {
		q.w.t.Fatalf("qemu-io: %s: %v", command, err)
	}
}

// do gives commands and waits until they have succeeded.
func (q *living) do(list ...string) {
	q.w.t.Helper()
	for _, command := range list {
		q.tell(command)
		q.done(command)
	}
}

// done waits until a command has succeeded.
func (q *living) done(command string) {
	q.w.t.Helper()
	if out := waitFor(q.w.t, q.stdout, qemuPrompt); strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		q.w.t.Fatalf("qemu-io: %s: %s", command, out)
	}
}

// quit ends qemu-io.
func (q *living) quit() {
	q.w.t.Helper()
	q.tell("quit")
	if _, err := io.Copy(io.Discard, q.stdout); err != nil {
		q.w.t.Error(err)
	}
	if err := q.cmd.Wait(); err != nil {
		q.w.t.Errorf("qemu-io: %v", err)
	}
}

// A guest that outlives its server finds its acknowledged writes after the restart, and its next flush makes them durable.
func TestI07QemuOutlivesTheServer(t *testing.T) {
	w, image := golden(t)
	want := w.path("want.raw")
	w.tool("cp", "--sparse=always", image, want)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	q := w.qemu(w.path("s"), "vm1")
	var written []string
	for _, round := range [][]string{
		{"write -P 21 6M 1M", "write -P 22 9M 512", "write -z -u 7M 4608"},
		{"write -P 23 6M 512", "flush", "write -P 24 6292480 8192", "discard 8M 64k"},
		{"write -P 25 3M 4M", "write -P 26 -f 40M 64k", "write -P 27 40M 512"},
	} {
		q.do(round...)
		written = append(written, round...)
		s.kill()
		// This one meets no server: it waits for the next.
		last := "write -P 28 50M 70656"
		q.tell(last)
		s = s.again()
		q.done(last)
		written = append(written, last)
		q.do("read -P 28 50M 70656")
	}
	q.do("read -P 25 3M 4M", "read -P 27 40M 512", "read -P 26 41943552 65024", "flush")
	w.tool("qemu-io", append([]string{"-f", "raw", "-d", "unmap"}, commands(written, want)...)...)
	s.kill()
	s = s.again()
	q.do("read -P 22 9M 512", "flush")
	q.quit()
	s.stop()
	w.exported("vm1", want)
	w.exported("golden@v1", image)
	w.undamaged()
}

func TestInteropSnapshotUnderQemu(t *testing.T) {
	w, image := golden(t)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	q := w.qemu(w.path("s"), "vm1")
	want := image
	for i := range 3 {
		writes := []string{fmt.Sprintf("write -P %d 6M 4608", 31+i), fmt.Sprintf("write -P %d %dM 512", 31+i, i)}
		q.do(writes...) // no flush
		w.ok("snapshot", "-q", fmt.Sprintf("vm1@s%d", i))
		before := want
		want = w.path(fmt.Sprintf("s%d", i))
		w.tool("cp", "--sparse=always", before, want)
		w.tool("qemu-io", append([]string{"-f", "raw"}, commands(writes, want)...)...)
	}
	q.do("write -P 99 0 32M", "discard 0 1M")
	w.ok("clone", "-q", "vm1@s1", "vm2")
	q.quit()
	s.stop()
	for i := range 3 {
		w.exported(fmt.Sprintf("vm1@s%d", i), w.path(fmt.Sprintf("s%d", i)))
	}
	w.exported("vm2", w.path("s1"))
	w.undamaged()
}
