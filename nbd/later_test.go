package nbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"skerry/drivers"
	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
	"skerry/nbd/nbdtest"
	"skerry/volume"
)

func TestAnswersComeInAnyOrder(t *testing.T) {
	held := nbdtest.NewHeld(nbdtest.NewMemory(mib), 10)
	c := serveOne(t, held).raw(false)
	for i := range 3 {
		request(t, c, client.RawRequest{Type: proto.CmdFlush, Cookie: uint64(i)}, nil)
	}
	var all []*volume.Request
	for range 3 {
		all = append(all, <-held.Requests)
	}
	for _, i := range []int{1, 2, 0} {
		held.Finish(all[i])
		answer(t, c, uint64(i), 0)
	}
}

func TestBufferStaysUntilReleased(t *testing.T) {
	for _, n := range []int{4096, 300 << 10} {
		held := nbdtest.NewHeld(nbdtest.NewMemory(4*mib), 10)
		c := serveOne(t, held).dial()
		p := pattern(n, 1)
		err := make(chan error, 1)
		go func() { err <- c.Write(p, 0, 0) }()
		late := <-held.Requests
		late.Done.Answered(late, fmt.Errorf("deadline: %w", drivers.ErrUnavailable))
		if err := <-err; !errors.Is(err, client.EIO) {
			t.Errorf("answered %v", err)
		}
		for i := range 200 { // would take the buffer if it were free
			go func() { err <- c.Write(pattern(n, uint64(i+2)), mib, 0) }()
			r := <-held.Requests
			held.Finish(r)
			must(t, <-err)
		}
		if !bytes.Equal(late.Data, p) {
			t.Error("the payload changed before it was released")
		}
		late.Done.Released(late)
	}
}

func TestFailedReadSaysSoFirst(t *testing.T) {
	for _, structured := range []bool{false, true} {
		held := nbdtest.NewHeld(nbdtest.NewMemory(mib), 1)
		c := serveOne(t, held).raw(structured)
		request(t, c, client.RawRequest{Type: proto.CmdRead, Cookie: 5, Length: 4096}, nil)
		r := <-held.Requests
		r.Done.Answered(r, errors.New("disk on fire"))
		r.Done.Released(r)
		reply := answer(t, c, 5, client.EIO)
		if structured && (reply.Flags != proto.ChunkFlagDone || !bytes.Contains(reply.Payload, []byte("disk on fire"))) {
			t.Errorf("reply %+v", reply)
		}
		request(t, c, client.RawRequest{Type: proto.CmdFlush, Cookie: 6}, nil)
		held.Finish(<-held.Requests)
		answer(t, c, 6, 0)
	}
}

// failing is a device whose requests all end inline with an error.
type failing struct {
	nbdtest.Null
	err error
}

func (f failing) Submit(r *volume.Request) bool {
	r.Err = fmt.Errorf("chunk 7: %w", f.err)
	return true
}

var errTest = errors.New("lease lost")

func TestErrorsOfTheDevice(t *testing.T) {
	for _, x := range []struct {
		err  error
		want client.Errno // of a write
		read client.Errno
	}{
		{volume.ErrOutOfRange, client.ENOSPC, client.EINVAL},
		{volume.ErrReadOnly, client.EPERM, client.EPERM},
		{volume.ErrInvalid, client.EINVAL, client.EINVAL},
		{volume.ErrClosed, client.ESHUTDOWN, client.ESHUTDOWN},
		{volume.ErrDamaged, client.EIO, client.EIO},
		{volume.ErrFailed, client.EIO, client.EIO},
		{drivers.ErrNoSpace, client.ENOSPC, client.ENOSPC},
		{drivers.ErrReadOnly, client.EPERM, client.EPERM},
		{drivers.ErrUnavailable, client.EIO, client.EIO},
		{drivers.ErrNotFound, client.EIO, client.EIO},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}, client.ENOSPC, client.ENOSPC},
		{syscall.EFBIG, client.ENOSPC, client.ENOSPC},
		{errors.New("something else"), client.EIO, client.EIO},
		{errTest, client.ESHUTDOWN, client.ESHUTDOWN},
	} {
		r := serve(t, map[string]nbd.Device{"disk": failing{mib, x.err}}, nbd.Options{Errno: func(err error) (uint32, bool) {
			return nbd.ESHUTDOWN, errors.Is(err, errTest)
		}})
		c := r.dial()
		for _, n := range []int{100, 100 << 10} {
			if err := c.Write(make([]byte, n), 0, 0); !errors.Is(err, x.want) {
				t.Errorf("write: %v for %v", err, x.err)
			}
			if err := c.Read(make([]byte, n), 0); !errors.Is(err, x.read) {
				t.Errorf("read: %v for %v", err, x.err)
			}
		}
		if err := c.WriteZeroes(0, 1, 0); !errors.Is(err, x.want) {
			t.Errorf("zero: %v for %v", err, x.err)
		}
		if err := c.Flush(); !errors.Is(err, x.read) {
			t.Errorf("flush: %v for %v", err, x.err)
		}
		must(t, c.Close())
	}
}

func TestDisconnectWithRequestsInFlightReleasesEverything(t *testing.T) {
	held := nbdtest.NewHeld(nbdtest.NewMemory(16*mib), 100)
	r := serveOne(t, held)
	c := r.raw(true)
	for i := range 30 {
		typ, payload := proto.CmdRead, 0
		if i%2 == 0 {
			typ, payload = proto.CmdWrite, 1000*(i*i+1)
		}
		request(t, c, client.RawRequest{Type: typ, Cookie: uint64(i), Length: uint32(1000 * (i*i + 1))}, make([]byte, payload))
	}
	var all []*volume.Request
	for range 30 {
		all = append(all, <-held.Requests)
	}
	must(t, c.Close())
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, q := range all {
		if r.exports.OpenCount("disk") != 1 {
			t.Fatalf("the device was given back with %d requests outstanding", len(all)-i)
		}
		held.Finish(q)
	}
	r.idle("disk")
}

// Who completes a request must not wait for the client.
func TestCompletionDoesNotWaitForASlowClient(t *testing.T) {
	held := nbdtest.NewHeld(nbdtest.NewMemory(mib), 100)
	c := serveOne(t, held).raw(false)
	const n = 40 // MiB, more than the socket buffers hold
	for i := range n {
		request(t, c, client.RawRequest{Type: proto.CmdRead, Cookie: uint64(i), Length: mib}, nil)
	}
	for range n {
		held.Finish(<-held.Requests)
	}
	for range n {
		r, err := client.ReadReply(c)
		must(t, err)
		if r.Error() != 0 {
			t.Fatal(r.Error())
		}
		_, err = io.CopyN(io.Discard, c, mib)
		must(t, err)
	}
}

// Many small writes that end late use the input buffers in place, copies, or both.
func TestSmallWritesThatEndLate(t *testing.T) {
	m := nbdtest.NewMemory(64 * mib)
	held := nbdtest.NewHeld(m, 1000)
	c := serveOne(t, held).raw(false)
	const n = 8000
	var ending sync.WaitGroup
	defer ending.Wait()
	ending.Go(func() { // ends requests in groups, the last first, some inline with their successors
		rng := rand.New(rand.NewPCG(1, 2))
		for left := n; left > 0; {
			var group []*volume.Request
			for range min(left, 1+rng.IntN(100)) {
				group = append(group, <-held.Requests)
			}
			left -= len(group)
			for i := range group {
				held.Finish(group[len(group)-1-i])
			}
		}
	})
	ending.Go(func() {
		var b []byte
		for i := range n {
			b = client.AppendRequest(b[:0], client.RawRequest{Type: proto.CmdWrite, Cookie: uint64(i), Offset: uint64(i) * 3000, Length: 3000})
			if _, err := c.Write(append(b, pattern(3000, uint64(i))...)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range n {
		r, err := client.ReadReply(c)
		must(t, err)
		if r.Error() != 0 {
			t.Fatal(r.Error())
		}
	}
	data := m.Bytes()
	for i := range n {
		if !bytes.Equal(data[i*3000:][:3000], pattern(3000, uint64(i))) {
			t.Fatalf("write %d differs", i)
		}
	}
}

// Several connections with many requests each, against a model.
func TestRandomRequestsAgainstAModel(t *testing.T) {
	devices := map[string]func(t *testing.T, m *nbdtest.Memory) nbd.Device{
		"inline": func(_ *testing.T, m *nbdtest.Memory) nbd.Device { return m },
		"later": func(t *testing.T, m *nbdtest.Memory) nbd.Device {
			l := nbdtest.NewLater(m, 4)
			t.Cleanup(l.Close)
			return l
		},
	}
	for name, device := range devices {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			const workers, region = 8, 2 * mib
			r := serveOne(t, device(t, nbdtest.NewMemory(workers*region)))
			a, b := r.dial(), r.dialWith(client.Options{Export: "disk"})
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(seed, uint64(w)))
					modelWorker(t, rng, [2]*client.Client{a, b}, int64(w)*region, make([]byte, region))
				})
			}
			wg.Wait()
		})
	}
}

// modelWorker makes random requests in a region of its own and compares.
func modelWorker(t *testing.T, rng *rand.Rand, clients [2]*client.Client, base int64, model []byte) {
	for i := range 300 {
		c := clients[rng.IntN(2)]
		n := 1 + rng.IntN(9000)
		if rng.IntN(10) == 0 {
			n = 1 + rng.IntN(len(model)/2)
		}
		off := rng.IntN(len(model) - n)
		part, at := model[off:off+n], base+int64(off)
		var err error
		switch rng.IntN(6) {
		case 0, 1:
			copy(part, pattern(n, rng.Uint64()))
			err = c.Write(part, at, uint16(rng.IntN(2)))
		case 2:
			clear(part)
			err = c.WriteZeroes(at, int64(n), uint16(rng.IntN(4)))
		case 3:
			clear(part)
			err = c.Trim(at, int64(n), 0)
		case 4:
			err = c.Flush()
		case 5:
			got := make([]byte, n)
			if err = c.Read(got, at); err == nil && !bytes.Equal(got, part) {
				t.Errorf("request %d: %d bytes at %d differ", i, n, at)
				return
			}
		}
		if err != nil {
			t.Errorf("request %d: %v", i, err)
			return
		}
	}
}
