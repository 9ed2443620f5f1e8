package load_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/load"
	"skerry/nbd/nbdtest"
	"skerry/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve shows a device and returns how to connect to it.
func serve(t testing.TB, d nbd.Device) func(context.Context) (*client.Client, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "load")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := nbd.NewServer(nbdtest.NewExports(map[string]nbd.Device{"disk": d}), nbd.Options{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := errors.Join(server.Shutdown(ctx), <-served); err != nil {
			t.Error(err)
		}
	})
	return func(ctx context.Context) (*client.Client, error) {
		return client.Dial(ctx, "unix", socket, client.Options{Export: "disk", TryStructured: true})
	}
}

// config is a load that ends soon.
func config(count int64) load.Config {
	return load.Config{Mix: load.Mix{Read: 70, Write: 30}, Block: 4096, Depth: 8, Conns: 1, Count: count, Seed: 1}
}

// tally counts the requests that reach a device.
type tally struct {
	*nbdtest.Memory
	kinds    [16]atomic.Int64
	fua      atomic.Int64
	unsynced atomic.Int64                  // changes since the last flush
	most     atomic.Int64                  // of unsynced
	drop     func(r *volume.Request) bool  // the request is answered without being done
	spoil    func(r *volume.Request) error // called after a request was done
}

func (d *tally) Submit(r *volume.Request) bool {
	d.kinds[r.Kind].Add(1)
	if r.Flags&volume.FUA != 0 {
		d.fua.Add(1)
	}
	switch r.Kind {
	case volume.Write, volume.Discard, volume.WriteZeroes:
		n := d.unsynced.Add(1)
		for m := d.most.Load(); n > m && !d.most.CompareAndSwap(m, n); m = d.most.Load() {
		}
	case volume.Flush:
		d.unsynced.Store(0)
	}
	if d.drop != nil && d.drop(r) {
		return true
	}
	r.Err = d.Do(r)
	if r.Err == nil && d.spoil != nil {
		r.Err = d.spoil(r)
	}
	return true
}

func TestAllThatIsAskedForIsDone(t *testing.T) {
	for _, conns := range []int{1, 3} {
		d := &tally{Memory: nbdtest.NewMemory(8 << 20)}
		c := config(5000)
		c.Mix, c.Conns, c.FlushEvery, c.Verify, c.Fill = load.Mix{Read: 40, Write: 40, Zero: 10, Trim: 10}, conns, 8, true, true
		r, err := load.Run(t.Context(), serve(t, d), c)
		if err != nil {
			t.Fatal(err)
		}
		if r.Requests != c.Count || r.Bytes != c.Count*c.Block || r.Seconds <= 0 || r.IOPS <= 0 || r.Rate != r.IOPS*float64(c.Block) {
			t.Errorf("%d connections: got %+v", conns, r)
		}
		sent := map[string]int64{
			"read": d.kinds[volume.Read].Load() - 2*int64(conns), "write": d.kinds[volume.Write].Load() - c.Block/2,
			"zero": d.kinds[volume.WriteZeroes].Load(), "trim": d.kinds[volume.Discard].Load(), "flush": d.kinds[volume.Flush].Load() - 1,
		}
		for _, k := range r.Kinds {
			if sent[k.Kind] != k.Requests || k.Requests == 0 || k.Latency.Max < k.Latency.P50 {
				t.Errorf("%d connections: the device had %d %ss: %+v", conns, sent[k.Kind], k.Kind, k)
			}
		}
		if len(r.Kinds) != 5 || r.Verified < r.Requests/4 {
			t.Errorf("%d connections: %d kinds, %d reads verified", conns, len(r.Kinds), r.Verified)
		}
		if conns == 1 && d.most.Load() > 2048 {
			t.Errorf("there were %d changes between flushes", d.most.Load())
		}
	}
}

func TestFlushComesAfterAsManyChanges(t *testing.T) {
	d := &tally{Memory: nbdtest.NewMemory(8 << 20)}
	c := config(800)
	c.Mix, c.Depth, c.FlushEvery = load.Mix{Write: 100}, 64, 8
	if _, err := load.Run(t.Context(), serve(t, d), c); err != nil {
		t.Fatal(err)
	}
	if d.most.Load() != 8 || d.kinds[volume.Flush].Load() != 100 {
		t.Errorf("up to %d changes between %d flushes, want 8 between 100", d.most.Load(), d.kinds[volume.Flush].Load())
	}
}

func TestFUAIsSet(t *testing.T) {
	d := &tally{Memory: nbdtest.NewMemory(1 << 20)}
	c := config(100)
	c.Mix, c.FUA = load.Mix{Write: 100}, true
	if _, err := load.Run(t.Context(), serve(t, d), c); err != nil {
		t.Fatal(err)
	}
	if d.fua.Load() != 100 {
		t.Errorf("%d of 100 writes had FUA", d.fua.Load())
	}
}

func TestPatternsVisitTheRange(t *testing.T) {
	const block, slots, first = 4096, 1000, 24
	for _, p := range []load.Pattern{load.Sequential, load.Shuffle} {
		for _, conns := range []int{1, 3} {
			visits := make([]atomic.Int64, 2048)
			d := &tally{Memory: nbdtest.NewMemory(len(visits) * block)}
			d.spoil = func(r *volume.Request) error {
				if r.Kind == volume.Write {
					visits[r.Offset/block].Add(1)
				}
				return nil
			}
			c := config(slots)
			c.Mix, c.Pattern, c.Offset, c.Size, c.Conns = load.Mix{Write: 100}, p, first*block, slots*block, conns
			if p == load.Shuffle {
				c.Count = 0
			}
			if _, err := load.Run(t.Context(), serve(t, d), c); err != nil {
				t.Fatal(err)
			}
			for i := range visits {
				want := int64(0)
				if i >= first && i < first+slots {
					want = 1
				}
				if got := visits[i].Load(); got != want {
					t.Fatalf("%v with %d connections: block %d visited %d times, want %d", p, conns, i, got, want)
				}
			}
		}
	}
}

func TestWhatIsNotPossible(t *testing.T) {
	readOnly := serve(t, nbdtest.NewReadOnly(make([]byte, 1<<20)))
	odd := serve(t, nbdtest.NewMemory(1<<20))
	for name, change := range map[string]func(c *load.Config){
		"range beyond the end":     func(c *load.Config) { c.Offset, c.Size = 512<<10, 1<<20 },
		"range that wraps":         func(c *load.Config) { c.Size = 1<<63 - 4096 },
		"negative range":           func(c *load.Config) { c.Offset = -4096 },
		"half a block":             func(c *load.Config) { c.Offset = 2048 },
		"no block":                 func(c *load.Config) { c.Block = 0 },
		"no depth":                 func(c *load.Config) { c.Depth = 0 },
		"too deep":                 func(c *load.Config) { c.Depth = load.MaxDepth + 1 },
		"too many connections":     func(c *load.Config) { c.Conns = load.MaxConnections + 1 },
		"no connection":            func(c *load.Config) { c.Conns = 0 },
		"no end":                   func(c *load.Config) { c.Count = 0 },
		"shares of 90":             func(c *load.Config) { c.Mix.Read = 60 },
		"negative share":           func(c *load.Config) { c.Mix = load.Mix{Read: 110, Write: -10} },
		"verified bytes":           func(c *load.Config) { c.Block, c.Verify = 100, true },
		"verified in a tiny range": func(c *load.Config) { c.Size, c.Verify = 8*4096, true },
		"requests of 64 MiB":       func(c *load.Config) { c.Block = 64 << 20 },
	} {
		c := config(10)
		change(&c)
		if _, err := load.Run(t.Context(), odd, c); !errors.Is(err, load.ErrUnfit) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := load.Run(t.Context(), readOnly, config(10)); !errors.Is(err, load.ErrUnfit) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("read-only export: got %v", err)
	}
}

func TestErrorsEndTheLoad(t *testing.T) {
	d := &tally{Memory: nbdtest.NewMemory(1 << 20)}
	d.spoil = func(r *volume.Request) error {
		if d.kinds[volume.Write].Load() == 100 {
			return errors.New("no")
		}
		return nil
	}
	c := config(0)
	c.Time, c.Conns = time.Hour, 2
	_, err := load.Run(t.Context(), serve(t, d), c)
	if !errors.Is(err, client.EIO) {
		t.Errorf("got %v", err)
	}
}

func TestCancelEndsTheLoad(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := &tally{Memory: nbdtest.NewMemory(1 << 20)}
	d.spoil = func(*volume.Request) error {
		if d.kinds[volume.Read].Load() == 100 {
			cancel()
		}
		return nil
	}
	c := config(0)
	c.Time, c.Conns = time.Hour, 2
	if _, err := load.Run(ctx, serve(t, d), c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestRequestsAllocateNothing counts what both sides allocate, in one process.
func TestRequestsAllocateNothing(t *testing.T) {
	dial := serve(t, nbdtest.Null(64<<20))
	allocated := func(count int64) float64 {
		c := config(count)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := load.Run(t.Context(), dial, c); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return float64(after.Mallocs - before.Mallocs)
	}
	allocated(1000)
	if each := (allocated(50_000) - allocated(10_000)) / 40_000; each > 0.01 {
		t.Errorf("%.3f allocations for each request", each)
	}
}
