package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The tests of the files interop_*_test.go serve volumes to the clients that people use.

// foreign returns a command of another project, which ends with the test, at the latest after the world's limit.
func (w *world) foreign(name string, args ...string) *exec.Cmd {
	w.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath(filepath.Join("/usr/sbin", name))
	}
	if err != nil {
		w.t.Fatalf("%s is missing: run `make deps`", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.limit)
	w.t.Cleanup(cancel)
	c := exec.CommandContext(ctx, path, args...)
	// nbdsh needs the Python that it was packaged for.
	c.Env = append(os.Environ(), "PATH=/usr/bin:/bin:/usr/sbin:/sbin:"+os.Getenv("PATH"), "LC_ALL=C.UTF-8")
	c.Dir, c.WaitDelay = w.dir, 5*time.Second
	return c
}

// tool runs a program of another project that succeeds, and returns what it printed.
func (w *world) tool(name string, args ...string) string {
	w.t.Helper()
	out, err := w.foreign(name, args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// toolFails runs a program of another project that fails, and returns what it printed.
func (w *world) toolFails(name string, args ...string) string {
	w.t.Helper()
	out, err := w.foreign(name, args...).CombinedOutput()
	if err == nil {
		w.t.Errorf("%s %s: succeeded\n%s", name, strings.Join(args, " "), out)
	}
	return string(out)
}

// end lets a process that a test started end at a signal, and waits for it.
func (w *world) end(c *exec.Cmd, sig os.Signal) {
	if c.ProcessState != nil {
		return
	}
	if err := c.Process.Signal(sig); err != nil {
		w.t.Error(err)
	}
	_ = c.Wait() // says that it was signalled
}

// uri returns the URI of an export behind the server's first socket.
func (s *server) uri(export string) string {
	s.w.t.Helper()
	network, address := endpoint(s.w.t, s.uris[0])
	if network != "unix" {
		s.w.t.Fatalf("%s is no Unix socket", s.uris[0])
	}
	return "nbd+unix:///" + export + "?socket=" + address
}

// again starts a new serve with the arguments of one that has ended.
func (s *server) again() *server {
	s.w.t.Helper()
	return s.w.serve(len(s.uris), s.cmd.Args[2:]...)
}

// image writes a file of size bytes, sparse, with parts of it.
func (w *world) image(name string, size int64, parts map[int64][]byte) string {
	w.t.Helper()
	path := w.path(name)
	f, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		w.t.Fatal(err)
	}
	for off, p := range parts {
		if _, err := f.WriteAt(p, off); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// same checks that two files have the same content.
func (w *world) same(a, b string) {
	w.t.Helper()
	if x, y := w.sum(a), w.sum(b); x != y {
		w.t.Fatalf("%s and %s differ: %s", filepath.Base(a), filepath.Base(b), w.toolFails("cmp", a, b))
	}
}

// sum returns the SHA-256 of a file.
func (w *world) sum(path string) string {
	w.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// exported checks that a volume or a snapshot has the content of a file.
func (w *world) exported(name, file string) {
	w.t.Helper()
	out := w.path("exported")
	w.ok("export", "-q", name, out)
	w.same(out, file)
	if err := os.Remove(out); err != nil {
		w.t.Fatal(err)
	}
}

// undamaged checks the pool.
func (w *world) undamaged() {
	w.t.Helper()
	if r := w.run(nil, "check"); r.code != 0 || strings.Contains(r.stdout, "damage") {
		w.t.Fatalf("check: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// waitFor reads what a process prints until it says a word, and returns all of it.
func waitFor(t *testing.T, r io.Reader, word string) string {
	t.Helper()
	var all bytes.Buffer
	for b := make([]byte, 4096); ; {
		n, err := r.Read(b)
		all.Write(b[:n])
		if strings.Contains(all.String(), word) {
			return all.String()
		}
		if err != nil {
			t.Fatalf("no %q: %v\n%s", word, err, all.String())
		}
	}
}
