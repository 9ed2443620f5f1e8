package nbd_test

import (
	"testing"
	"time"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
	"skerry/nbd/nbdtest"
	"skerry/volume"
)

// TestRequestsOfAClosedConnectionAreNotBegunLate has a client that gives up a connection while the server waits for room, as the kernel does when a request
// times out. It sends its requests again elsewhere, so what was not begun must not be: it would undo newer writes.
func TestRequestsOfAClosedConnectionAreNotBegunLate(t *testing.T) {
	for name, c := range map[string]struct {
		most  int // requests of a connection at a time
		reads int // of 32 MiB each, before the writes; there is room for one
		write int // bytes
		begun int // requests that there is room for
	}{
		"too many requests": {4, 0, 4096, 4},
		"too many bytes":    {256, 1, 70 << 10, 1},
	} {
		t.Run(name, func(t *testing.T) {
			held := nbdtest.NewHeld(nbdtest.NewMemory(64*mib), 8)
			r := serve(t, map[string]nbd.Device{"disk": held}, nbd.Options{MaxRequests: c.most, MaxInFlight: 1})
			conn := r.raw(false)
			var b []byte
			for range c.reads {
				b = client.AppendRequest(b, client.RawRequest{Type: proto.CmdRead, Length: 32 * mib})
			}
			for range c.begun - c.reads + 1 {
				b = client.AppendRequest(b, client.RawRequest{Type: proto.CmdWrite, Length: uint32(c.write)})
				b = append(b, make([]byte, c.write)...)
			}
			_, err := conn.Write(b)
			must(t, err)
			var begun []*volume.Request
			for range c.begun {
				begun = append(begun, <-held.Requests)
			}
			for end := time.Now().Add(patience); !r.server.Stalled(); {
				if time.Now().After(end) {
					t.Fatal("the server does not wait for room")
				}
				<-time.After(time.Millisecond)
			}
			must(t, conn.Close())
			for _, q := range begun {
				held.Finish(q)
			}
			late := 0
			for !r.exports.WaitClosed("disk", 10*time.Millisecond) {
				for len(held.Requests) > 0 {
					held.Finish(<-held.Requests)
					late++
				}
			}
			if late > 0 {
				t.Errorf("%d requests were begun after the client had gone", late)
			}
		})
	}
}
