package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"time"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/volume"
)

const (
	startTime = 30 * time.Second // for a server to listen
	stopTime  = time.Minute      // for a server to end; it may have to write much
)

// environment is that of all programs that are run: nothing of the user's own configuration counts.
func (b *bed) environment() []string {
	return append(os.Environ(), "SKERRY_POOL="+b.path("pool"), "XDG_RUNTIME_DIR="+b.dir, "XDG_CONFIG_HOME="+b.dir, "HOME="+b.dir)
}

// run runs a program to its end and returns its output.
func (b *bed) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = b.environment()
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", c, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out, nil
}

// server is a running server, or a plain file.
type server struct {
	uri     string
	path    string // the file that it shows instead of an export
	control string // skerry's control socket
	file    *os.File
	after   func(context.Context) error // once it has ended

	cmd   *exec.Cmd
	ended chan error
}

// start starts a server and waits until it listens.
func (b *bed) start(ctx context.Context, socket, export, name string, args ...string) (*server, error) {
	s, err := b.launch(ctx, func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close() // nothing was said on it
		}
		return err == nil
	}, name, args...)
	if err == nil {
		s.uri = "nbd+unix:///" + url.PathEscape(export) + "?socket=" + url.QueryEscape(socket)
	}
	return s, err
}

// launch starts a server and waits until it is ready.
func (b *bed) launch(ctx context.Context, ready func() bool, name string, args ...string) (*server, error) {
	c := exec.Command(name, args...)
	c.Env = b.environment()
	var errs bytes.Buffer
	c.Stderr = &errs
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this program, which then stops them
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s := &server{cmd: c, ended: make(chan error, 1)}
	go func() { s.ended <- c.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for !ready() {
		select {
		case end := <-s.ended:
			return nil, fmt.Errorf("%s ended at once: %w: %s", c, end, bytes.TrimSpace(errs.Bytes()))
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s is not ready: %w", c, ctx.Err()), s.stop(context.WithoutCancel(ctx)))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return s, nil
}

// stop ends the server and removes what was only for it.
func (s *server) stop(ctx context.Context) (err error) {
	if s.file != nil {
		err = s.file.Close()
	}
	if s.cmd == nil {
		return err
	}
	// One that has ended by itself says so below.
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	limit := time.NewTimer(stopTime)
	defer limit.Stop()
	var end error
	select {
	case end = <-s.ended:
	case <-limit.C:
		_ = s.cmd.Process.Kill()
		end = fmt.Errorf("killed after %v: %w", stopTime, <-s.ended)
	}
	if end != nil {
		err = errors.Join(err, fmt.Errorf("%s: %w", s.cmd, end))
	}
	if s.after != nil {
		err = errors.Join(err, s.after(ctx))
	}
	return err
}

// dial connects to the server.
func (s *server) dial(ctx context.Context) (*client.Client, error) {
	return client.DialURI(ctx, s.uri, client.Options{TryStructured: true})
}

// flush makes the server write what it holds back.
func (s *server) flush(ctx context.Context) error {
	if s.file != nil {
		return s.file.Sync()
	}
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	return errors.Join(c.Flush(), c.Close())
}

// null is a device that does nothing.
type null int64

func (null) Submit(r *volume.Request) bool {
	r.Err = nil
	return true
}

func (n null) Size() int64 { return int64(n) }

func (null) ReadOnly() bool { return false }

func (null) Extents(_ context.Context, off, n int64, fn func(volume.Extent) bool) error {
	fn(volume.Extent{Offset: off, Length: n})
	return nil
}

// nulls is the one export of the server without storage.
type nulls struct{ null }

func (n nulls) Open(context.Context, string) (nbd.Device, func(), error) {
	return n.null, func() {}, nil
}

func (n nulls) Describe(context.Context, string) (nbd.Info, error) {
	return nbd.Info{Size: n.Size()}, nil
}

func (nulls) List(context.Context) ([]string, error) { return []string{""}, nil }

// serveNullUntil is the program that serveNull starts.
func serveNullUntil(ctx context.Context, socket string, size int64) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := nbd.NewServer(nulls{null(size)}, nbd.Options{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.WithoutCancel(ctx), l) }()
	<-ctx.Done()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return errors.Join(s.Shutdown(closing), <-served)
}
