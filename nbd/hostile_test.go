package nbd_test

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
	"skerry/nbd/nbdtest"
)

// request writes one request with its payload.
func request(t *testing.T, c net.Conn, r client.RawRequest, payload []byte) {
	t.Helper()
	_, err := c.Write(append(client.AppendRequest(nil, r), payload...))
	must(t, err)
}

// answer reads one reply and checks whom it is for and what it says.
func answer(t *testing.T, c net.Conn, cookie uint64, want client.Errno) client.RawReply {
	t.Helper()
	r, err := client.ReadReply(c)
	must(t, err)
	if r.Cookie != cookie || r.Error() != want {
		t.Errorf("reply %+v, want %v for %d", r, want, cookie)
	}
	return r
}

// lives checks that a connection is in step and works.
func lives(t *testing.T, c net.Conn) {
	t.Helper()
	request(t, c, client.RawRequest{Type: proto.CmdFlush, Cookie: 4711}, nil)
	answer(t, c, 4711, 0)
}

func TestRequestsThatBreakRulesAreAnswered(t *testing.T) {
	for _, structured := range []bool{false, true} {
		c := serveOne(t, nbdtest.NewMemory(mib)).raw(structured)
		tooLong := client.EINVAL
		if structured {
			tooLong = client.EOVERFLOW
		}
		for i, x := range []struct {
			r       client.RawRequest
			payload int
			want    client.Errno
		}{
			{client.RawRequest{Type: 8, Length: 4096}, 0, client.EINVAL},
			{client.RawRequest{Type: 0xffff, Length: 0xffffffff, Offset: 1 << 63}, 0, client.EINVAL},
			{client.RawRequest{Type: proto.CmdRead, Length: 32<<20 + 1}, 0, tooLong},
			{client.RawRequest{Type: proto.CmdRead, Length: 0xffffffff}, 0, tooLong},
			{client.RawRequest{Type: proto.CmdRead, Length: 1, Flags: proto.CmdFlagNoHole}, 0, client.EINVAL},
			{client.RawRequest{Type: proto.CmdRead, Length: 1, Flags: 1 << 15}, 0, client.EINVAL},
			{client.RawRequest{Type: proto.CmdWrite, Length: 500, Flags: proto.CmdFlagDF}, 500, client.EINVAL},
			{client.RawRequest{Type: proto.CmdWrite, Length: 500, Flags: 1 << 5}, 500, client.EINVAL},
			{client.RawRequest{Type: proto.CmdWrite, Length: 100 << 10, Offset: mib}, 100 << 10, client.ENOSPC},
			{client.RawRequest{Type: proto.CmdWrite, Length: 33 << 20}, 33 << 20, client.EINVAL},
			{client.RawRequest{Type: proto.CmdFlush, Length: 1}, 0, client.EINVAL},
			{client.RawRequest{Type: proto.CmdFlush, Offset: 1}, 0, client.EINVAL},
			{client.RawRequest{Type: proto.CmdFlush, Flags: proto.CmdFlagReqOne}, 0, client.EINVAL},
			{client.RawRequest{Type: proto.CmdTrim, Length: 1, Flags: proto.CmdFlagNoHole}, 0, client.EINVAL},
			{client.RawRequest{Type: proto.CmdCache, Length: 1, Flags: proto.CmdFlagDF}, 0, client.EINVAL},
			{client.RawRequest{Type: proto.CmdWriteZeroes, Length: 1, Flags: proto.CmdFlagReqOne}, 0, client.EINVAL},
			{client.RawRequest{Type: proto.CmdBlockStatus, Length: 4096}, 0, client.EINVAL},
			{client.RawRequest{Type: proto.CmdRead, Length: 0xffff, Offset: 0xffffffffffffffff}, 0, client.EINVAL},
		} {
			x.r.Cookie = uint64(i) << 56
			request(t, c, x.r, make([]byte, x.payload))
			answer(t, c, x.r.Cookie, x.want)
			lives(t, c)
		}
	}
}

func TestWriteAboveMaximumKeepsTheConnection(t *testing.T) {
	c := serveOne(t, nbdtest.NewMemory(mib)).raw(false)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const length = 200 << 20
	request(t, c, client.RawRequest{Type: proto.CmdWrite, Cookie: 1, Length: length}, nil)
	piece := make([]byte, mib)
	for range length / mib {
		_, err := c.Write(piece)
		must(t, err)
	}
	answer(t, c, 1, client.EINVAL)
	lives(t, c)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 20<<20 {
		t.Errorf("%d bytes were allocated to drop %d", n, length)
	}
}

func TestTrimLengthIsNotReadAsPayload(t *testing.T) {
	m := nbdtest.NewMemory(mib)
	c := serveOne(t, m).raw(false)
	// What follows would be eaten if the trim were taken to have a payload.
	var b []byte
	b = client.AppendRequest(b, client.RawRequest{Type: proto.CmdTrim, Cookie: 1, Length: 2 * proto.RequestLen})
	b = client.AppendRequest(b, client.RawRequest{Type: proto.CmdWriteZeroes, Cookie: 2, Length: proto.RequestLen})
	b = client.AppendRequest(b, client.RawRequest{Type: 200, Cookie: 3, Length: proto.RequestLen})
	b = client.AppendRequest(b, client.RawRequest{Type: proto.CmdFlush, Cookie: 4})
	_, err := c.Write(b)
	must(t, err)
	answer(t, c, 1, 0)
	answer(t, c, 2, 0)
	answer(t, c, 3, client.EINVAL)
	answer(t, c, 4, 0)
	if m.Flushes() != 1 {
		t.Errorf("%d flushes", m.Flushes())
	}
}

func TestRequestWithWrongMagicDropsTheConnection(t *testing.T) {
	r := serveOne(t, nbdtest.NewMemory(mib))
	c := r.raw(false)
	_, err := c.Write(bytes.Repeat([]byte{1}, proto.RequestLen))
	must(t, err)
	dropped(t, c)
}

func TestRequestsInSmallPieces(t *testing.T) {
	m := nbdtest.NewMemory(mib)
	c := serveOne(t, m).raw(false)
	p := pattern(1000, 1)
	b := append(client.AppendRequest(nil, client.RawRequest{Type: proto.CmdWrite, Cookie: 1, Offset: 77, Length: 1000}), p...)
	for len(b) > 0 {
		n, err := c.Write(b[:min(13, len(b))])
		must(t, err)
		b = b[n:]
	}
	answer(t, c, 1, 0)
	if !bytes.Equal(m.Bytes()[77:1077], p) {
		t.Error("content differs")
	}
}

func TestManyRequestsInOnePacket(t *testing.T) {
	m := nbdtest.NewMemory(64 * mib)
	c := serveOne(t, m).raw(false)
	const n = 5000 // many input buffers of them, so that they cross its end at all places
	sent := make(chan error, 1)
	go func() {
		var b []byte
		for i := range n {
			b = client.AppendRequest(b, client.RawRequest{Type: proto.CmdWrite, Cookie: uint64(i), Offset: uint64(i) * 1001, Length: 1001})
			b = append(b, pattern(1001, uint64(i))...)
		}
		_, err := c.Write(b)
		sent <- err
	}()
	for i := range n {
		answer(t, c, uint64(i), 0)
	}
	must(t, <-sent)
	data := m.Bytes()
	for i := range n {
		if !bytes.Equal(data[i*1001:][:1001], pattern(1001, uint64(i))) {
			t.Fatalf("write %d differs", i)
		}
	}
}

func TestCutInTheMiddleOfAPayloadWritesNothing(t *testing.T) {
	for _, n := range []int{4096, 64 << 10, 1 << 20} {
		m := nbdtest.NewMemory(4 * mib)
		r := serveOne(t, m)
		c := r.raw(false)
		request(t, c, client.RawRequest{Type: proto.CmdWrite, Cookie: 1, Length: uint32(n)}, bytes.Repeat([]byte{7}, n-1))
		must(t, c.Close())
		r.idle("disk")
		if bytes.Contains(m.Bytes(), []byte{7}) {
			t.Errorf("part of a write of %d bytes shows", n)
		}
	}
}

func TestDisconnectAnswersWhatCameBefore(t *testing.T) {
	r := serveOne(t, nbdtest.NewMemory(mib))
	c := r.raw(false)
	b := client.AppendRequest(nil, client.RawRequest{Type: proto.CmdFlush, Cookie: 1})
	_, err := c.Write(client.AppendRequest(b, client.RawRequest{Type: proto.CmdDisc, Cookie: 2}))
	must(t, err)
	answer(t, c, 1, 0)
	dropped(t, c)
}

func TestConnectionsAboveTheMaximumAreClosed(t *testing.T) {
	r := serve(t, twoDisks(), nbd.Options{MaxConnections: 2})
	a, b := r.handshake(), r.handshake()
	dropped(t, r.conn())
	must(t, a.Abort())
	r.reconnect()
	must(t, b.Abort())
}

// A client that asks for much and reads nothing must not take memory without bound.
func TestSlowReaderIsBounded(t *testing.T) {
	const inFlight = 64 << 20
	m := nbdtest.NewMemory(64 * mib)
	fill := pattern(mib, 1)
	r := serve(t, map[string]nbd.Device{"disk": m}, nbd.Options{MaxInFlight: inFlight})
	w := r.dial()
	for off := int64(0); off < 64*mib; off += mib {
		must(t, w.Write(fill, off, 0))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := r.raw(false)
	const n = 1000
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if _, err := c.Write(client.AppendRequest(nil, client.RawRequest{Type: proto.CmdRead, Cookie: uint64(i), Length: mib})); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	must(t, w.Flush()) // another connection goes on
	got := make([]byte, mib)
	for i := range n {
		answer(t, c, uint64(i), 0)
		_, err := io.ReadFull(c, got)
		must(t, err)
	}
	must(t, <-sent)
	if !bytes.Equal(got, fill) {
		t.Error("content differs")
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := int64(after.HeapSys) - int64(before.HeapSys); n > 2*inFlight {
		t.Errorf("the heap grew by %d bytes", n)
	}
}
