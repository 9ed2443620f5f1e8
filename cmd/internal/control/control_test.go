package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"skerry/cmd/internal/failure"
	"skerry/drivers"
	"skerry/locking"
	"skerry/volume/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeHolds answers with what it was asked, or with err.
type fakeHolds struct {
	err   error
	block chan struct{} // not nil: Info waits for it or for the end of the call
}

func (f *fakeHolds) Process() Process {
	return Process{PID: 1, Version: "v", Pool: "file:///p", Shows: Shows{NBD: []string{"nbd://127.0.0.1/vm1"}, Mounts: []string{"/m"}, ReadOnly: true}}
}

func (f *fakeHolds) Names(context.Context) ([]string, error) { return []string{"a", "b"}, f.err }

func (f *fakeHolds) Info(ctx context.Context, volume string) (Volume, error) {
	if f.block != nil {
		select {
		case <-f.block:
		case <-ctx.Done():
			return Volume{}, ctx.Err()
		}
	}
	return Volume{
		Name: volume, Size: 1 << 40, Created: time.Unix(5, 0).UTC(), Holder: &Holder{Host: "h", PID: 7},
		Snapshots: []Snapshot{{Name: "s", Size: 512}},
	}, f.err
}

func (f *fakeHolds) Snapshot(_ context.Context, volume, snapshot string) (Snapshot, error) {
	return Snapshot{Name: volume + "@" + snapshot}, f.err
}

func (f *fakeHolds) RemoveSnapshot(_ context.Context, volume, snapshot string) (Removal, error) {
	return Removal{Objects: int64(len(volume)), Bytes: int64(len(snapshot))}, f.err
}

func (f *fakeHolds) SnapshotHidden(_ context.Context, volume string) (Hidden, error) {
	return Hidden{Serial: 1<<63 + uint64(len(volume))}, f.err
}

func (f *fakeHolds) RemoveHidden(_ context.Context, volume string, h Hidden) error {
	if volume != "a/b" || h.Serial != 1<<63+3 {
		return fmt.Errorf("%s, %d", volume, h.Serial)
	}
	return f.err
}

func (f *fakeHolds) Clone(_ context.Context, volume, name string, size int64) (Volume, error) {
	return Volume{Name: name, Parent: volume, Size: size}, f.err
}

func (f *fakeHolds) Pin(_ context.Context, volume string, keep time.Duration) (Pin, error) {
	return Pin{ID: volume + keep.String()}, f.err
}

func (f *fakeHolds) Resize(_ context.Context, volume string, size NewSize) (Volume, error) {
	return Volume{Name: volume, Size: size.Size}, f.err
}

func (f *fakeHolds) Flatten(ctx context.Context, volume string, progress func(done, total int64)) (Volume, error) {
	progress(1, 2)
	if f.block != nil {
		select {
		case <-f.block:
		case <-ctx.Done():
			return Volume{}, ctx.Err()
		}
	}
	progress(2, 2)
	return Volume{Name: volume}, f.err
}

// start serves h until the end of the test and returns the socket's path.
func start(t *testing.T, h Holds) string {
	t.Helper()
	l, err := Listen(t.Context(), filepath.Join(t.TempDir(), "skerry"))
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(h, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-done); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(l.Addr().String()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return l.Addr().String()
}

func TestCallsReachTheHolder(t *testing.T) {
	h := &fakeHolds{}
	c := NewClient(start(t, h), 0)
	ctx := t.Context()
	if p, err := c.Process(ctx); err != nil || cmp.Diff(p, h.Process()) != "" {
		t.Errorf("process: %+v, %v", p, err)
	}
	if v, err := c.Volumes(ctx); err != nil || cmp.Diff(v, []string{"a", "b"}) != "" {
		t.Errorf("volumes: %v, %v", v, err)
	}
	want, _ := h.Info(ctx, "vm1")
	if v, err := c.Info(ctx, "vm1"); err != nil || cmp.Diff(v, want) != "" {
		t.Errorf("info: %v, %s", err, cmp.Diff(v, want))
	}
	if s, err := c.Snapshot(ctx, "vm1", "a+b"); err != nil || s.Name != "vm1@a+b" {
		t.Errorf("snapshot: %+v, %v", s, err)
	}
	if r, err := c.RemoveSnapshot(ctx, "vm1", "a+b"); err != nil || r.Objects != 3 || r.Bytes != 3 {
		t.Errorf("remove snapshot: %+v, %v", r, err)
	}
	if hidden, err := c.SnapshotHidden(ctx, "a/b"); err != nil || hidden.Serial != 1<<63+3 {
		t.Errorf("hidden snapshot: %+v, %v", hidden, err)
	}
	if err := c.RemoveHidden(ctx, "a/b", Hidden{Serial: 1<<63 + 3}); err != nil {
		t.Errorf("remove hidden snapshot: %v", err)
	}
	if p, err := c.Pin(ctx, "vm1", time.Minute); err != nil || p.ID != "vm11m0s" {
		t.Errorf("pin: %+v, %v", p, err)
	}
	if p, err := c.Pin(ctx, "vm1", 48*time.Hour); err == nil {
		t.Errorf("pin for two days: %+v", p)
	}
	if v, err := c.Clone(ctx, "vm1", "vm2", 99); err != nil || v.Name != "vm2" || v.Parent != "vm1" || v.Size != 99 {
		t.Errorf("clone: %+v, %v", v, err)
	}
}

func TestErrorsKeepTheirClass(t *testing.T) {
	h := &fakeHolds{}
	c := NewClient(start(t, h), 0)
	for _, want := range []error{catalog.ErrNotFound, catalog.ErrExists, catalog.ErrInUse, locking.ErrLost, drivers.ErrNoSpace, drivers.ErrUnavailable} {
		h.err = fmt.Errorf("snapshot vm1: %w", want)
		_, err := c.Snapshot(t.Context(), "vm1", "s")
		if !errors.Is(err, want) || err.Error() != h.err.Error() || failure.Of(err).Exit != failure.Of(want).Exit {
			t.Errorf("%v came as %v", h.err, err)
		}
	}
	h.err = errors.New("plain")
	if _, err := c.Info(t.Context(), "x"); err == nil || err.Error() != "plain" || failure.Of(err).Exit != failure.ExitError {
		t.Error(err)
	}
}

func TestBadRequestsAreAnswered(t *testing.T) {
	path := start(t, &fakeHolds{})
	raw := NewClient(path, 0)
	for body, want := range map[string]int{
		`{"name":"s"}`:           http.StatusCreated,
		`{"name":"s","other":1}`: http.StatusBadRequest,
		`{"name":1}`:             http.StatusBadRequest,
		`{"name":"s"}{}`:         http.StatusBadRequest,
		``:                       http.StatusBadRequest,
		`{"name":"` + strings.Repeat("x", maxRequest): http.StatusBadRequest,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://skerry/v1/volumes/vm1/snapshots", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := raw.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want {
			t.Errorf("body of %d bytes: %s, want %d", len(body), resp.Status, want)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSilentHolderIsGone(t *testing.T) {
	c := NewClient(start(t, &fakeHolds{block: make(chan struct{})}), 50*time.Millisecond)
	if _, err := c.Info(t.Context(), "vm1"); !errors.Is(err, ErrGone) {
		t.Fatal(err)
	}
}

func TestCancelledCallIsNotGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewClient(start(t, &fakeHolds{}), 0).Info(ctx, "vm1")
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrGone) {
		t.Fatal(err)
	}
}

func TestDeadHolderIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := NewClient(path, 0).Info(t.Context(), "vm1"); !errors.Is(err, ErrGone) {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(path, 0).Info(t.Context(), "vm1"); !errors.Is(err, ErrGone) {
		t.Errorf("stale socket: %v", err)
	}
}

func TestListenRemovesSocketsOfTheDead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "skerry")
	first, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, fmt.Sprintf("%d-ABCDEFGH.sock", dead.Process.Pid))
	if err := syscall.Mknod(stale, syscall.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "notes")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close() }()
	if _, err := os.Lstat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the dead process's socket is left: %v", err)
	}
	for _, p := range []string{other, first.Addr().String(), second.Addr().String()} {
		if _, err := os.Lstat(p); err != nil {
			t.Errorf("removed: %v", err)
		}
	}
}

func TestListenWantsADirectoryOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if l, err := Listen(t.Context(), dir); err == nil {
		t.Errorf("listens at %s, which others can write", l.Addr())
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if l, err := Listen(t.Context(), link); err == nil {
		t.Errorf("listens at %s, behind a link", l.Addr())
	}
}

func TestDirectory(t *testing.T) {
	if d := Directory(func(string) string { return "/run/user/7" }); d != "/run/user/7/skerry" {
		t.Error(d)
	}
	if d := Directory(func(string) string { return "relative" }); !filepath.IsAbs(d) {
		t.Error(d)
	}
}
