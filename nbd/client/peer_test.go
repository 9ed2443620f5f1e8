package client_test

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/backend"
	"github.com/pojntfx/go-nbd/pkg/server"

	"skerry/nbd/client"
)

// peer connects to the server of go-nbd.
func peer(t *testing.T) net.Conn {
	t.Helper()
	a, b := net.Pipe()
	ended := make(chan error, 1)
	go func() {
		exports := []*server.Export{
			{Name: "disk", Description: "a disk", Backend: backend.NewMemoryBackend(make([]byte, 1<<20))},
			{Name: "more", Backend: backend.NewMemoryBackend(make([]byte, 2<<20))},
		}
		ended <- server.Handle(b, exports, &server.Options{SupportsMultiConn: true})
		b.Close()
	}()
	t.Cleanup(func() {
		a.Close()
		if err := <-ended; err != nil && !strings.Contains(err.Error(), "EOF") {
			t.Error(err)
		}
	})
	return a
}

func TestPeerGoNBD(t *testing.T) {
	names, err := client.List(t.Context(), peer(t))
	must(t, err)
	if !slices.Equal(names, []string{"disk"}) { // it puts all names into one reply, where only the first counts
		t.Errorf("got %q", names)
	}
	e, err := client.Info(t.Context(), peer(t), "more")
	must(t, err)
	if e.Size != 2<<20 || e.MaxPayload != 32<<20 {
		t.Errorf("got %+v", e)
	}
	c, err := client.New(t.Context(), peer(t), client.Options{Export: "disk"})
	must(t, err)
	defer c.Close()
	if c.Export.Description != "a disk" {
		t.Errorf("got %+v", c.Export)
	}
	for _, n := range []int{1, 4096, 700 << 10} {
		want, got := bytes.Repeat([]byte{byte(n), 7}, n/2+1)[:n], make([]byte, n)
		must(t, c.Write(want, 12345, 0))
		must(t, c.Read(got, 12345))
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes differ", n)
		}
	}
}

func TestStructuredRepliesAreNotInsistedOn(t *testing.T) {
	if _, err := client.New(t.Context(), peer(t), client.Options{Export: "disk", Structured: true}); err == nil {
		t.Fatal("this server has structured replies: the test needs another")
	}
	c, err := client.New(t.Context(), peer(t), client.Options{Export: "disk", TryStructured: true})
	must(t, err)
	defer c.Close()
	must(t, c.Read(make([]byte, 512), 0))
}
