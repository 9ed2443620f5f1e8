package nbd_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
	"skerry/nbd/nbdtest"
)

// pipes is a listener whose connections are in memory, so that a test can wait until all is blocked.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.conns <- a
	return b
}

// piped runs a test against a server over pipes, in a bubble. The server serves held, of 32 MiB, as "disk".
func piped(t *testing.T, opts nbd.Options, test func(t *testing.T, s *nbd.Server, p *pipes, held *nbdtest.Held)) {
	synctest.Test(t, func(t *testing.T) {
		held := nbdtest.NewHeld(nbdtest.NewMemory(32*mib), 100)
		e := nbdtest.NewExports(map[string]nbd.Device{"disk": held})
		s := nbd.NewServer(e, opts)
		p := newPipes()
		served := make(chan error, 1)
		go func() { served <- s.Serve(t.Context(), p) }()
		test(t, s, p, held)
		must(t, s.Shutdown(t.Context()))
		must(t, <-served)
		if !s.BudgetIsWhole() {
			t.Error("bytes in flight were not given back")
		}
		if n := e.OpenCount("disk"); n != 0 {
			t.Errorf("disk is open %d times", n)
		}
	})
}

// ready negotiates on a pipe.
func ready(t *testing.T, p *pipes) net.Conn {
	h, err := client.NewHandshake(p.dial())
	must(t, err)
	_, err = h.Go("disk")
	must(t, err)
	return h.Conn
}

func TestHandshakeThatTakesTooLongIsCut(t *testing.T) {
	piped(t, nbd.Options{HandshakeTimeout: time.Minute},
		func(t *testing.T, _ *nbd.Server, p *pipes, held *nbdtest.Held) {
			start := time.Now()
			c := p.dial()
			h, err := client.NewHandshake(c)
			must(t, err)
			if _, err := h.Info("disk"); err != nil {
				t.Fatal(err)
			}
			dropped(t, c)
			if d := time.Since(start); d != time.Minute {
				t.Errorf("cut after %v", d)
			}
			live := ready(t, p)
			time.Sleep(time.Hour) // of the bubble's clock: requests have no such limit
			go func() { held.Finish(<-held.Requests) }()
			lives(t, live)
			live.Close()
		})
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	piped(t, nbd.Options{MaxRequests: 8}, func(t *testing.T, _ *nbd.Server, p *pipes, held *nbdtest.Held) {
		c := ready(t, p)
		const n = 20
		go func() {
			for i := range n {
				c.Write(client.AppendRequest(nil, client.RawRequest{Type: proto.CmdFlush, Cookie: uint64(i)}))
			}
		}()
		for i := range n {
			synctest.Wait()
			if got := len(held.Requests); got != min(8, n-i) {
				t.Fatalf("device has %d requests after %d ended", got, i)
			}
			held.Finish(<-held.Requests)
			answer(t, c, uint64(i), 0)
		}
		c.Close()
	})
}

func TestBytesInFlightOfOneConnectionAreBounded(t *testing.T) {
	piped(t, nbd.Options{MaxInFlight: 64 << 20}, func(t *testing.T, _ *nbd.Server, p *pipes, held *nbdtest.Held) {
		a, b := ready(t, p), ready(t, p)
		go func() {
			for i := range 10 {
				a.Write(client.AppendRequest(nil, client.RawRequest{Type: proto.CmdRead, Cookie: uint64(i), Length: 8 * mib}))
			}
		}()
		synctest.Wait()
		if n := len(held.Requests); n != 3 { // 8 MiB and a little each, 32 MiB and a little at most
			t.Fatalf("device has %d requests", n)
		}
		request(t, b, client.RawRequest{Type: proto.CmdRead, Cookie: 99, Length: 4096}, nil)
		synctest.Wait()
		if n := len(held.Requests); n != 4 {
			t.Fatalf("a small request of another connection waits: device has %d", n)
		}
		// The slow client goes; all that it asked for ends.
		a.Close()
		go func() {
			for r := range held.Requests {
				held.Finish(r)
			}
		}()
		answer(t, b, 99, 0)
		b.Close()
		synctest.Wait()
		close(held.Requests)
	})
}

func TestBytesInFlightOfAllConnectionsAreBounded(t *testing.T) {
	piped(t, nbd.Options{MaxInFlight: 64 << 20}, func(t *testing.T, _ *nbd.Server, p *pipes, held *nbdtest.Held) {
		var conns []net.Conn
		for range 5 {
			c := ready(t, p)
			go c.Write(client.AppendRequest(nil, client.RawRequest{Type: proto.CmdRead, Length: 16 * mib}))
			conns = append(conns, c)
		}
		synctest.Wait()
		if n := len(held.Requests); n != 3 {
			t.Fatalf("device has %d requests of 16 MiB", n)
		}
		c := ready(t, p)
		request(t, c, client.RawRequest{Type: proto.CmdRead, Cookie: 1, Length: 64 << 10}, nil)
		synctest.Wait()
		if n := len(held.Requests); n != 4 {
			t.Fatalf("a small request waits for large ones: device has %d", n)
		}
		for _, c := range append(conns, c) {
			c.Close()
		}
		go func() {
			for r := range held.Requests {
				held.Finish(r)
			}
		}()
		synctest.Wait()
		close(held.Requests)
	})
}

func TestShutdownLetsRequestsEndAndRefusesNewOnes(t *testing.T) {
	piped(t, nbd.Options{}, func(t *testing.T, s *nbd.Server, p *pipes, held *nbdtest.Held) {
		busy, idle, early := ready(t, p), ready(t, p), p.dial()
		request(t, busy, client.RawRequest{Type: proto.CmdFlush, Cookie: 1}, nil)
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		dropped(t, idle)
		h, err := client.NewHandshake(early) // the greeting was not read yet, the rest is refused
		if err == nil {
			_, err = h.Go("disk")
		}
		if err == nil {
			t.Error("an export can be opened during shutdown")
		}
		early.Close()
		request(t, busy, client.RawRequest{Type: proto.CmdFlush, Cookie: 2}, nil)
		answer(t, busy, 2, client.ESHUTDOWN)
		request(t, busy, client.RawRequest{Type: proto.CmdWrite, Cookie: 3, Length: 5}, []byte("hello"))
		answer(t, busy, 3, client.ESHUTDOWN)
		held.Finish(<-held.Requests)
		answer(t, busy, 1, 0)
		dropped(t, busy)
		must(t, <-down)
	})
}

func TestShutdownThatTakesTooLongCutsConnections(t *testing.T) {
	piped(t, nbd.Options{}, func(t *testing.T, s *nbd.Server, p *pipes, held *nbdtest.Held) {
		c := ready(t, p)
		request(t, c, client.RawRequest{Type: proto.CmdFlush, Cookie: 1}, nil)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		dropped(t, c)
		synctest.Wait()
		held.Finish(<-held.Requests)
		synctest.Wait()
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := nbdtest.NewHeld(nbdtest.NewMemory(mib), 10)
		s := nbd.NewServer(nbdtest.NewExports(map[string]nbd.Device{"disk": held}), nbd.Options{})
		p := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, p) }()
		c := ready(t, p)
		request(t, c, client.RawRequest{Type: proto.CmdFlush, Cookie: 1}, nil)
		synctest.Wait()
		cancel()
		dropped(t, c)
		synctest.Wait()
		select {
		case err := <-served:
			t.Fatalf("Serve returned %v while a request is outstanding", err)
		default:
		}
		held.Finish(<-held.Requests)
		must(t, <-served)
		must(t, s.Shutdown(t.Context()))
		if err := s.Serve(t.Context(), newPipes()); !errors.Is(err, nbd.ErrServerClosed) {
			t.Errorf("Serve after Shutdown: %v", err)
		}
	})
}
