package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// passedSockets makes the test program print the addresses of the sockets that it was passed.
const passedSockets = "SKERRY_TEST_PASSED"

func TestMain(m *testing.M) {
	if name, ok := os.LookupEnv(passedSockets); ok {
		printPassed(name)
		return
	}
	goleak.VerifyTestMain(m)
}

func printPassed(name string) {
	passed := Passed()
	s := TakeSockets()
	all, err := s.Listen(name)
	println(passed, s.Len(), len(all), errors.Is(err, ErrNoSocket), Passed())
	for _, l := range all {
		println(l.Addr().String())
	}
}

// systemd is the other end of sd_notify.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
}

func newSystemd(t *testing.T) systemd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return systemd{t, c}
}

// next returns the first line of the next message.
func (s systemd) next() string {
	s.t.Helper()
	b := make([]byte, 4096)
	if err := s.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	n, err := s.conn.Read(b)
	if err != nil {
		s.t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	return line
}

func (s systemd) wants(lines ...string) {
	s.t.Helper()
	for _, want := range lines {
		if got := s.next(); got != want {
			s.t.Fatalf("systemd was told %q, want %q", got, want)
		}
	}
}

func answers(context.Context) error { return nil }

func TestReadyAndStoppingAreTold(t *testing.T) {
	d := newSystemd(t)
	u := Start(t.Context(), answers, slog.New(slog.DiscardHandler))
	u.Ready("serving vm1")
	u.Stop()
	d.wants("READY=1", "STOPPING=1")
}

func TestTheEndOfTheContextIsToldAtOnce(t *testing.T) {
	d := newSystemd(t)
	ctx, end := context.WithCancel(t.Context())
	u := Start(ctx, answers, slog.New(slog.DiscardHandler))
	end()
	d.wants("STOPPING=1")
	u.Ready("too late")
	u.Stop()
	u = Start(t.Context(), answers, slog.New(slog.DiscardHandler))
	u.Ready("")
	d.wants("READY=1") // nothing in between
	u.Stop()
}

func TestTheWatchdogHearsOfAnswers(t *testing.T) {
	d := newSystemd(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	refuses := func(context.Context) error { return errors.New("an answer, too") }
	u := Start(t.Context(), refuses, slog.New(slog.DiscardHandler))
	d.wants("WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1")
	u.Stop()
}

func TestTheWatchdogHearsNothingWithoutAnswers(t *testing.T) {
	d := newSystemd(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	asked := make(chan struct{}, 3)
	hangs := func(ctx context.Context) error {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}
	u := Start(t.Context(), hangs, slog.New(slog.DiscardHandler))
	for range 3 {
		<-asked
	}
	u.Stop()
	d.wants("STOPPING=1")
}

func TestTheWatchdogOfAnotherProcessIsLeftAlone(t *testing.T) {
	d := newSystemd(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getppid()))
	u := Start(t.Context(), func(context.Context) error { t.Error("asked"); return nil }, slog.New(slog.DiscardHandler))
	u.Ready("")
	u.Stop()
	d.wants("READY=1", "STOPPING=1")
}

// take starts the test program with sockets as systemd passes them, and returns what it prints.
func take(t *testing.T, name, names string, pid string, files ...*os.File) []string {
	t.Helper()
	// The process id has to be in the environment of the process itself.
	c := exec.Command("sh", "-c", "export LISTEN_PID="+pid+"; exec "+os.Args[0])
	c.Env = append(os.Environ(), passedSockets+"="+name, "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+names)
	c.ExtraFiles = files
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestSocketsOfSystemd(t *testing.T) {
	var files []*os.File
	var addresses []string
	for _, network := range []string{"unix", "tcp"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "s")
		}
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, addresses = append(files, f), append(addresses, l.Addr().String())
	}
	for _, x := range []struct {
		name, names, pid string
		want             []string
	}{
		{"", "a:b", "$$", append([]string{"true 2 2 false false"}, addresses...)},
		{"", "", "$$", append([]string{"true 2 2 false false"}, addresses...)},
		{"b", "a:b", "$$", []string{"true 2 1 false false", addresses[1]}},
		{"c", "a:b", "$$", []string{"true 2 0 true false"}},
		{"", "a:b", "1", []string{"false 0 0 true false"}},
	} {
		if got := take(t, x.name, x.names, x.pid, files...); strings.Join(got, " ") != strings.Join(x.want, " ") {
			t.Errorf("%+v: %q", x, got)
		}
	}
	if _, err := os.Lstat(addresses[0]); err != nil {
		t.Errorf("the socket is systemd's, and went with the process: %v", err)
	}
}

func TestSocketsThatTakeNoConnectionsAreRefused(t *testing.T) {
	for name, kind := range map[string]int{"connected": unix.SOCK_STREAM, "datagram": unix.SOCK_DGRAM} {
		fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f, other := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
		if got := take(t, "", "", "$$", f); strings.Join(got, " ") != "true 1 0 false false" {
			t.Errorf("%s: %q", name, got)
		}
		if err := errors.Join(f.Close(), other.Close()); err != nil {
			t.Error(err)
		}
	}
}
