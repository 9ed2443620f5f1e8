package attach

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"skerry/cmd/internal/failure"
	"skerry/cmd/internal/output"
)

// ServerError is why a server of the keeper's own did not begin.
type ServerError struct {
	output.Failure
	is error
}

// Error returns what the server said.
func (e *ServerError) Error() string { return e.Failure.Error }

// Unwrap returns an error of the same exit code.
func (e *ServerError) Unwrap() error { return e.is }

// child is a server that this process started.
type child struct {
	process Process
	ended   chan struct{} // closed when it has ended
}

// startServer starts the server of a record and returns when clients can connect, and the process when it was started. The server
// outlives this process.
func (h *Host) startServer(ctx context.Context, r Record, started func(Process)) (*child, error) {
	cmd, err := h.Serve(r.Target, r.ReadOnly, h.files(r.key()).socket)
	if err != nil {
		return nil, err
	}
	log, err := h.openLog(r.key())
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the server has its own
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	// A session of its own: signals that end the keeper, or come from its terminal, are not for the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	c := &child{ended: make(chan struct{})}
	if c.process, err = processOf(cmd.Process.Pid); err == nil {
		started(c.process)
	}
	ready := make(chan bool, 1)
	var outcome error
	go func() { // ends with the server, or with this process
		_, err := bufio.NewReader(stdout).ReadString('\n')
		ready <- err == nil
		outcome = cmd.Wait()
		close(c.ended)
	}()
	if err != nil {
		return nil, errors.Join(err, c.stop(context.WithoutCancel(ctx), unix.SIGTERM))
	}
	limited, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	select {
	case ok := <-ready:
		if ok {
			return c, nil
		}
		<-c.ended
		return nil, lastWords(log.Name(), from, outcome)
	case <-limited.Done():
		return nil, errors.Join(fmt.Errorf("the server does not begin: %w", limited.Err()), c.stop(context.WithoutCancel(ctx), unix.SIGTERM))
	}
}

// stop ends the server and waits for it.
func (c *child) stop(ctx context.Context, sig unix.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, serverTime)
	defer cancel()
	return c.process.end(ctx, sig)
}

// maxLog is the size from which on a log is begun anew, in bytes; oldLog is what the name of the one before ends with.
const (
	maxLog = 1 << 20
	oldLog = ".old"
)

// openLog opens the log of a device for appending.
func (h *Host) openLog(key string) (*os.File, error) {
	path := h.files(key).log
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+oldLog); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
}

// lastWords returns why a server ended, by what it wrote to its log from an offset on.
func lastWords(path string, from int64, outcome error) error {
	unknown := fmt.Errorf("the server ended before it was ready (%v); see %s", outcome, path)
	f, err := os.Open(path)
	if err != nil {
		return unknown
	}
	defer func() { _ = f.Close() }() // only read from
	b, err := io.ReadAll(io.NewSectionReader(f, from, maxLog))
	if err != nil {
		return unknown
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	e := &ServerError{}
	if json.Unmarshal(lines[len(lines)-1], &e.Failure) != nil || e.Failure.Error == "" {
		return unknown
	}
	e.is = failure.ByExit(e.Exit)
	return e
}
