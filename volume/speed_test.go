package volume_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/local"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
)

// localDevice returns a new volume in a directory, and the function that closes it cleanly.
func localDevice(tb testing.TB, dir string, root *mapper.Root) (*volume.Device, func()) {
	tb.Helper()
	b, err := local.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return newDevice(tb, b, root)
}

func newDevice(tb testing.TB, b drivers.Backend, root *mapper.Root) (*volume.Device, func()) {
	tb.Helper()
	engine := drivers.NewEngine(b, drivers.Options{})
	identity, err := locking.LocalIdentity()
	if err != nil {
		tb.Fatal(err)
	}
	holder := locking.NewInstance(engine, identity, locking.Options{})
	lease, err := holder.Create(context.Background(), root)
	if err != nil {
		tb.Fatal(err)
	}
	dev, err := volume.Open(context.Background(), volume.Config{Engine: engine, Options: volume.Options{Boot: identity.Boot}}, lease)
	if err != nil {
		tb.Fatal(err)
	}
	return dev, func() {
		if err := dev.Close(context.Background()); err != nil {
			tb.Error(err)
		}
		if err := holder.Close(context.Background()); err != nil {
			tb.Error(err)
		}
		if err := engine.Close(); err != nil {
			tb.Error(err)
		}
	}
}

func newRoot(tb testing.TB, size, chunkSize int64) *mapper.Root {
	tb.Helper()
	geom, err := chunk.NewGeometry(chunkSize)
	if err != nil {
		tb.Fatal(err)
	}
	id := chunk.NewVolumeID()
	return &mapper.Root{Volume: id, State: mapper.Live, Name: "vm1", Size: size, Geometry: geom, Owners: []chunk.VolumeID{id}}
}

// TestInlineRequestsAllocateNothing covers the path of mapped blocks, on storage that never blocks and itself allocates nothing.
func TestInlineRequestsAllocateNothing(t *testing.T) {
	dev, closeAll := newDevice(t, mem.New(mem.Options{DurableWrites: true}), newRoot(t, 1<<20, 64<<10))
	defer closeAll()
	p := make([]byte, 4096)
	if err := dev.WriteAt(t.Context(), p, 4096); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []volume.Kind{volume.Read, volume.Write} {
		r := &volume.Request{Kind: kind, Offset: 4096, Length: 4096, Data: p}
		inline := true
		if n := testing.AllocsPerRun(100, func() { inline = dev.Submit(r) && r.Err == nil && inline }); n != 0 || !inline {
			t.Errorf("kind %d: %v allocations, inline %v", kind, n, inline)
		}
	}
}

// TestL3FirstWritesTakeLittleSpace: scattered small writes to chunks that a snapshot shares take at most twice their bytes.
func TestL3FirstWritesTakeLittleSpace(t *testing.T) {
	const size, writes = 256 << 20, 2000
	dir := t.TempDir()
	root := newRoot(t, size, chunk.DefaultSize)
	dev, closeAll := localDevice(t, dir, root)
	p := make([]byte, chunk.DefaultSize)
	for i := range p {
		p[i] = byte(i>>8) | 1
	}
	for off := int64(0); off < size; off += chunk.DefaultSize {
		if err := dev.WriteAt(t.Context(), p, off); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dev.Snapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	before := usage(t, dir)
	rng := rand.New(rand.NewPCG(1, 1))
	for range writes {
		if err := dev.WriteAt(t.Context(), p[:4096], rng.Int64N(size/4096)*4096); err != nil {
			t.Fatal(err)
		}
	}
	closeAll()
	grown := usage(t, dir) - before
	t.Logf("%d bytes written, %d on disk", writes*4096, grown)
	if grown > 2*writes*4096 {
		t.Errorf("%d bytes written take %d on disk", writes*4096, grown)
	}
}

// usage returns the bytes of disk that the pool in a directory takes, but for journals, which are gone after a clean close.
func usage(tb testing.TB, dir string) (sum int64) {
	tb.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && filepath.Base(filepath.Dir(path)) != string(chunk.Journals) {
			sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return sum
}

// BenchmarkInPlace measures requests to mapped blocks that are done on the caller's goroutine.
func BenchmarkInPlace(b *testing.B) {
	const size = 64 << 20
	dev, closeAll := localDevice(b, b.TempDir(), newRoot(b, size, chunk.DefaultSize))
	defer closeAll()
	p := make([]byte, size)
	if err := dev.WriteAt(b.Context(), p, 0); err != nil {
		b.Fatal(err)
	}
	for name, kind := range map[string]volume.Kind{"read 4K": volume.Read, "write 4K": volume.Write} {
		b.Run(name, func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 1))
			r := &volume.Request{Kind: kind, Length: 4096, Data: p[:4096]}
			b.ReportAllocs()
			for b.Loop() {
				r.Offset = rng.Int64N(size/4096) * 4096
				if err := await(dev, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFlush measures scattered 4 KiB writes and the flush that makes them durable.
func BenchmarkFlush(b *testing.B) {
	for _, writes := range []int{8, 64, 512} {
		b.Run(map[int]string{8: "8 writes", 64: "64 writes", 512: "512 writes"}[writes], func(b *testing.B) {
			const size = 1 << 30
			dev, closeAll := localDevice(b, b.TempDir(), newRoot(b, size, chunk.DefaultSize))
			defer closeAll()
			p := make([]byte, 4096)
			rng := rand.New(rand.NewPCG(1, 1))
			for b.Loop() {
				for range writes {
					if err := dev.WriteAt(b.Context(), p, rng.Int64N(size/4096)*4096); err != nil {
						b.Fatal(err)
					}
				}
				if err := dev.Flush(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
