package nbd_test

import (
	"sync/atomic"
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

// slow is a device whose first request takes long in Submit.
type slow struct {
	*nbdtest.Memory
	begun   atomic.Int64
	entered chan struct{}
	release chan struct{}
}

func (s *slow) Submit(r *volume.Request) bool {
	if s.begun.Add(1) == 1 {
		close(s.entered)
		<-s.release
	}
	return s.Memory.Submit(r)
}

// TestChangesBehindASlowOneAreNotBegunLate: what a client sent that has gone is not begun either if the server could not read it, or not look at it, because
// a request before it took long on the reading goroutine.
func TestChangesBehindASlowOneAreNotBegunLate(t *testing.T) {
	for name, command := range map[string]uint16{"write": proto.CmdWrite, "trim": proto.CmdTrim, "zeroes": proto.CmdWriteZeroes} {
		for _, sent := range []string{"at once", "meanwhile"} {
			t.Run(name+" "+sent, func(t *testing.T) {
				dev := &slow{Memory: nbdtest.NewMemory(mib), entered: make(chan struct{}), release: make(chan struct{})}
				r := serve(t, map[string]nbd.Device{"disk": dev}, nbd.Options{})
				r.server.AskAlways()
				conn := r.raw(false)
				payload := make([]byte, 4096)
				first := append(client.AppendRequest(nil, client.RawRequest{Type: proto.CmdWrite, Length: 4096}), payload...)
				second := client.AppendRequest(nil, client.RawRequest{Type: command, Length: 4096})
				if command == proto.CmdWrite {
					second = append(second, payload...)
				}
				if sent == "at once" {
					first, second = append(first, second...), nil
				}
				_, err := conn.Write(first)
				must(t, err)
				<-dev.entered
				_, err = conn.Write(second)
				must(t, err)
				must(t, conn.Close())
				close(dev.release)
				r.idle("disk")
				if n := dev.begun.Load(); n != 1 {
					t.Errorf("%d requests were begun, want the first alone", n)
				}
			})
		}
	}
}
