package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"skerry/cmd/internal/socket"
)

const (
	suffix       = ".sock"
	randomDigits = 8
	clientsTime  = 2 * time.Second // for a call to one of many, which may hang
)

// Directory returns where the control sockets of this user lie.
func Directory(getenv func(string) string) string {
	if d := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		return filepath.Join(d, "skerry")
	}
	if os.Geteuid() == 0 {
		return "/run/skerry"
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("skerry-%d", os.Geteuid()))
}

// Listen makes dir if it is missing, removes the sockets of dead processes from it, and listens on a new socket there.
func Listen(ctx context.Context, dir string) (*net.UnixListener, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || st.Mode().Perm()&0o077 != 0 || !ok || int(owner.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("control socket: %s must be a directory of this user with mode 0700", dir)
	}
	if err := sweep(dir); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	name := strconv.Itoa(os.Getpid()) + "-" + rand.Text()[:randomDigits] + suffix
	return socket.Listen(ctx, filepath.Join(dir, name))
}

// sweep removes the sockets of processes that are no more.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, _, ok := strings.Cut(strings.TrimSuffix(e.Name(), suffix), "-")
		n, err := strconv.Atoi(pid)
		if !ok || err != nil || n <= 0 || e.Type() != fs.ModeSocket {
			continue
		}
		if err := syscall.Kill(n, 0); !errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Clients returns clients of all processes whose control sockets lie in dir. Some may have ended.
func Clients(dir string) ([]*Client, error) {
	sockets, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return nil, err
	}
	var all []*Client
	for _, s := range sockets {
		all = append(all, NewClient(s, clientsTime))
	}
	return all, nil
}
