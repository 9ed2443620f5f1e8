package local_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"skerry/drivers"
	"skerry/drivers/local"
)

func create(t *testing.T, b *local.Backend, name string) drivers.Object {
	t.Helper()
	o, err := b.Open(t.Context(), name, drivers.Create)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

func list(t *testing.T, b *local.Backend, group string) []string {
	t.Helper()
	var names []string
	if err := b.List(t.Context(), group, func(i drivers.Info) error {
		names = append(names, i.Name)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestObjectsAreFiles(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	o := create(t, b, "v/1/data/0/x")
	if err := o.WriteAt([]byte("content"), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Replace(t.Context(), "pool", []byte("record"), drivers.Condition{Absent: true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"v/1/data/0/x": "content", "pool": "record"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("file %s: %q, %v", name, got, err)
		}
	}
	st, err := os.Stat(filepath.Join(dir, "v/1"))
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", st, err)
	}
}

func TestLeftOversAreHarmless(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	create(t, b, "g/o")
	temp := filepath.Join(dir, "g", ".tmp-0123")
	for _, path := range []string{temp, filepath.Join(dir, ".other"), filepath.Join(dir, "not valid")} {
		if err := os.WriteFile(path, []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, ".hidden/lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("o", filepath.Join(dir, "g", "link")); err != nil {
		t.Fatal(err)
	}
	if got := list(t, b, ""); !slices.Equal(got, []string{"g/o"}) {
		t.Errorf("objects %v", got)
	}
	if err := b.Replace(t.Context(), "g/r", nil, drivers.Condition{Absent: true}); err != nil {
		t.Error(err)
	}
	if err := b.CleanTemp(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(temp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".other")); err != nil {
		t.Errorf("a file of somebody else is gone: %v", err)
	}
	if got := list(t, b, ""); !slices.Equal(got, []string{"g/o", "g/r"}) {
		t.Errorf("objects %v", got)
	}
}

// TestCleanTempSparesTheLiving cleans while objects are replaced: no replacement fails, and nothing is left.
func TestCleanTempSparesTheLiving(t *testing.T) {
	dir := t.TempDir()
	b, other := open(t, dir), open(t, dir)
	stop := make(chan struct{})
	var cleaner, writers sync.WaitGroup
	cleaner.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := other.CleanTemp(t.Context(), ""); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for i := range 2 {
		writers.Go(func() {
			for range 200 {
				if err := b.Replace(t.Context(), fmt.Sprintf("g%d/o", i), []byte("new"), drivers.Condition{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	cleaner.Wait()
	if left, err := filepath.Glob(filepath.Join(dir, "*", ".tmp-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

func TestRemovedDirectoriesAreMadeAgain(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	create(t, b, "a/b/c/1")
	if err := os.RemoveAll(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	create(t, b, "a/b/c/2")
	if err := os.RemoveAll(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := b.Replace(t.Context(), "a/b/c/3", nil, drivers.Condition{}); err != nil {
		t.Error(err)
	}
	if got := list(t, b, ""); !slices.Equal(got, []string{"a/b/c/3"}) {
		t.Errorf("objects %v", got)
	}
}

func TestEmptyDirectoriesGo(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	ctx := t.Context()
	create(t, b, "v/1/data/0/x")
	create(t, b, "v/1/root/x")
	for _, s := range []struct{ unlink, gone, stays string }{
		{"v/1/data/0/x", "v/1/data", "v/1/root"},
		{"v/1/root/x", "v", "."},
	} {
		if err := b.Unlink(ctx, s.unlink); err != nil {
			t.Fatal(err)
		}
		if err := b.SyncGroup(ctx, drivers.Group(s.unlink)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, s.gone)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", s.gone, err)
		}
		if _, err := os.Stat(filepath.Join(dir, s.stays)); err != nil {
			t.Error(err)
		}
	}
	create(t, b, "v/1/data/0/y")
}

// TestDirectoriesComeAndGo: creators, removers and lists in several processes do not disturb each other.
func TestDirectoriesComeAndGo(t *testing.T) {
	dir := t.TempDir()
	backends := []*local.Backend{open(t, dir), open(t, dir)}
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 6 {
		b := backends[i%2]
		name := "a/b/" + string(rune('a'+i))
		wg.Go(func() {
			for range 50 {
				o, err := b.Open(ctx, name, drivers.Create)
				if err == nil {
					err = o.Close()
				}
				err = errors.Join(err, b.SyncGroup(ctx, "a/b"), b.Replace(ctx, name, []byte("x"), drivers.Condition{}),
					b.List(ctx, "", func(drivers.Info) error { return nil }), b.Unlink(ctx, name), b.SyncGroup(ctx, "a/b"))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if _, err := os.Stat(filepath.Join(dir, "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestDirectoriesAreMadeByMany(t *testing.T) {
	dir := t.TempDir()
	backends := []*local.Backend{open(t, dir), open(t, dir)}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			o, err := backends[i%2].Open(t.Context(), "d/e/f/"+string(rune('a'+i%26))+strings.Repeat("x", i/26), drivers.Create)
			if err != nil {
				t.Error(err)
				return
			}
			if err := o.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(list(t, backends[0], "d")); n != 32 {
		t.Errorf("%d objects, want 32", n)
	}
}

func TestOpenNeedsADirectory(t *testing.T) {
	if _, err := local.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, drivers.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := local.Open(file); !errors.Is(err, drivers.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestClosedBackendDoesNothing(t *testing.T) {
	b, err := local.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	_, e1 := b.Open(ctx, "o", drivers.Create)
	_, e2 := b.Stat(ctx, "o")
	_, e3 := b.Load(ctx, "o")
	_, e4 := b.Lock(ctx, "o")
	for i, err := range []error{e1, e2, e3, e4, b.Unlink(ctx, "o"), b.SyncGroup(ctx, ""), b.CleanTemp(ctx, ""),
		b.List(ctx, "", nil), b.Replace(ctx, "o", nil, drivers.Condition{}), b.Close()} {
		if !errors.Is(err, drivers.ErrClosed) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestErrorsNameTheObjectAndKeepTheCause(t *testing.T) {
	b := open(t, t.TempDir())
	_, err := b.Open(t.Context(), "g/none", drivers.ReadWrite)
	if !errors.Is(err, os.ErrNotExist) || err.Error() != "open g/none: no such object: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

// TestLockEndsWithTheProcess runs this test's binary again, which takes the lock.
func TestLockEndsWithTheProcess(t *testing.T) {
	if dir := os.Getenv("LOCAL_TEST_LOCK"); dir != "" {
		holdLock(t, dir)
		return
	}
	dir := t.TempDir()
	b := open(t, dir)
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockEndsWithTheProcess$")
	cmd.Env = append(os.Environ(), "LOCAL_TEST_LOCK="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "locked\n" {
		t.Errorf("the other process says %q, %v", line, err)
	}
	_, err = b.Lock(t.Context(), "i/o")
	if !errors.Is(err, drivers.ErrLocked) {
		t.Errorf("got %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	l, err := b.Lock(t.Context(), "i/o")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// holdLock takes the lock, says so and waits until it is killed.
func holdLock(t *testing.T, dir string) {
	b := open(t, dir)
	if _, err := b.Lock(t.Context(), "i/o"); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("locked\n")
	_, _ = os.Stdin.Read(make([]byte, 1)) // ends with the parent
}
