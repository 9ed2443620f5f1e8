package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skerry/nbd/client"
)

// notices receives what a process tells systemd.
func (w *world) notices() *net.UnixConn {
	w.t.Helper()
	path := w.path("notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	w.env = append(w.env, "NOTIFY_SOCKET="+path)
	return c
}

func (w *world) notice(c *net.UnixConn) string {
	w.t.Helper()
	b := make([]byte, 4096)
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		w.t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b[:n])
}

func TestServeTellsSystemd(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(mib, 1))
	n := w.notices()
	w.env = append(w.env, "WATCHDOG_USEC=60000000")
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	told := []string{w.notice(n), w.notice(n)} // the storage answers while the leases are taken
	if told[0] != "WATCHDOG=1" {
		told[0], told[1] = told[1], told[0]
	}
	if told[0] != "WATCHDOG=1" || told[1] != "READY=1\nSTATUS=serving vm1" {
		t.Errorf("told %q", told)
	}
	c := w.dial(s, "vm1")
	c.has(noise(mib, 1), 0)
	c.close()
	s.stop()
	if got := w.notice(n); !strings.HasPrefix(got, "STOPPING=1\n") {
		t.Errorf("told %q", got)
	}
}

// Systemd's sockets outlive the server: a client that connects while there is none is served by the next.
func TestServeOnSocketsOfSystemd(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(mib, 1))
	l, err := net.Listen("unix", w.path("s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start := func(args ...string) *server {
		s := &server{w: w}
		s.cmd = w.command("-c", `export LISTEN_PID=$$; exec "$0" "$@"`, w.program, "serve", "vm1")
		s.cmd.Path, s.cmd.Args = "/bin/sh", append(append([]string{"sh"}, s.cmd.Args[1:]...), args...)
		s.cmd.Env, s.cmd.ExtraFiles, s.cmd.Stderr = append(s.cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=nbd"), []*os.File{f}, &s.stderr
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if s.cmd.ProcessState == nil {
				_ = s.cmd.Process.Kill() // the test has failed already
				_ = s.cmd.Wait()
			}
		})
		return s
	}
	for i, args := range [][]string{nil, {"--nbd", "systemd:"}, {"--nbd", "systemd:nbd"}} {
		early, err := net.Dial("unix", w.path("s")) // before there is a server
		if err != nil {
			t.Fatal(err)
		}
		s := start(args...)
		n, err := client.New(t.Context(), early, client.Options{Export: "vm1"})
		if err != nil {
			t.Fatal(err)
		}
		c := conn{w, n}
		c.write([]byte{byte(i)}, 0)
		c.has([]byte{byte(i)}, 0)
		if i%2 == 0 {
			s.kill()
			continue
		}
		c.close()
		s.stop()
	}
	s := start("--nbd", "systemd:other")
	if err := s.cmd.Wait(); err == nil || !strings.Contains(s.stderr.String(), "other") {
		t.Errorf("%v: %s", err, s.stderr.String())
	}
	if _, err := os.Lstat(w.path("s")); err != nil {
		t.Errorf("a server removed systemd's socket: %v", err)
	}
}

func TestServeWithoutTheCapabilityWarnsOnce(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(mib, 1))
	if os.Geteuid() == 0 {
		shell := w.path("powerless")
		script := "#!/bin/sh\nexec setpriv --bounding-set=-sys_resource " + w.program + ` "$@"` + "\n"
		if err := os.WriteFile(shell, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		w.program = shell
	}
	s := w.serve(1, "vm1", "-v", "--nbd", "unix:s")
	c := w.dial(s, "vm1")
	c.has(noise(mib, 1), 0)
	c.close()
	s.stop()
	if n := strings.Count(s.stderr.String(), "CAP_SYS_RESOURCE"); n != 1 {
		t.Errorf("%d warnings: %s", n, s.stderr.String())
	}
}

func TestServeLocksItsMemory(t *testing.T) {
	w := newPool(t)
	w.usePlain()
	w.put("vm1", noise(mib, 1))
	s := w.serve(1, "vm1", "--mlock", "--nbd", "unix:s")
	if n := s.memory("VmLck"); n == 0 {
		t.Error("nothing is locked")
	}
	if n := s.memory("VmRSS"); n > 64*mib {
		t.Errorf("%d MiB are resident: more than what is in use was locked", n/mib)
	}
	s.stop()
	plain := w.program
	shell := filepath.Join(w.dir, "limited")
	script := "#!/bin/sh\nulimit -l 65536; exec setpriv --bounding-set=-ipc_lock " + plain + ` "$@"` + "\n"
	if err := os.WriteFile(shell, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	w.program = shell
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Fatal("setpriv is missing: run scripts/deps.sh clients")
	}
	w.fails(1, "lock memory CAP_IPC_LOCK LimitMEMLOCK without --mlock", "serve", "vm1", "--mlock", "--nbd", "unix:s")
}
