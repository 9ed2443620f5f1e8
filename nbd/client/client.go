package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"skerry/nbd/internal/outbox"
	"skerry/nbd/internal/proto"
)

// closeTimeout bounds the time that Close tries to send what waits.
const closeTimeout = 2 * time.Second

// Options say what to negotiate.
type Options struct {
	Export string
	// Structured asks for structured replies; so do MetaContexts.
	Structured bool
	// TryStructured asks for structured replies, and does without if the server has none.
	TryStructured bool
	// MetaContexts are the queries to select metadata contexts with.
	MetaContexts []string
	// ExportName uses the old option EXPORT_NAME instead of GO.
	ExportName bool
}

// Client is a connection on which requests are made. Its methods may be called concurrently.
type Client struct {
	// Export is what the server said when the connection was made.
	Export Export
	// Contexts are the selected metadata contexts.
	Contexts []Context

	conn       net.Conn
	structured bool
	box        *outbox.Box[*Op]
	in         receiver
	ops        sync.Pool
	ended      chan struct{}

	mu      sync.Mutex
	slots   []slot
	free    []uint32
	held    []*Op // submitted while replies are being taken in; sent after them
	holding bool
	err     error // no more requests
}

// slot is a place for a request in flight. A cookie is the number of the slot and the generation
// of its use, so that a cookie is not seen twice soon.
type slot struct {
	op  *Op
	gen uint32
}

// Dial connects to a server and negotiates.
func Dial(ctx context.Context, network, address string, opts Options) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return New(ctx, conn, opts)
}

// New negotiates on conn, which is the client's from then on, also if New fails.
func New(ctx context.Context, conn net.Conn, opts Options) (*Client, error) {
	var h *Handshake
	var e Export
	err := within(ctx, conn, func() (err error) {
		if h, err = NewHandshake(conn); err != nil {
			return err
		}
		if opts.Structured || opts.TryStructured || len(opts.MetaContexts) > 0 {
			err := h.StructuredReply()
			var refused *OptionError
			if opts.TryStructured && len(opts.MetaContexts) == 0 && errors.As(err, &refused) {
				err = nil
			}
			if err != nil {
				return err
			}
		}
		if len(opts.MetaContexts) > 0 {
			if err := h.SetMetaContexts(opts.Export, opts.MetaContexts...); err != nil {
				return err
			}
		}
		if opts.ExportName {
			e, err = h.ExportName(opts.Export)
		} else {
			e, err = h.Go(opts.Export)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("negotiate export %q: %w", opts.Export, err)
	}
	return h.Client(e), nil
}

// List returns the names of a server's exports, and closes conn.
func List(ctx context.Context, conn net.Conn) (names []string, err error) {
	err = within(ctx, conn, func() error {
		h, err := NewHandshake(conn)
		if err != nil {
			return err
		}
		if names, err = h.List(); err != nil {
			return err
		}
		return h.Abort()
	})
	return names, err
}

// Info returns the facts of an export, and closes conn.
func Info(ctx context.Context, conn net.Conn, export string) (e Export, err error) {
	err = within(ctx, conn, func() error {
		h, err := NewHandshake(conn)
		if err != nil {
			return err
		}
		if e, err = h.Info(export); err != nil {
			return err
		}
		return h.Abort()
	})
	return e, err
}

// within runs fn, which uses conn, until ctx ends. It closes conn if fn fails.
func within(ctx context.Context, conn net.Conn, fn func() error) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := fn()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
	}
	return err
}

// Client returns a client for a handshake that Go or ExportName has ended.
func (h *Handshake) Client(e Export) *Client {
	c := &Client{
		Export:     e,
		Contexts:   h.Contexts,
		conn:       h.Conn,
		structured: h.Structured,
		ended:      make(chan struct{}),
	}
	c.ops.New = func() any {
		op := &Op{wait: make(chan struct{}, 1)}
		op.Done = func(op *Op) { op.wait <- struct{}{} }
		return op
	}
	c.box = outbox.New(c.conn, render, nil)
	c.in.init(c)
	go func() {
		defer close(c.ended)
		c.fail(c.in.run())
	}()
	return c
}

// Submit begins a request. Requests that are submitted while the client takes in replies, by their Done for
// example, are sent together. If the server does not read, Submit waits for it.
func (c *Client) Submit(op *Op) {
	op.reset()
	c.mu.Lock()
	if c.err != nil {
		op.Err = c.err
		c.mu.Unlock()
		op.Done(op)
		return
	}
	c.takeSlotLocked(op)
	if c.holding {
		c.held = append(c.held, op)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.box.Put(op, true)
}

// Close tells the server that the client goes, and closes the connection. Requests in flight
// fail with [ErrClosed]. It must not be called from an Op's Done.
func (c *Client) Close() error {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = ErrClosed
	}
	c.mu.Unlock()
	if first {
		c.conn.SetWriteDeadline(time.Now().Add(closeTimeout)) // a server that does not read is not told
		c.box.Put(&Op{Kind: Kind(proto.CmdDisc)}, false)
	}
	c.box.Close()
	err := c.conn.Close()
	<-c.ended
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// Err returns why the connection is gone, or nil.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Wait returns when the connection is gone.
func (c *Client) Wait() { <-c.ended }

// fail ends all requests in flight.
func (c *Client) fail(err error) {
	c.conn.Close()
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	err = c.err
	c.mu.Unlock()
	c.box.Close() // so that it uses no request any more
	c.mu.Lock()
	var lost []*Op
	for i := range c.slots {
		if op := c.slots[i].op; op != nil {
			c.slots[i].op = nil
			lost = append(lost, op)
		}
	}
	c.mu.Unlock()
	for _, op := range lost {
		op.Err = err
		op.Done(op)
	}
}

func (c *Client) takeSlotLocked(op *Op) {
	var i uint32
	if n := len(c.free); n > 0 {
		i, c.free = c.free[n-1], c.free[:n-1]
	} else {
		i = uint32(len(c.slots))
		c.slots = append(c.slots, slot{})
	}
	c.slots[i].op = op
	op.cookie = uint64(c.slots[i].gen)<<32 | uint64(i)
}

// find returns the request with a cookie.
func (c *Client) find(cookie uint64) (*Op, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, gen := uint32(cookie), uint32(cookie>>32)
	if int64(i) >= int64(len(c.slots)) || c.slots[i].op == nil || c.slots[i].gen != gen {
		return nil, violated("reply to unknown cookie %#x", cookie)
	}
	return c.slots[i].op, nil
}

// end gives a request back to its caller.
func (c *Client) end(op *Op) {
	i := uint32(op.cookie)
	c.mu.Lock()
	c.slots[i].op = nil
	c.slots[i].gen++
	c.free = append(c.free, i)
	c.mu.Unlock()
	op.Done(op)
}

func render(v *outbox.Vec, op *Op) {
	proto.PutRequest(v.Head(proto.RequestLen), proto.Request{
		Flags:  op.Flags,
		Type:   uint16(op.Kind),
		Cookie: op.cookie,
		Offset: uint64(op.Offset),
		Length: uint32(op.Length),
	})
	if op.Kind == Write {
		v.Data(op.Data)
	}
}
