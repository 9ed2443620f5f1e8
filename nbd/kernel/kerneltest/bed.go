package kerneltest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Host is the host's address in the network of a bed.
const Host = "10.9.0.1"

// Bed is a network of its own for one guest at a time and its servers.
type Bed struct {
	// Dir is the directory that host and guest share.
	Dir string

	t  testing.TB
	ns *os.File // the network namespace
}

// New makes a bed that lasts as long as the test. It needs root.
func New(t testing.TB) *Bed {
	t.Helper()
	b := &Bed{t: t, Dir: shared(t)}
	made := make(chan error)
	go func() {
		// The thread is never unlocked, so it ends with the goroutine, and only the file holds the namespace.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			b.ns, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatalf("make a network namespace, which needs root: %v", err)
	}
	t.Cleanup(func() { b.ns.Close() })
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"tuntap", "add", "tap0", "mode", "tap"},
		{"addr", "add", Host + "/24", "dev", "tap0"},
		{"link", "set", "tap0", "up"},
	} {
		var out []byte
		var err error
		b.Do(func() { out, err = exec.Command("ip", args...).CombinedOutput() })
		if err != nil {
			t.Fatalf("ip %s (scripts/deps.sh uml installs it): %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return b
}

// shared makes a directory with a short name: sockets lie in it, too.
func shared(t testing.TB) string {
	dir, err := os.MkdirTemp("", "uml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	dir, err = filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Do runs fn in the bed's network: what fn listens to, and what the processes listen to that it starts, is there. Connections that fn
// makes are there, too, but not those of goroutines that it starts.
func (b *Bed) Do(fn func()) {
	b.t.Helper()
	var err error
	whole := false
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // for good, as in New
		if err = unix.Setns(int(b.ns.Fd()), unix.CLONE_NEWNET); err == nil {
			fn()
			whole = true
		}
	}()
	<-ended
	if err != nil {
		b.t.Fatalf("enter the network namespace: %v", err)
	}
	if !whole { // fn ended its goroutine, by FailNow for example
		b.t.FailNow()
	}
}

// Listen listens on the host's address. Whoever serves closes the listener.
func (b *Bed) Listen(port int) net.Listener {
	b.t.Helper()
	var l net.Listener
	var err error
	b.Do(func() { l, err = net.Listen("tcp", net.JoinHostPort(Host, fmt.Sprint(port))) })
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

// Build builds a package of the project for the guest and returns the program's path.
func (b *Bed) Build(pkg string) string {
	b.t.Helper()
	path := filepath.Join(b.Dir, "bin", filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Dir = root(b.t)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// root returns the top level of the project.
func root(t testing.TB) string {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		t.Fatalf("no path to the project's source: %q; -trimpath hides it", file)
	}
	return filepath.Join(filepath.Dir(file), "../../..")
}
