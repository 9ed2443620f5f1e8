package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// ErrServerClosed says that a server was shut down before Serve was called.
var ErrServerClosed = errors.New("nbd server is shut down")

// Server serves exports to NBD clients.
type Server struct {
	exports Exports
	opts    Options
	pool    pool
	inputs  inputPool
	budget  *semaphore.Weighted // bytes of Options.MaxInFlight
	lag     time.Duration       // see lag

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	stopping  bool
	ended     chan struct{} // closed when stopping and no connection is left
}

// NewServer returns a server for exports. It does nothing until Serve is called.
func NewServer(exports Exports, opts Options) *Server {
	opts = opts.withDefaults()
	return &Server{
		exports:   exports,
		opts:      opts,
		lag:       lag,
		budget:    semaphore.NewWeighted(opts.MaxInFlight),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
		ended:     make(chan struct{}),
	}
}

// Serve accepts connections from l, which it closes, and serves them until Shutdown is
// called or ctx ends; then it returns nil once all connections that it accepted have ended. If ctx ends they are
// cut; their outstanding requests are still waited for. If l fails, its error is returned, also only after they have
// ended by themselves. Serve may be called for several listeners.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	if !s.addListener(l) {
		return ErrServerClosed
	}
	defer s.removeListener(l)
	defer context.AfterFunc(ctx, func() { l.Close() })()

	for delay := time.Duration(0); ; {
		nc, err := l.Accept()
		switch {
		case err == nil:
			delay = 0
		case ctx.Err() != nil || s.isStopping():
			return nil
		case isTemporary(err):
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.opts.Logger.Warn("accept", "err", err, "retry", delay)
			if !pause(ctx, delay) {
				return nil
			}
			continue
		default:
			s.opts.Logger.Error("no more connections are accepted", "err", err)
			return fmt.Errorf("accept: %w", err)
		}
		cctx, cut := context.WithCancel(ctx)
		c := newConn(s, nc, cut)
		if !s.addConn(c) {
			cut()
			nc.Close()
			continue
		}
		wg.Go(func() {
			defer s.removeConn(c)
			c.run(cctx)
		})
	}
}

// Shutdown stops accepting, answers new requests with ESHUTDOWN, lets those in flight
// end, and closes the connections. When ctx ends first it cuts them and returns ctx's error; requests that the device
// still holds may be outstanding then.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		for l := range s.listeners {
			l.Close()
		}
		for c := range s.conns {
			c.stop()
		}
		s.endedLocked()
	}
	s.mu.Unlock()

	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.cut()
	}
	s.mu.Unlock()
	return fmt.Errorf("shut down: %w", ctx.Err())
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

func (s *Server) addConn(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	if len(s.conns) >= s.opts.MaxConnections {
		s.opts.Logger.Warn("too many connections", "max", s.opts.MaxConnections)
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) removeConn(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 {
		s.pool.drop()
		s.inputs.drop()
	}
	s.endedLocked()
}

func (s *Server) endedLocked() {
	if s.stopping && len(s.conns) == 0 {
		select {
		case <-s.ended:
		default:
			close(s.ended)
		}
	}
}

// isTemporary reports whether accepting may succeed later: too many open files, for example.
func isTemporary(err error) bool {
	var ne interface{ Temporary() bool }
	return errors.As(err, &ne) && ne.Temporary()
}

// pause waits for d and returns false if ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
