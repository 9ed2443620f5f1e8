package nbd_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"skerry/drivers"
	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
	"skerry/nbd/nbdtest"
	"skerry/volume"
)

// moody is a device that ends requests inline or later, with success or not, and sometimes
// answers before it releases.
type moody struct {
	*nbdtest.Memory
	queue   chan *volume.Request
	workers sync.WaitGroup
}

func newMoody(m *nbdtest.Memory, seed uint64) *moody {
	d := &moody{Memory: m, queue: make(chan *volume.Request, 4096)}
	for w := range uint64(3) {
		d.workers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, w))
			var late []*volume.Request
			for r := range d.queue {
				if rng.IntN(10) == 0 {
					r.Done.Answered(r, drivers.ErrUnavailable)
					late = append(late, r)
				} else {
					r.Done.Answered(r, d.Do(r))
					r.Done.Released(r)
				}
				if len(late) > 0 && rng.IntN(4) == 0 {
					last := late[len(late)-1]
					late = late[:len(late)-1]
					d.Do(last) // it uses its buffer to the end
					last.Done.Released(last)
				}
				if len(d.queue) == 0 {
					for _, r := range late {
						r.Done.Released(r)
					}
					late = nil
				}
			}
		})
	}
	return d
}

func (d *moody) Submit(r *volume.Request) bool {
	switch (r.Offset / 512) % 3 {
	case 0:
		return d.Memory.Submit(r)
	case 1:
		r.Err = drivers.ErrNoSpace
		return true
	}
	d.queue <- r
	return false
}

func (d *moody) close() {
	close(d.queue)
	d.workers.Wait()
}

// Clients of all kinds come, ask for much at once, and go without a word.
func TestClientsThatComeAndGo(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	d := newMoody(nbdtest.NewMemory(8*mib), seed)
	t.Cleanup(d.close)
	r := serve(t, map[string]nbd.Device{"disk": d}, nbd.Options{MaxInFlight: 64 << 20, MaxRequests: 16})
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 100+w))
			for range 25 {
				visit(t, r, rng)
			}
		})
	}
	wg.Wait()
}

// visit is the life of one client.
func visit(t *testing.T, r *rig, rng *rand.Rand) {
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Error(err)
		return
	}
	opts := client.Options{Export: "disk", Structured: rng.IntN(2) == 0}
	if rng.IntN(2) == 0 {
		opts.MetaContexts = []string{proto.BaseAllocation}
	}
	c, err := client.New(context.Background(), conn, opts)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	var flying sync.WaitGroup
	defer flying.Wait()
	kinds := []client.Kind{client.Read, client.Read, client.Write, client.Write, client.Flush, client.Trim, client.Cache, client.WriteZeroes}
	if len(c.Contexts) > 0 {
		kinds = append(kinds, client.BlockStatus)
	}
	n := rng.IntN(100)
	cut := rng.IntN(2 * (n + 1))
	for i := range n {
		op := &client.Op{Kind: kinds[rng.IntN(len(kinds))]}
		if op.Kind != client.Flush {
			op.Length = 1 + rng.Int64N(5000)
			if rng.IntN(10) == 0 {
				op.Length = 1 + rng.Int64N(2*mib)
			}
			op.Offset = rng.Int64N(8*mib - op.Length)
		}
		if op.Kind == client.Read || op.Kind == client.Write {
			op.Data = make([]byte, op.Length)
		}
		flying.Add(1)
		op.Done = func(op *client.Op) {
			if errors.Is(op.Err, client.ErrProtocol) {
				t.Error(op.Err)
			}
			flying.Done()
		}
		c.Submit(op)
		if i == cut {
			conn.Close()
		}
	}
}
