package main

import (
	"bufio"
	"os"
	"strings"
	"testing"
	"time"
)

// guestGroup is the group that QEMU runs as under the libvirtd of libvirtd.sh.
const guestGroup = "64055"

// libvirtd is a libvirt daemon of the test's own.
type libvirtd struct {
	w   *world
	uri string
}

// startLibvirtd starts a libvirtd that ends with the test, with all its guests.
func (w *world) startLibvirtd() *libvirtd {
	w.t.Helper()
	cmd := w.foreign(vmScript(w.t, "libvirtd.sh"), w.path("libvirt"))
	cmd.Stderr = w.t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := stdin.Close(); err != nil {
			w.t.Error(err)
		}
		_ = cmd.Wait() // its processes are killed
	})
	uri, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		w.t.Fatalf("libvirtd is not ready: %v", err)
	}
	return &libvirtd{w, strings.TrimSpace(uri)}
}

func (l *libvirtd) virsh(args ...string) string {
	l.w.t.Helper()
	return strings.TrimSpace(l.w.tool("virsh", append([]string{"-q", "-c", l.uri}, args...)...))
}

// until polls until a condition holds: a guest says something on its serial port, or libvirt of it, without a notice.
func (l *libvirtd) until(what string, holds func() bool) {
	l.w.t.Helper()
	const step = 250 * time.Millisecond
	for deadline := time.Now().Add(bootTime * time.Second); !holds(); time.Sleep(step) {
		if time.Now().After(deadline) {
			l.w.t.Fatalf("not within %d s: %s; domains:\n%s\nThe guest said\n%s", bootTime, what, l.virsh("list", "--all"), l.w.said("guest"))
		}
	}
}

// said returns what the guest of a domain has said on its serial port.
func (w *world) said(domain string) string {
	w.t.Helper()
	b, err := os.ReadFile(w.path(domain + ".log"))
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	return string(b)
}

func TestInteropLibvirtGuestOutlivesItsServer(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.limit = 3 * bootTime * time.Second
	if err := os.Chmod(w.dir, 0o711); err != nil { // QEMU is another user
		t.Fatal(err)
	}
	w.guestVolume("vm1")
	s := w.serve(1, "vm1", "--nbd", "unix:s", "--group", guestGroup)
	l := w.startLibvirtd()
	l.virsh("create", w.domain("guest", w.ok("info", "vm1", "--libvirt")))
	// A list also works once the guest is gone.
	paused := func() bool { return l.virsh("list", "--state-paused", "--name") == "guest" }

	// The server is killed while the guest writes, and is missed for so long that the guest stops.
	l.until("the guest writes", func() bool { return strings.Contains(w.said("guest"), "OS-SYNC") })
	s.kill()
	l.until("the guest stops", paused)
	if why := l.virsh("domstate", "guest", "--reason"); why != "paused (I/O error)" {
		t.Errorf("the guest is %s", why)
	}
	s = s.again()
	l.until("the guest powers off", func() bool {
		switch {
		case l.virsh("list", "--all", "--name") == "":
			return true
		case paused():
			// Requests that are repeated before QEMU is connected fail once more.
			l.virsh("resume", "guest")
		}
		return false
	})
	m := guestOK.FindStringSubmatch(w.said("guest"))
	if m == nil || m[1] != "1" {
		t.Fatalf("the guest said\n%s", w.said("guest"))
	}
	s.stop()
	w.undamaged()
	w.guestFiles("vm1", m[2:])
}
