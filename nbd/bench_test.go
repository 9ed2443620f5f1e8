package nbd_test

import (
	"testing"

	"skerry/nbd/client"
	"skerry/nbd/nbdtest"
)

// load keeps depth requests of one kind in flight until n have ended.
func load(c *client.Client, kind client.Kind, size, depth, n int) error {
	var err error
	left, flying := n, 0
	done := make(chan struct{})
	ops := make([]client.Op, depth)
	// Done runs on one goroutine, so it needs no lock; the first submissions are made from there too.
	next := func(op *client.Op) {
		if op.Err != nil && err == nil {
			err = op.Err
		}
		flying--
		if left > 0 && err == nil {
			left--
			flying++
			op.Offset = (op.Offset + int64(size)*97) % (64 << 20)
			c.Submit(op)
		}
		if flying == 0 {
			close(done)
		}
	}
	start := &client.Op{Kind: client.Flush, Done: func(op *client.Op) {
		if err = op.Err; err != nil {
			close(done)
			return
		}
		flying = depth
		for i := range ops {
			ops[i] = client.Op{Kind: kind, Data: make([]byte, size), Done: next}
			next(&ops[i])
		}
	}}
	c.Submit(start)
	<-done
	return err
}

func benchmark(b *testing.B, kind client.Kind, size, depth int) {
	c := serveOne(b, nbdtest.Null(1<<30)).dialWith(client.Options{Export: "disk", Structured: true})
	if err := load(c, kind, size, depth, 4*depth); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	if err := load(c, kind, size, depth, b.N); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkRead4K(b *testing.B)       { benchmark(b, client.Read, 4<<10, 64) }
func BenchmarkWrite4K(b *testing.B)      { benchmark(b, client.Write, 4<<10, 64) }
func BenchmarkRead4KDepth1(b *testing.B) { benchmark(b, client.Read, 4<<10, 1) }
func BenchmarkRead64K(b *testing.B)      { benchmark(b, client.Read, 64<<10, 16) }
func BenchmarkWrite64K(b *testing.B)     { benchmark(b, client.Write, 64<<10, 16) }
func BenchmarkRead1M(b *testing.B)       { benchmark(b, client.Read, 1<<20, 8) }
func BenchmarkWrite1M(b *testing.B)      { benchmark(b, client.Write, 1<<20, 8) }
