package nbd_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/nbdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what should take no time; a test that reaches it has failed.
const patience = 30 * time.Second

// rig is a running server.
type rig struct {
	t       testing.TB
	server  *nbd.Server
	exports *nbdtest.Exports
	socket  string
	served  chan error
}

// serve starts a server on a Unix socket. At the end of the test it is shut down, and nothing may be open then.
func serve(t testing.TB, devices map[string]nbd.Device, opts nbd.Options) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{
		t:       t,
		exports: nbdtest.NewExports(devices),
		socket:  filepath.Join(dir, "s"),
		served:  make(chan error, 1),
	}
	r.server = nbd.NewServer(r.exports, opts)
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { r.served <- r.server.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-r.served; err != nil {
			t.Error(err)
		}
		if !r.server.BudgetIsWhole() {
			t.Error("bytes in flight were not given back")
		}
		for name := range devices {
			if n := r.exports.OpenCount(name); n != 0 {
				t.Errorf("export %q is open %d times after shutdown", name, n)
			}
		}
	})
	return r
}

// serveOne serves a device as export "disk".
func serveOne(t testing.TB, d nbd.Device) *rig {
	t.Helper()
	return serve(t, map[string]nbd.Device{"disk": d}, nbd.Options{})
}

// conn returns a new connection, closed at the end of the test.
func (r *rig) conn() net.Conn {
	r.t.Helper()
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	r.t.Cleanup(func() { c.Close() })
	return c
}

// handshake returns a connection in option haggling.
func (r *rig) handshake() *client.Handshake {
	r.t.Helper()
	h, err := client.NewHandshake(r.conn())
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// dial returns a client of export "disk" with everything negotiated.
func (r *rig) dial() *client.Client {
	r.t.Helper()
	return r.dialWith(client.Options{Export: "disk", MetaContexts: []string{"base:allocation"}})
}

func (r *rig) dialWith(opts client.Options) *client.Client {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, "unix", r.socket, opts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// raw returns a connection on which requests of export "disk" can be written byte by byte.
func (r *rig) raw(structured bool) net.Conn {
	r.t.Helper()
	h := r.handshake()
	if structured {
		if err := h.StructuredReply(); err != nil {
			r.t.Fatal(err)
		}
	}
	if _, err := h.Go("disk"); err != nil {
		r.t.Fatal(err)
	}
	return h.Conn
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// idle waits until an export is not open.
func (r *rig) idle(name string) {
	r.t.Helper()
	if !r.exports.WaitClosed(name, patience) {
		r.t.Fatalf("export %q stays open", name)
	}
}

// reconnect waits until the server takes a connection again.
func (r *rig) reconnect() {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		c := r.conn()
		h, err := client.NewHandshake(c)
		if err == nil {
			must(r.t, h.Abort())
			return
		}
		c.Close()
	}
	r.t.Fatal("server takes no connection")
}
