package main

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"skerry/cmd/internal/process"
	"skerry/nbd/client"
)

// usePlain makes a world use the program without the race detector, whose memory is another matter.
func (w *world) usePlain() {
	w.t.Helper()
	w.program = w.path("plain")
	if out, err := exec.Command("go", "build", "-o", w.program, ".").CombinedOutput(); err != nil {
		w.t.Fatalf("%s%v", out, err)
	}
}

// memory returns a line of /proc/PID/status in bytes.
func (s *server) memory(line string) int64 {
	s.w.t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/status")
	if err != nil {
		s.w.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), line+":")
	number, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		s.w.t.Fatalf("%s in %s", line, status)
	}
	return n << 10
}

// Far more large requests wait than the bounds of docs/processes.md let in: 16 connections want 64 MiB each, together twice what is let in.
func TestMemoryOfServeIsBounded(t *testing.T) {
	const (
		volumeSize = 64 * mib
		request    = 32 * mib
		conns      = 16
		depth      = 2
		bound      = process.MemoryLimit + 64*mib // the limit of the runtime, and the program itself
	)
	w := newPool(t)
	w.usePlain()
	w.ok("create", "vm1", "--size", "64M")
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	idle := s.memory("VmRSS")
	g, ctx := errgroup.WithContext(t.Context())
	for i := range conns {
		g.Go(func() error { return hammer(ctx, s, request, volumeSize, depth, i) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	peak := s.memory("VmHWM")
	t.Logf("memory: %d MiB idle, %d MiB at most", idle/mib, peak/mib)
	if peak > bound {
		t.Errorf("serve took %d MiB, more than %d", peak/mib, bound/mib)
	}
	s.stop()
}

// hammer writes and reads as many large requests at a time as depth says, on a connection of its own.
func hammer(ctx context.Context, s *server, request, size int64, depth, seed int) error {
	network, where := endpoint(s.w.t, s.uris[0])
	c, err := client.Dial(ctx, network, where, client.Options{Export: "vm1", Structured: true})
	if err != nil {
		return err
	}
	defer c.Close()
	data := noise(int(request), uint64(seed))
	g := new(errgroup.Group)
	for i := range depth {
		g.Go(func() error {
			off := int64(i) % (size / request) * request
			if err := c.Write(data, off, 0); err != nil {
				return err
			}
			p := make([]byte, request)
			for range 4 {
				if err := c.Read(p, off); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
