package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
)

// ErrUnfit says that the export does not offer what a [Config] needs, or that the Config makes no sense.
var ErrUnfit = errors.New("not possible")

// Run makes load on the export that dial connects to, and closes the connections. The first failed request, or wrong data
// ([ErrMismatch]), ends it with an error. When ctx ends, the connections are closed and the error is that of ctx.
func Run(ctx context.Context, dial func(context.Context) (*client.Client, error), c Config) (Result, error) {
	n := &network{}
	defer n.close()
	for len(n.clients) == 0 || len(n.clients) < c.Conns && c.Conns <= MaxConnections {
		conn, err := dial(ctx)
		if err != nil {
			return Result{}, err
		}
		n.clients = append(n.clients, conn)
	}
	e := n.clients[0].Export
	c, err := c.fit(e.Size)
	if err == nil {
		err = suits(&c, e)
	}
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		n.close()
	})
	defer func() {
		if !stop() {
			<-closed
		}
	}()
	t := c.table()
	if c.Fill {
		if err := n.fill(&c, t); err != nil {
			return Result{}, errors.Join(ctx.Err(), fmt.Errorf("fill: %w", err))
		}
	}
	r, err := n.load(&c, t)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return r, err
}

// suits checks that an export has what the load needs.
func suits(c *Config, e client.Export) error {
	lacks := func(flag uint16) bool { return e.Flags&flag == 0 }
	switch m := c.Mix; {
	case c.Changes() && !lacks(proto.FlagReadOnly):
		return errors.New("the export is read-only")
	case m.Zero > 0 && lacks(proto.FlagSendWriteZeroes):
		return errors.New("the export has no write zeroes")
	case m.Trim > 0 && lacks(proto.FlagSendTrim):
		return errors.New("the export has no trim")
	case c.FlushEvery > 0 && lacks(proto.FlagSendFlush):
		return errors.New("the export has no flush")
	case c.FUA && lacks(proto.FlagSendFUA):
		return errors.New("the export has no FUA")
	case c.Verify && c.Changes() && c.Conns > 1 && lacks(proto.FlagCanMultiConn):
		return errors.New("the export promises nothing to several connections, so what one of them reads cannot be verified by what another has written")
	case c.Block%int64(e.MinBlock) != 0 || c.Offset%int64(e.MinBlock) != 0:
		return fmt.Errorf("the export wants requests in multiples of %d bytes", e.MinBlock)
	case (m.Read > 0 || m.Write > 0 || c.Fill) && c.Block > int64(e.MaxPayload):
		return fmt.Errorf("the export takes at most %d bytes a request", e.MaxPayload)
	}
	return nil
}

// table returns the table of a run, nil if nothing is verified.
func (c *Config) table() *table {
	if !c.Verify {
		return nil
	}
	return newTable(rand.Uint64(), c.slots())
}

// filling returns what fills the range.
func (c *Config) filling() Config {
	f := *c
	f.Mix, f.Pattern, f.FlushEvery, f.FUA = Mix{Write: 100}, Sequential, 0, false
	f.Time, f.Count, f.Warmup = 0, c.slots(), 0
	return f
}

// sessions returns n sessions, whose time begins now.
func (c *Config) sessions(n int, t *table) []*session {
	all := make([]*session, n)
	stop := new(atomic.Bool)
	begun := time.Now()
	for i := range all {
		all[i] = newSession(c, i, n, t, func() time.Duration { return time.Since(begun) }, stop)
	}
	return all
}

// network is the connections of a run.
type network struct{ clients []*client.Client }

func (n *network) close() {
	for _, c := range n.clients {
		_ = c.Close() // nothing that it could still say matters
	}
}

func (n *network) fill(c *Config, t *table) error {
	f := c.filling()
	if _, err := n.load(&f, t); err != nil {
		return err
	}
	if first := n.clients[0]; first.Export.Flags&proto.FlagSendFlush != 0 {
		return first.Flush()
	}
	return nil
}

// load runs a session on each connection.
func (n *network) load(c *Config, t *table) (Result, error) {
	before := processorTime()
	all := c.sessions(len(n.clients), t)
	for i, s := range all {
		s.submit = func(r *request) { n.clients[i].Submit(&r.Op) }
		n.clients[i].Submit(&client.Op{Kind: client.Read, Offset: c.Offset, Data: make([]byte, c.Block), Done: func(op *client.Op) {
			if op.Err != nil {
				s.fail(fmt.Errorf("first read: %w", op.Err))
			}
			s.begin()
		}})
	}
	return outcome(c, all, before)
}

// outcome waits for sessions to end.
func outcome(c *Config, all []*session, before time.Duration) (Result, error) {
	var err error
	for _, s := range all {
		<-s.done
		if err == nil {
			err = s.err
		}
	}
	return summarize(c, all, processorTime()-before), err
}

// processorTime returns what this process has used.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic("load: getrusage of the own process: " + err.Error())
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
