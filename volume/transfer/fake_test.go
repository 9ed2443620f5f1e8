package transfer

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"skerry/chunk"
	"skerry/volume"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// disk is a device in memory.
type disk struct {
	mu      sync.Mutex
	data    []byte
	written int64
	flushes int
	// fail, if not nil, is asked before each read and write.
	fail func(kind volume.Kind, off int64) error
}

func newDisk(size int) *disk { return &disk{data: make([]byte, size)} }

func (d *disk) Size() int64 { return int64(len(d.data)) }

func (d *disk) check(kind volume.Kind, off int64, n int) error {
	if off < 0 || off+int64(n) > d.Size() {
		return volume.ErrOutOfRange
	}
	if d.fail != nil {
		return d.fail(kind, off)
	}
	return nil
}

func (d *disk) WriteAt(ctx context.Context, p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(volume.Write, off, len(p)); err != nil {
		return err
	}
	copy(d.data[off:], p)
	d.written += int64(len(p))
	return ctx.Err()
}

func (d *disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(volume.Read, off, len(p)); err != nil {
		return err
	}
	copy(p, d.data[off:])
	return ctx.Err()
}

func (d *disk) Flush(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(volume.Flush, 0, 0); err != nil {
		return err
	}
	d.flushes++
	return nil
}

// Extents shows runs of blocks.
func (d *disk) Extents(_ context.Context, off, n int64, fn func(volume.Extent) bool) error {
	for end := off + n; off < end; {
		p := d.data[off:end]
		e := volume.Extent{Offset: off, Length: int64(dataRun(p, true)), Flags: volume.Zero}
		if e.Length == 0 {
			e.Length, e.Flags = int64(dataRun(p, false)), 0
		}
		if !fn(e) {
			return nil
		}
		off += e.Length
	}
	return nil
}

// sparse returns size bytes in which about one block of eight, and some longer runs, are random.
func sparse(size int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for off := 0; off < size; off += chunk.BlockSize {
		if rng.IntN(8) == 0 {
			for i := off; i < min(size, off+chunk.BlockSize*(1+rng.IntN(4))); i++ {
				b[i] = byte(rng.Uint32() >> 9)
			}
		}
	}
	return b
}

// file writes an image to a file of the test's own.
func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string, format Format) *Image {
	t.Helper()
	img, err := OpenFile(t.Context(), path, OpenOptions{Format: format})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	})
	return img
}

func same(t *testing.T, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("byte %d is %#x, want %#x", i, got[i], want[i])
			}
		}
	}
}
