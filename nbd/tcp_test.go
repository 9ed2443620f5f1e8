package nbd_test

import (
	"bytes"
	"context"
	"net"
	"testing"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/nbdtest"
)

func TestSeveralListeners(t *testing.T) {
	m := nbdtest.NewMemory(4 * mib)
	r := serveOne(t, m)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(context.Background(), l) }()
	a, err := client.DialURI(t.Context(), "nbd://"+l.Addr().String()+"/disk", client.Options{Structured: true})
	must(t, err)
	b := r.dial()
	want, got := pattern(3*mib, 1), make([]byte, 3*mib)
	must(t, a.Write(want, 100, 0))
	must(t, b.Read(got, 100))
	if !bytes.Equal(got, want) {
		t.Error("what one wrote the other does not read")
	}
	must(t, b.Write(want[:mib], 3*mib, 0))
	must(t, a.Read(got[:mib], 3*mib))
	if !bytes.Equal(got[:mib], want[:mib]) {
		t.Error("what the other wrote one does not read")
	}
	must(t, a.Close())
	must(t, r.server.Shutdown(t.Context()))
	must(t, <-served)
	l, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	if err := r.server.Serve(t.Context(), l); err != nbd.ErrServerClosed {
		t.Errorf("got %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener stays open")
	}
}
