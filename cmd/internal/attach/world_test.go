package attach

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skerry/cmd/internal/control"
	"skerry/volume/catalog"
)

// binary is where TestMain puts the program: servers in these tests are real ones.
var binary = filepath.Join(os.TempDir(), "skerry-attach-"+rand.Text(), "skerry")

func TestMain(m *testing.M) { os.Exit(buildAndTest(m)) }

func buildAndTest(m *testing.M) int {
	dir := filepath.Dir(binary)
	if err := os.Mkdir(dir, 0o700); err != nil {
		println(err.Error())
		return 1
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("go", "build", "-o", binary, "skerry/cmd/skerry").CombinedOutput(); err != nil {
		println(string(out), err.Error())
		return 1
	}
	return m.Run()
}

const mib = 1 << 20

// patience bounds the wait for other processes.
const patience = time.Minute

// world is a host of the test's own, with a pool.
type world struct {
	t      *testing.T
	dir    string // short enough for sockets
	kernel *fakeKernel
	host   *Host
	env    []string
	log    *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "ska-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, log: &logBuffer{}}
	w.env = append(os.Environ(), "SKERRY_POOL="+filepath.Join(dir, "pool"), "XDG_RUNTIME_DIR="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	w.host = &Host{
		Dir:    filepath.Join(dir, "skerry", "attach"),
		Lookup: w.lookup,
		Serve: func(t Target, readOnly bool, socket string) (*exec.Cmd, error) {
			args := []string{"--json", "--pool", t.Pool, "serve", t.Name(), "--nbd", "unix:" + socket}
			if readOnly && t.Snapshot == "" {
				args = append(args, "--read-only")
			}
			return w.command(args...), nil
		},
		Keep: func(string) (*exec.Cmd, error) { return nil, errors.New("keepers of these tests are in this process") },
		Log:  slog.New(slog.NewTextHandler(w.log, nil)),
		Tick: 50 * time.Millisecond,
	}
	t.Cleanup(func() {
		records, err := w.host.records()
		for _, r := range records {
			_ = r.Server.Process.end(context.Background(), 9) // of a test that has failed
		}
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	w.kernel = newKernel(t)
	w.host.Kernel = w.kernel
	w.ok("init", "-q")
	return w
}

func (w *world) command(args ...string) *exec.Cmd {
	c := exec.Command(binary, args...)
	c.Dir, c.Env = w.dir, w.env
	return c
}

func (w *world) ok(args ...string) []byte {
	w.t.Helper()
	var errs bytes.Buffer
	c := w.command(args...)
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		w.t.Fatalf("skerry %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out
}

func (w *world) pool() string { return "file://" + filepath.Join(w.dir, "pool") }

func (w *world) lookup(_ context.Context, t Target) (Found, error) {
	out, err := w.command("info", "--json", t.Volume).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 10 {
		return Found{}, catalog.ErrNotFound
	}
	if err != nil {
		return Found{}, err
	}
	var v control.Volume
	if err := json.Unmarshal(out, &v); err != nil {
		return Found{}, err
	}
	f := Found{ID: v.ID, Holder: v.Holder}
	if v.Holder != nil && v.Holder.Socket != "" {
		f.Reach = control.NewClient(v.Holder.Socket, 0)
	}
	for _, s := range v.Snapshots {
		if s.Name == t.Snapshot {
			f.Created = s.Created
			return f, nil
		}
	}
	if t.Snapshot != "" {
		return Found{}, catalog.ErrNotFound
	}
	return f, nil
}

func (w *world) target(name string) Target {
	w.t.Helper()
	t := Target{Pool: w.pool()}
	t.Volume, t.Snapshot, _ = strings.Cut(name, "@")
	f, err := w.lookup(w.t.Context(), t)
	if err != nil {
		w.t.Fatal(err)
	}
	t.ID, t.Created = f.ID, f.Created
	return t
}

func options() Options {
	return Options{Connections: 2, Dead: time.Minute, Request: 30 * time.Second}
}

// kept is a device with a keeper in this process.
type kept struct {
	Attached
	w     *world
	leave context.CancelFunc
	ended chan error
}

// attach attaches a volume, with a keeper in this process.
func (w *world) attach(name string, o Options) (*kept, error) {
	w.t.Helper()
	return w.attachTarget(w.target(name), o)
}

func (w *world) attachTarget(t Target, o Options) (*kept, error) {
	ctx, cancel := context.WithCancel(context.Background())
	k := &kept{w: w, leave: cancel, ended: make(chan error, 1)}
	ready := make(chan struct{})
	go func() {
		_, err := w.host.Attach(ctx, t, o, func(d Attached) error {
			k.Attached = d
			close(ready)
			return nil
		})
		k.ended <- err
	}()
	w.t.Cleanup(cancel)
	select {
	case <-ready:
		return k, nil
	case err := <-k.ended:
		cancel()
		return nil, err
	}
}

func (w *world) mustAttach(name string, o Options) *kept {
	w.t.Helper()
	k, err := w.attach(name, o)
	if err != nil {
		w.t.Fatalf("attach %s: %v", name, err)
	}
	return k
}

// end ends the keeper as its death does: the device and the server go on.
func (k *kept) end() {
	k.w.t.Helper()
	k.leave()
	if err := <-k.ended; err != nil {
		k.w.t.Fatal(err)
	}
}

func (k *kept) detach(force bool) Detached {
	k.w.t.Helper()
	d, err := k.w.host.Detach(k.w.t.Context(), k.Target, force)
	if err != nil {
		k.w.t.Fatal(err)
	}
	return d
}

// record returns the record as it is now.
func (k *kept) record() Record {
	k.w.t.Helper()
	r, err := k.w.host.load(k.key())
	if err != nil {
		k.w.t.Fatal(err)
	}
	return r
}

// until waits for what other processes do.
func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not in %v\n%s", what, patience, w.log)
		}
	}
}

// state returns what List says of the only device.
func (w *world) state() State {
	w.t.Helper()
	all, err := w.host.List(w.t.Context())
	if err != nil || len(all) != 1 {
		w.t.Fatalf("%+v, %v", all, err)
	}
	return all[0].State
}

// free checks that a volume is leased to nobody.
func (w *world) free(name string) {
	w.t.Helper()
	if out := w.ok("lease", "show", name); !strings.Contains(string(out), "free") {
		w.t.Errorf("%s", out)
	}
}

func noise(n int, seed byte) []byte {
	p := make([]byte, n)
	x := uint32(seed) + 1
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}
