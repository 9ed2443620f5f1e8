package outbox

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// item is a message: its number, then n bytes of it.
type item struct {
	number uint32
	n      int
}

func render(v *Vec, m item) {
	binary.BigEndian.PutUint32(v.Head(4), m.number)
	v.Data(bytes.Repeat([]byte{byte(m.number)}, m.n))
	binary.BigEndian.PutUint32(v.Head(4), uint32(m.n))
}

// collector notes what was sent.
type collector struct {
	mu   sync.Mutex
	sent []uint32
}

func (c *collector) took(items []item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range items {
		c.sent = append(c.sent, m.number)
	}
}

// receive reads messages and returns their numbers.
func receive(t *testing.T, from io.Reader, sizes map[uint32]int, n int) []uint32 {
	t.Helper()
	var got []uint32
	for range n {
		var head [4]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			t.Fatal(err)
		}
		number := binary.BigEndian.Uint32(head[:])
		b := make([]byte, sizes[number]+4)
		if _, err := io.ReadFull(from, b); err != nil {
			t.Fatal(err)
		}
		if body := b[:len(b)-4]; !bytes.Equal(body, bytes.Repeat([]byte{byte(number)}, len(body))) ||
			int(binary.BigEndian.Uint32(b[len(body):])) != len(body) {
			t.Fatalf("message %d is damaged", number)
		}
		got = append(got, number)
	}
	return got
}

func socketpair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { conns[i].Close() })
	}
	return conns[0], conns[1]
}

func TestMessagesOfOneSenderStayInOrder(t *testing.T) {
	for name, block := range map[string]bool{"block": true, "no block": false} {
		t.Run(name, func(t *testing.T) {
			a, b := socketpair(t)
			var c collector
			box := New(a, render, c.took)
			sizes := make(map[uint32]int)
			var want []uint32
			for i := range uint32(3000) {
				sizes[i] = int(i%7) * int(i%1000)
				want = append(want, i)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				for _, i := range want {
					if i%5 == 0 {
						box.Put(item{i, sizes[i]}, block)
					} else {
						box.PutAll([]item{{i, sizes[i]}}, block)
					}
				}
				box.Close()
				a.Close()
			})
			if got := receive(t, b, sizes, len(want)); !slices.Equal(got, want) {
				t.Error("the order is wrong")
			}
			if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("more came: %v", err)
			}
			wg.Wait()
			if !slices.Equal(c.sent, want) {
				t.Error("not all was reported as sent, in order")
			}
		})
	}
}

func TestManySenders(t *testing.T) {
	a, b := socketpair(t)
	box := New(a, render, nil)
	sizes := make(map[uint32]int)
	const senders, each = 8, 500
	for i := range uint32(senders * each) {
		sizes[i] = int(i * 37 % 20000)
	}
	var wg sync.WaitGroup
	for s := range uint32(senders) {
		wg.Go(func() {
			for i := s * each; i < (s+1)*each; i++ {
				box.Put(item{i, sizes[i]}, s%2 == 0)
			}
		})
	}
	last := make([]uint32, senders)
	for _, i := range receive(t, b, sizes, senders*each) {
		if s := i / each; i%each != last[s] {
			t.Fatalf("sender %d: message %d out of order", s, i%each)
		}
		last[i/each]++
	}
	wg.Wait()
	box.Close()
}

func TestBrokenConnectionDropsMessages(t *testing.T) {
	a, b := socketpair(t)
	var c collector
	box := New(a, render, c.took)
	b.Close()
	for i := range uint32(100) {
		box.Put(item{i, 100000}, i%2 == 0)
	}
	box.Close()
	box.Close()
	if len(c.sent) != 100 {
		t.Errorf("%d messages were given back", len(c.sent))
	}
	box.Put(item{}, true) // dropped
	if len(c.sent) != 100 {
		t.Error("a message was sent after the end")
	}
}

// Without a descriptor the box can only block, so it leaves all to its goroutine.
func TestConnectionWithoutDescriptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		var c collector
		box := New(a, render, c.took)
		box.Put(item{1, 5000}, false)
		box.Put(item{2, 10}, true)
		synctest.Wait()
		if len(c.sent) != 0 {
			t.Error("sent before anyone reads")
		}
		if got := receive(t, b, map[uint32]int{1: 5000, 2: 10}, 2); !slices.Equal(got, []uint32{1, 2}) {
			t.Errorf("got %d", got)
		}
		box.Close()
		if !slices.Equal(c.sent, []uint32{1, 2}) {
			t.Errorf("sent %d", c.sent)
		}
		a.Close()
		b.Close()
	})
}
