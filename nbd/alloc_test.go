package nbd_test

import (
	"runtime"
	"testing"

	"skerry/nbd/client"
	"skerry/nbd/nbdtest"
)

// Server and client together allocate nothing per request in steady state.
func TestRequestsAllocateNothing(t *testing.T) {
	later := nbdtest.NewLater(nbdtest.NewMemory(80*mib), 2)
	t.Cleanup(later.Close)
	null, late := serveOne(t, nbdtest.Null(1<<30)), serveOne(t, later)
	for _, x := range []struct {
		name  string
		rig   *rig
		kind  client.Kind
		size  int
		depth int
	}{
		{"read 4K", null, client.Read, 4 << 10, 64},
		{"write 4K", null, client.Write, 4 << 10, 64},
		{"read 256K", null, client.Read, 256 << 10, 8},
		{"write 256K", null, client.Write, 256 << 10, 8},
		{"read holes, later", late, client.Read, 16 << 10, 64},
		{"write 4K, later", late, client.Write, 4 << 10, 64},
		{"write 128K, later", late, client.Write, 128 << 10, 8},
		{"write 1M, later", late, client.Write, 1 << 20, 32},
		{"read 1M", null, client.Read, 1 << 20, 32},
		{"flush", null, client.Flush, 0, 64},
	} {
		c := x.rig.dialWith(client.Options{Export: "disk", Structured: true})
		run := func(n int) {
			if err := load(c, x.kind, x.size, x.depth, n); err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
		}
		run(1000) // fills pools and queues
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const n = 1000
		run(n)
		runtime.ReadMemStats(&after)
		// The load itself allocates its ops, some hundred things.
		if got := int(after.Mallocs - before.Mallocs); got > 4*x.depth+100 {
			t.Errorf("%s: %d allocations in %d requests", x.name, got, n)
		}
		must(t, c.Close())
	}
}
