package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skerry/cmd/internal/config"
	"skerry/drivers"
)

// systemEnv is the environment of a user who is not root, at home in the world's directory.
func systemEnv(w *world) config.Environment {
	return config.Environment{System: w.path("etc"), Getenv: func(k string) string {
		switch k {
		case "HOME", "XDG_RUNTIME_DIR":
			return w.dir
		}
		return ""
	}}
}

// inProcess runs a command of a user without configuration, in this process.
func inProcess(t *testing.T, w *world, args ...string) result {
	t.Helper()
	return inProcessWith(t, t.Context(), w, nil, args...)
}

// inProcessWith is inProcess under a context, with storage that is wrapped.
func inProcessWith(t *testing.T, ctx context.Context, w *world, wrap func(drivers.Backend) drivers.Backend, args ...string) result {
	t.Helper()
	var files [2]*os.File
	for i := range files {
		f, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		files[i] = f
	}
	a := newApp(os.Stdin, files[0], files[1], systemEnv(w))
	a.wrap = wrap
	code := a.run(ctx, args)
	var text [2]string
	for i, f := range files {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		text[i] = string(b)
	}
	return result{code, text[0], text[1]}
}

func TestDefaultPoolIsMadeAtFirstUse(t *testing.T) {
	w := newWorld(t)
	first := inProcess(t, w, "create", "vm1", "--size", "1M")
	want := "made the default pool file://" + w.path(".local/share/skerry")
	if first.code != 0 || strings.Count(first.stderr, want) != 1 {
		t.Fatalf("%+v, want %q", first, want)
	}
	second := inProcess(t, w, "ls")
	if second.code != 0 || second.stderr != "" || !strings.Contains(second.stdout, "vm1") {
		t.Fatalf("%+v", second)
	}
	st, err := os.Stat(w.path(".local/share/skerry"))
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Fatalf("%v, %v", st, err)
	}
}

func TestOtherPoolsAreNotMadeByTheWay(t *testing.T) {
	w := newWorld(t)
	if r := inProcess(t, w, "ls", "--pool", w.pool); r.code != 10 {
		t.Fatalf("%+v", r)
	}
	if _, err := os.Stat(w.pool); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.pool, 0o700); err != nil {
		t.Fatal(err)
	}
	if r := inProcess(t, w, "ls", "--pool", w.pool); r.code != 10 {
		t.Fatalf("an empty directory: %+v", r)
	}
}
