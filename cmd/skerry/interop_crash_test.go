package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"skerry/nbd/client"
)

// Requests of many clients are answered, or in flight, when the server is killed; then all that was answered must be there,
// and of each sector of what was in flight the old content or the new.

const (
	sector     = 512
	crashSize  = 24 * mib
	crashUsers = 6
)

// area is a run of bytes that only one client writes, so that the model knows the order of its writes.
type area struct{ from, to int64 }

// areas divides the volume among its clients: small areas, which share blocks with their neighbours', then large ones, which lie
// across chunks.
func areas() [crashUsers][]area {
	var all [crashUsers][]area
	at := int64(0)
	for i := 0; at < crashSize; i++ {
		n := int64(13 * sector)
		if at >= 10*mib {
			n = 1500*1024 + sector
		}
		to := min(at+n, crashSize)
		all[i%crashUsers] = append(all[i%crashUsers], area{at, to})
		at = to
	}
	return all
}

// change is a request that changes [off, off+len(data)) to data.
type change struct {
	off  int64
	data []byte
}

// crashUser is one client: its areas, and what it has in flight.
type crashUser struct {
	areas  []area
	rand   *rand.Rand
	flight []change
}

// one makes a request; what was answered goes into the model.
func (u *crashUser) one(c *client.Client, model []byte) error {
	if u.rand.IntN(12) == 0 {
		return c.Flush()
	}
	a := u.areas[u.rand.IntN(len(u.areas))]
	if u.rand.IntN(3) > 0 {
		a = u.areas[u.rand.IntN(8)] // the same few again and again
	}
	sectors := (a.to - a.from) / sector
	from := u.rand.Int64N(sectors)
	n := 1 + u.rand.Int64N(min(sectors-from, 200))
	ch := change{a.from + from*sector, make([]byte, n*sector)}
	var flags uint16
	if u.rand.IntN(8) == 0 {
		flags = client.FUA
	}
	kind := u.rand.IntN(10)
	if kind > 1 {
		for b := ch.data; len(b) > 0; b = b[sector:] {
			copy(b, strconv.FormatUint(u.rand.Uint64(), 36)) // no two sectors alike
		}
	}
	u.flight = append(u.flight, ch)
	var err error
	switch kind {
	case 0:
		err = c.Trim(ch.off, n*sector, flags)
	case 1:
		err = c.WriteZeroes(ch.off, n*sector, flags)
	default:
		err = c.Write(ch.data, ch.off, flags)
	}
	if err != nil {
		return err
	}
	u.flight = u.flight[:0]
	copy(model[ch.off:], ch.data)
	return nil
}

// settle compares the volume with the model, and takes over what became of the requests in flight.
func (u *crashUser) settle(t *testing.T, model, got []byte) {
	for _, ch := range u.flight {
		for i := int64(0); i < int64(len(ch.data)); i += sector {
			at := ch.off + i
			if bytes.Equal(got[at:at+sector], ch.data[i:i+sector]) {
				copy(model[at:at+sector], ch.data[i:])
			}
		}
	}
	u.flight = nil
	for _, a := range u.areas {
		for at := a.from; at < a.to; at += sector {
			if !bytes.Equal(got[at:at+sector], model[at:at+sector]) {
				t.Fatalf("the sector at %d is %.16q, want %.16q", at, got[at:], model[at:])
			}
		}
	}
}

// crashes is a volume whose servers are killed.
type crashes struct {
	w     *world
	rand  *rand.Rand
	users [crashUsers]*crashUser
	model []byte
	taken map[string][32]byte // snapshots, with the digests of their content
	torn  int                 // snapshots that were being taken when the server was killed
	s     *server
}

func TestCrashKilledServersLoseNothing(t *testing.T) {
	rounds, seed := 20, rand.Uint64()
	if os.Getenv("SKERRY_SOAK") != "" {
		rounds = 1000
	}
	if s := os.Getenv("SKERRY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed: SKERRY_SEED=%d", seed)
	x := &crashes{w: newPool(t), rand: rand.New(rand.NewPCG(seed, 0)), model: noise(crashSize, 1), taken: map[string][32]byte{}}
	clear(x.model[3*mib : 5*mib])
	clear(x.model[15*mib : 20*mib])
	for i, a := range areas() {
		x.users[i] = &crashUser{areas: a, rand: rand.New(rand.NewPCG(seed, uint64(i+1)))}
	}
	x.w.put("base", x.model)
	x.w.ok("snapshot", "-q", "base@s")
	x.w.ok("clone", "-q", "base@s", "vm1")
	x.taken["base@s"] = sha256.Sum256(x.model)
	x.s = x.w.serve(1, "vm1", "--nbd", "unix:s")
	for round := range rounds {
		x.snapshots(round)
		x.round()
		x.w.undamaged()
		x.s = x.s.again()
		x.settle(t)
	}
	c := x.w.dial(x.s, "vm1")
	c.flush()
	c.close()
	x.s.stop()
	x.taken["vm1"] = sha256.Sum256(x.model)
	x.w.ok("gc", "-q")
	for name, want := range x.taken {
		if got := sha256.Sum256([]byte(x.w.ok("export", "-q", name, "-"))); got != want {
			t.Errorf("%s is not what it was", name)
		}
	}
	for i := range x.torn {
		if name := fmt.Sprintf("vm1@torn%d", i+1); x.w.run(nil, "info", name).code == 0 {
			x.w.ok("export", "-q", name, "-") // it came to be, so it can be read
		}
	}
	x.w.undamaged()
}

// snapshots takes a snapshot at times, of what may never have been flushed, and removes one.
func (x *crashes) snapshots(round int) {
	if x.rand.IntN(3) > 0 {
		return
	}
	name := fmt.Sprintf("vm1@s%d", round)
	x.w.ok("snapshot", "-q", name)
	x.taken[name] = sha256.Sum256(x.model)
	if x.rand.IntN(2) == 0 {
		return
	}
	for old := range x.taken {
		if old != name && old != "base@s" {
			x.w.ok("rm", "-q", old)
			delete(x.taken, old)
			return
		}
	}
}

// round lets the clients write until the server is killed, after some number of answers. At times a snapshot is being taken then,
// which may come to be or not.
func (x *crashes) round() {
	var answers atomic.Int64
	enough := 1 + x.rand.Int64N(1<<(2+x.rand.IntN(10)))
	kill := make(chan struct{})
	var all sync.WaitGroup
	for _, u := range x.users {
		c := x.w.dial(x.s, "vm1")
		all.Go(func() {
			for u.one(c.Client, x.model) == nil {
				if answers.Add(1) == enough {
					close(kill)
				}
			}
		})
	}
	if x.rand.IntN(4) == 0 {
		x.torn++
		all.Go(func() { x.w.run(nil, "snapshot", "-q", fmt.Sprintf("vm1@torn%d", x.torn)) })
	}
	<-kill
	x.s.kill()
	all.Wait()
}

// settle compares what the new server shows with the model.
func (x *crashes) settle(t *testing.T) {
	t.Helper()
	c := x.w.dial(x.s, "vm1")
	defer c.close()
	var got []byte
	for p := range slices.Chunk(make([]byte, crashSize), 4*mib) {
		if err := c.Read(p, int64(len(got))); err != nil {
			t.Fatal(err)
		}
		got = append(got, p...)
	}
	for _, u := range x.users {
		u.settle(t, x.model, got)
	}
}
