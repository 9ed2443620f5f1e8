package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a process that is not mistaken for a later one with the same number.
type Process struct {
	PID  int    `json:"pid"`
	Life uint64 `json:"life"` // when it began, in the kernel's ticks
}

// processOf returns the process that has a number now.
func processOf(pid int) (Process, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, err
	}
	// The second field is the program's name in parentheses, which may have any bytes (proc(5)).
	_, rest, ok := bytes.Cut(b[max(0, bytes.LastIndexByte(b, ')')):], []byte(") "))
	fields := bytes.Fields(rest)
	const state, began = 0, 19 // of what follows the name
	if !ok || len(fields) <= began {
		return Process{}, fmt.Errorf("process %d: cannot read its state", pid)
	}
	if fields[state][0] == 'Z' || fields[state][0] == 'X' {
		return Process{}, fmt.Errorf("process %d has ended: %w", pid, os.ErrProcessDone)
	}
	life, err := strconv.ParseUint(string(fields[began]), 10, 64)
	return Process{PID: pid, Life: life}, err
}

// self returns this process.
func self() (Process, error) { return processOf(os.Getpid()) }

// alive reports whether the process has not ended.
func (p Process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	now, err := processOf(p.PID)
	return err == nil && now == p
}

// open returns a descriptor that stands for the process for ever, -1 if it has ended.
func (p Process) open() (int, error) {
	if p.PID <= 0 {
		return -1, nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("process %d: %w", p.PID, err)
	}
	if !p.alive() { // another one by now
		return -1, unix.Close(fd)
	}
	return fd, nil
}

// end sends a signal to the process and waits until it has ended or ctx does.
func (p Process) end(ctx context.Context, sig unix.Signal) error {
	fd, err := p.open()
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end process %d: %w", p.PID, err)
	}
	const pause = 100 * time.Millisecond // until ctx is looked at again
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(pause/time.Millisecond))
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		case err == nil && n > 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("process %d has not ended: %w", p.PID, ctx.Err())
		}
	}
}

// peerOf returns the process that listens where a connection leads to; the zero Process if that is not known.
func peerOf(c net.Conn) Process {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return Process{}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Process{}
	}
	pid := 0
	if err := raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	}); err != nil || pid == 0 {
		return Process{}
	}
	p, err := processOf(pid)
	if err != nil {
		return Process{}
	}
	return p
}
