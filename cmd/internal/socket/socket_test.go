package socket

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func listen(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // closed before by some tests
	return l
}

func TestSocketIsTheOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listen(t, path)
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket with 0600", st.Mode())
	}
}

func TestLiveSocketIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listen(t, path)
	if _, err := Listen(t.Context(), path); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first does not listen any more: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := listen(t, path)
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("no stale socket: %v", err)
	}
	listen(t, path)
}

func TestCloseRemovesTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := listen(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestOtherFilesStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), path); err == nil {
		t.Fatal("listens in place of a file")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestLongPathIsToldPlainly(t *testing.T) {
	path := "/" + strings.Repeat("x", MaxPath)
	if _, err := Listen(t.Context(), path); err == nil || !strings.Contains(err.Error(), "at most 107") {
		t.Fatal(err)
	}
}

// TestOneOfManyReplacesAStaleSocket: many listen at once where a dead process left its socket; one wins, and clients reach it.
func TestOneOfManyReplacesAStaleSocket(t *testing.T) {
	for range 50 {
		path := filepath.Join(t.TempDir(), "s")
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		if err := dead.Close(); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var won []*net.UnixListener
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				l, err := Listen(t.Context(), path)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, l)
				} else if !errors.Is(err, ErrInUse) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, l := range won {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		if len(won) != 1 {
			t.Fatalf("%d listen", len(won))
		}
	}
}
