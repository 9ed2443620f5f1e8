package kernel_test

import (
	"bufio"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"skerry/nbd/kernel/kerneltest"
)

// pool is a pool with one volume, disk, and the program that serves it in the bed's network.
type pool struct {
	t       *testing.T
	bed     *kerneltest.Bed
	program string
	server  *exec.Cmd // nil: none
}

func newPool(t *testing.T, bed *kerneltest.Bed, size string) *pool {
	t.Helper()
	p := &pool{t: t, bed: bed, program: bed.Build("./cmd/skerry")}
	p.run("init")
	p.run("create", "-q", "disk", "--size", size)
	t.Cleanup(func() { p.kill() })
	return p
}

func (p *pool) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.program, append([]string{"--pool", filepath.Join(p.bed.Dir, "pool")}, args...)...)
	cmd.Env = append(cmd.Environ(), "HOME="+p.bed.Dir, "XDG_RUNTIME_DIR="+p.bed.Dir)
	return cmd
}

// run runs a command, which must succeed, and returns what it prints.
func (p *pool) run(args ...string) string {
	p.t.Helper()
	cmd := p.command(args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("skerry %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// serve starts the server and waits until clients can connect.
func (p *pool) serve() {
	p.t.Helper()
	cmd := p.command("serve", "disk", "--nbd", "tcp:"+address)
	cmd.Stderr = p.t.Output()
	out, err := cmd.StdoutPipe()
	must(p.t, err)
	p.bed.Do(func() { err = cmd.Start() })
	must(p.t, err)
	p.server = cmd
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		p.t.Fatalf("serve says %q: %v", line, err)
	}
}

// kill kills the server, as a crash would.
func (p *pool) kill() {
	if p.server != nil {
		_ = p.server.Process.Kill() // fails if it is gone
		_ = p.server.Wait()         // its status is the signal's
		p.server = nil
	}
}

// stop ends the server as an administrator does.
func (p *pool) stop() {
	p.t.Helper()
	must(p.t, p.server.Process.Signal(syscall.SIGTERM))
	err := p.server.Wait()
	p.server = nil
	must(p.t, err)
}

// used returns the bytes that the pool takes on its file system.
func (p *pool) used() int64 {
	p.t.Helper()
	out, err := exec.Command("du", "-s", "--block-size=1", filepath.Join(p.bed.Dir, "pool")).Output()
	must(p.t, err)
	n, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	must(p.t, err)
	return n
}

// sum returns the SHA-256 of the volume as export writes it.
func (p *pool) sum() string {
	p.t.Helper()
	export := p.command("export", "-q", "disk", "-")
	sum := exec.Command("sha256sum")
	r, w := io.Pipe()
	export.Stdout, sum.Stdin = w, r
	failed := make(chan error, 1)
	go func() {
		err := export.Run()
		w.CloseWithError(err) // nil is the end of the file
		failed <- err
	}()
	out, err := sum.Output()
	r.Close()
	must(p.t, <-failed)
	must(p.t, err)
	return strings.Fields(string(out))[0]
}

// sound checks the pool.
func (p *pool) sound() {
	p.t.Helper()
	if out := p.run("check"); strings.Contains(out, "damage") {
		p.t.Errorf("check says\n%s", out)
	}
}
