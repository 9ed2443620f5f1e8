package nbd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"skerry/nbd/internal/outbox"
)

// conn is one connection. Its goroutine reads requests; those who complete them send
// the replies through box.
type conn struct {
	srv    *Server
	nc     net.Conn
	cutCtx context.CancelFunc
	log    *slog.Logger
	box    *outbox.Box[*request]

	// Set by the handshake, then constant.
	dev        Device
	release    func()
	structured bool
	meta       bool // base:allocation was selected

	// Of the reading goroutine.
	in      input
	batch   []*request // replies to what ended inline
	batched int        // bytes of their data
	share   int        // replies that fill the batch
	taken   int        // requests since the input was last read
	copies  int        // payloads to copy before the input buffer is tried again

	stopping atomic.Bool
	workers  sync.WaitGroup

	mu      sync.Mutex
	change  sync.Cond // a request was recycled
	free    *request
	made    int   // requests that exist
	out     int   // of them: not in free
	bytes   int64 // of the buffers in use
	local   int64 // of them: not counted in Server.budget
	running int   // goroutines for BLOCK_STATUS
	stalled bool  // the reading goroutine waits for room
	waiting []*request
	warned  time.Time // when a failure was last logged as a warning
}

func newConn(s *Server, nc net.Conn, cut context.CancelFunc) *conn {
	c := &conn{
		srv:    s,
		nc:     nc,
		cutCtx: cut,
		log:    s.opts.Logger.With("client", nc.RemoteAddr().String()),
		batch:  make([]*request, 0, batchReplies),
	}
	c.change.L = &c.mu
	return c
}

// run serves the connection to its end. ctx ends when the connection is to be cut.
func (c *conn) run(ctx context.Context) {
	defer c.cutCtx()
	defer c.nc.Close()
	defer context.AfterFunc(ctx, func() { c.nc.Close() })()
	if u, ok := c.nc.(*net.UnixConn); ok {
		setSendBuffer(u)
	}
	c.in.open(c.nc, &c.srv.inputs, c.pause)
	defer c.in.close()

	err := c.handshake(ctx)
	if c.dev != nil {
		defer c.release()
	}
	if err == nil && c.dev != nil {
		err = c.transmit(ctx)
	}
	switch {
	case err == nil, errors.Is(err, io.EOF), ctx.Err() != nil,
		c.stopping.Load() && errors.Is(err, os.ErrDeadlineExceeded):
		c.log.Debug("connection ended")
	default:
		c.log.Info("connection broken", "err", err)
	}
}

// transmit answers requests until the client or the server ends the connection. It returns when
// no request is outstanding.
func (c *conn) transmit(ctx context.Context) error {
	c.box = outbox.New(c.nc, c.render, c.onSent)
	if err := c.nc.SetDeadline(time.Time{}); err != nil {
		c.box.Close()
		return err
	}
	c.mu.Lock()
	c.stopLocked()
	c.mu.Unlock()

	err := c.serve(ctx)
	c.flush() // and whatever ended it, what came before is answered, if the client still reads
	c.mu.Lock()
	for c.out > 0 {
		c.change.Wait()
	}
	c.mu.Unlock()
	c.workers.Wait()
	c.box.Close()
	return err
}

// stop makes the connection refuse new requests and end when none is outstanding.
func (c *conn) stop() {
	c.stopping.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocked()
}

func (c *conn) stopLocked() {
	if c.stopping.Load() && c.out == 0 {
		c.nc.SetReadDeadline(time.Unix(1, 0)) // fails only if already closed
	}
}

// cut breaks the connection.
func (c *conn) cut() { c.cutCtx() }

// flush sends the batch.
func (c *conn) flush() {
	if len(c.batch) > 0 {
		c.box.PutAll(c.batch, true)
		clear(c.batch)
		c.batch, c.batched = c.batch[:0], 0
	}
}

// pause sends the batch before the input is read, which may block. A client that keeps a few requests in flight would get all replies at once,
// and send all of the next requests at once: it and the server would only take turns. So the replies to as many requests as came this time
// are sent in two parts next time.
func (c *conn) pause() {
	c.flush()
	if c.share = batchReplies; c.taken <= shareRequests {
		c.share = max(c.taken/2, shareReplies)
	}
	c.taken = 0
}

// setSendBuffer asks for a larger socket buffer, beyond the system's bound if allowed. A smaller one is
// only slower, so errors do not matter.
func setSendBuffer(c syscall.Conn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		if syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUFFORCE, sendBuffer) != nil {
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBuffer)
		}
	})
}
