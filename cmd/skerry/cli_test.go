package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests of this package run the program itself: TestMain builds it once, with the race detector if the tests have it.

// binary is where TestMain puts the program.
var binary = filepath.Join(os.TempDir(), "skerry-test-"+rand.Text(), "skerry")

func TestMain(m *testing.M) { os.Exit(buildAndTest(m)) }

func buildAndTest(m *testing.M) int {
	dir := filepath.Dir(binary)
	if err := os.Mkdir(dir, 0o700); err != nil {
		println(err.Error())
		return 1
	}
	defer os.RemoveAll(dir)
	args := []string{"build", "-o", binary, "-ldflags", "-X main.version=v-test"}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		println(string(out), err.Error())
		return 1
	}
	return m.Run()
}

// limit bounds every process of a test that sets no other limit.
const limit = 2 * time.Minute

// world is a machine of the test's own: a pool, a runtime directory, a working directory.
type world struct {
	t       *testing.T
	program string
	dir     string // short enough for sockets
	pool    string
	env     []string

	limit time.Duration // of every process
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "sk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, program: binary, dir: dir, pool: filepath.Join(dir, "pool"), limit: limit}
	// A program with the race detector waits a second at its end unless it is told not to.
	w.env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "SKERRY_POOL="+w.pool, "XDG_RUNTIME_DIR="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	return w
}

// newPool is newWorld with a pool.
func newPool(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.ok("init", "-q")
	return w
}

// path returns a path in the working directory.
func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// command returns a command that ends with the test, at the latest after the world's limit.
func (w *world) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), w.limit)
	w.t.Cleanup(cancel)
	c := exec.CommandContext(ctx, w.program, args...)
	c.Dir, c.Env = w.dir, w.env
	return c
}

// result is how a process ended.
type result struct {
	code           int
	stdout, stderr string
}

func (w *world) run(stdin io.Reader, args ...string) result {
	w.t.Helper()
	var out, errs bytes.Buffer
	c := w.command(args...)
	c.Stdin, c.Stdout, c.Stderr = stdin, &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("skerry %s: %v", strings.Join(args, " "), err)
	}
	r := result{c.ProcessState.ExitCode(), out.String(), errs.String()}
	if strings.Contains(r.stderr, "DATA RACE") || strings.Contains(r.stderr, "panic:") || strings.Contains(r.stderr, "goroutine ") {
		w.t.Fatalf("skerry %s: %s", strings.Join(args, " "), r.stderr)
	}
	return r
}

// ok runs a command that succeeds, and returns its stdout.
func (w *world) ok(args ...string) string {
	w.t.Helper()
	return w.okWith(nil, args...)
}

func (w *world) okWith(stdin io.Reader, args ...string) string {
	w.t.Helper()
	r := w.run(stdin, args...)
	if r.code != 0 {
		w.t.Fatalf("skerry %s: exit code %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

// fails runs a command that ends with an exit code, says all of the words on stderr, and has no result.
func (w *world) fails(code int, words string, args ...string) {
	w.t.Helper()
	r := w.run(nil, args...)
	if r.code != code {
		w.t.Errorf("skerry %s: exit code %d, want %d\n%s", strings.Join(args, " "), r.code, code, r.stderr)
	}
	for _, word := range strings.Fields(words) {
		if !strings.Contains(r.stderr, word) {
			w.t.Errorf("skerry %s: %q, want it to say %q", strings.Join(args, " "), r.stderr, word)
		}
	}
	if r.stdout != "" {
		w.t.Errorf("skerry %s: failed and printed %q", strings.Join(args, " "), r.stdout)
	}
}

// put imports content as a volume.
func (w *world) put(name string, content []byte, args ...string) {
	w.t.Helper()
	path := w.path(name + ".image")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.ok(append([]string{"import", "-q", "--format", "raw", path, name}, args...)...)
}

// has checks the content of a volume or a snapshot.
func (w *world) has(name string, want []byte) {
	w.t.Helper()
	got := []byte(w.ok("export", "-q", name, "-"))
	if len(got) != len(want) {
		w.t.Fatalf("%s has %d bytes, want %d", name, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			w.t.Fatalf("%s: byte %d is %#x, want %#x", name, i, got[i], want[i])
		}
	}
}

// server is a running serve.
type server struct {
	w      *world
	cmd    *exec.Cmd
	uris   []string
	stdout io.ReadCloser
	stderr bytes.Buffer
}

// serve starts serve and waits until it is ready: until it has printed so many URIs.
func (w *world) serve(uris int, args ...string) *server {
	w.t.Helper()
	return w.start(uris, append([]string{"serve"}, args...)...)
}

// start starts a command that prints lines when it is ready, and goes on.
func (w *world) start(uris int, args ...string) *server {
	w.t.Helper()
	s := &server{w: w, cmd: w.command(args...)}
	s.cmd.Stderr = &s.stderr
	var err error
	if s.stdout, err = s.cmd.StdoutPipe(); err != nil {
		w.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill() // the test has failed already
			_ = s.cmd.Wait()
		}
	})
	lines := bufio.NewScanner(s.stdout)
	for len(s.uris) < uris && lines.Scan() {
		s.uris = append(s.uris, lines.Text())
	}
	if len(s.uris) < uris {
		_ = s.cmd.Wait()
		w.t.Fatalf("%s: not ready: %s", strings.Join(args, " "), s.stderr.String())
	}
	return s
}

func (s *server) signal(sig os.Signal) {
	s.w.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.w.t.Fatal(err)
	}
}

// stop ends the server cleanly.
func (s *server) stop() {
	s.w.t.Helper()
	s.signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		s.w.t.Fatalf("serve: %v\n%s", err, s.stderr.String())
	}
	if strings.Contains(s.stderr.String(), "DATA RACE") {
		s.w.t.Fatal(s.stderr.String())
	}
}

// kill ends the server as kill -9 does.
func (s *server) kill() {
	s.w.t.Helper()
	s.signal(syscall.SIGKILL)
	_ = s.cmd.Wait() // says that it was killed
}
