package drivers_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/local"
	"skerry/drivers/mem"
)

const benchName = "v/0123456789abcdef0123456789abcdef/data/0/1.1.1"

func benchEngine(b *testing.B, backend drivers.Backend) *drivers.Engine {
	e := drivers.NewEngine(backend, drivers.Options{})
	b.Cleanup(func() {
		if err := e.Close(); err != nil {
			b.Error(err)
		}
	})
	c := e.Client(drivers.LaneGuest, 1, nil)
	if err := c.Create(b.Context(), benchName); err != nil {
		b.Fatal(err)
	}
	if err := c.WriteAt(b.Context(), benchName, make([]byte, 4<<20), 0); err != nil {
		b.Fatal(err)
	}
	return e
}

func openLocal(b *testing.B) drivers.Backend {
	l, err := local.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

// BenchmarkEngine does 4 KiB operations one after the other: inline, and through a worker.
func BenchmarkEngine(b *testing.B) {
	for _, s := range []struct {
		name string
		make func(b *testing.B) drivers.Backend
	}{
		{"mem/inline", func(*testing.B) drivers.Backend { return mem.New(mem.Options{DurableWrites: true}) }},
		{"mem/queued", func(*testing.B) drivers.Backend { return mem.New(mem.Options{DurableWrites: true, NoInline: true}) }},
		{"local", openLocal},
	} {
		for _, kind := range []drivers.Kind{drivers.OpRead, drivers.OpWrite} {
			b.Run(s.name+"/"+kind.String(), func(b *testing.B) {
				e := benchEngine(b, s.make(b))
				ended := make(chan struct{}, 1)
				op := &drivers.Op{Kind: kind, Lane: drivers.LaneGuest, Tenant: 1, Data: make([]byte, 4096),
					Done: completer(func(*drivers.Op) { ended <- struct{}{} })}
				op.Name = append(op.Scratch[:0], benchName...)
				b.ReportAllocs()
				b.SetBytes(4096)
				for i := 0; b.Loop(); i++ {
					op.Off = int64(i) % 1024 * 4096
					if !e.Submit(op) {
						<-ended
					}
					if op.Err != nil {
						b.Fatal(op.Err)
					}
				}
			})
		}
	}
}

// BenchmarkClient is what code that waits pays.
func BenchmarkClient(b *testing.B) {
	e := benchEngine(b, mem.New(mem.Options{DurableWrites: true, NoInline: true}))
	c := e.Client(drivers.LaneGuest, 1, nil)
	p := make([]byte, 4096)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.ReadAt(ctx, benchName, p, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDepth64 keeps 64 queued reads in flight.
func BenchmarkDepth64(b *testing.B) {
	e := benchEngine(b, mem.New(mem.Options{DurableWrites: true, NoInline: true}))
	free := make(chan *drivers.Op, 64)
	for range cap(free) {
		op := &drivers.Op{Kind: drivers.OpRead, Lane: drivers.LaneGuest, Data: make([]byte, 4096),
			Done: completer(func(op *drivers.Op) { free <- op })}
		op.Name = append(op.Scratch[:0], benchName...)
		free <- op
	}
	b.ReportAllocs()
	for b.Loop() {
		if op := <-free; e.Submit(op) {
			b.Fatal("done inline")
		}
	}
	for range cap(free) {
		<-free
	}
}

// BenchmarkReadsBesideSlowMetadata tells the latency of 4 KiB reads on an idle backend, and on one whose unlink and stat
// take 2 s, with 10,000 deletes queued in the background lane and stats in the meta lane.
func BenchmarkReadsBesideSlowMetadata(b *testing.B) {
	for _, busy := range []bool{false, true} {
		b.Run(map[bool]string{false: "idle", true: "busy"}[busy], func(b *testing.B) {
			// Not inline: each read takes its way through the lane.
			f := faulty.Wrap(mem.New(mem.Options{DurableWrites: true, NoInline: true}))
			e := benchEngine(b, f)
			stop := make(chan struct{})
			if busy {
				f.SetHook(func(c faulty.Call) faulty.Action {
					if c.Kind == drivers.OpUnlink || c.Kind == drivers.OpStat {
						timer := time.NewTimer(2 * time.Second)
						defer timer.Stop()
						select {
						case <-timer.C:
						case <-stop:
						}
					}
					return faulty.Pass()
				})
				for i := range 10_000 {
					e.Submit(opOf(drivers.OpUnlink, drivers.LaneBackground, fmt.Sprintf("v/%d", i), nil))
				}
				for range 100 {
					e.Submit(opOf(drivers.OpStat, drivers.LaneMeta, benchName, nil))
				}
			}
			c := e.Client(drivers.LaneGuest, 1, nil)
			p := make([]byte, 4096)
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				if err := c.ReadAt(b.Context(), benchName, p, 0); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			close(stop)
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
		})
	}
}
