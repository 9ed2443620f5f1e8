package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/transfer"
)

// The tests of this file copy into and out of volumes of a pool in memory.

const mib = 1 << 20

// withPool opens the pool on b, makes it if it is missing, calls do and closes it.
func withPool(t *testing.T, b drivers.Backend, do func(p *catalog.Pool)) {
	t.Helper()
	ctx := context.Background()
	e := drivers.NewEngine(b, drivers.Options{})
	if err := catalog.Init(ctx, e); err != nil && !errors.Is(err, catalog.ErrPoolExists) {
		t.Fatal(err)
	}
	p, err := catalog.Open(ctx, e, catalog.Options{Identity: locking.Identity{Host: "test", Boot: [16]byte{1}, PID: 1}})
	if err != nil {
		t.Fatal(err)
	}
	do(p)
	if err := errors.Join(p.Close(ctx), e.Close()); err != nil {
		t.Error(err)
	}
}

// content returns n bytes with data in runs of odd lengths, and zeros between them.
func content(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for off := 0; off < n; off += rng.IntN(700_000) {
		for i := off; i < min(n, off+rng.IntN(200_000)); i++ {
			b[i] = byte(rng.Uint32()>>8) | 1
		}
	}
	return b
}

func imageOf(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// importAs imports an image as the skerry command does: what fails is given up and leaves nothing.
func importAs(ctx context.Context, p *catalog.Pool, path, name string, chunkSize int64, o transfer.Options) error {
	img, err := transfer.OpenFile(ctx, path, transfer.OpenOptions{Format: transfer.Raw})
	if err != nil {
		return err
	}
	c, err := p.Begin(ctx, name, catalog.CreateOptions{Size: img.VolumeSize(), ChunkSize: chunkSize})
	if err != nil {
		return errors.Join(err, img.Close())
	}
	if _, err = transfer.Import(ctx, img, c.Device(), o); err == nil {
		_, err = c.Commit(ctx)
	}
	if err != nil {
		err = errors.Join(err, c.Abort(context.WithoutCancel(ctx)))
	}
	return errors.Join(err, img.Close())
}

func wants(t *testing.T, dev transfer.Origin, want []byte) {
	t.Helper()
	var b bytes.Buffer
	if _, err := transfer.ExportStream(t.Context(), dev, &b, transfer.ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Fatalf("%d bytes that are not the %d wanted", b.Len(), len(want))
	}
}

func closed(t *testing.T, dev *volume.Device) {
	t.Helper()
	if err := dev.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestB09ImportedVolumeSurvivesPowerLoss(t *testing.T) {
	for _, chunkSize := range []int64{chunk.MinSize, mib, chunk.DefaultSize, chunk.MaxSize} {
		t.Run(fmt.Sprint(chunkSize), func(t *testing.T) {
			want := content(20*mib+512, uint64(chunkSize))
			path := imageOf(t, want)
			b := mem.New(mem.Options{})
			withPool(t, b, func(p *catalog.Pool) {
				if err := importAs(t.Context(), p, path, "vm1", chunkSize, transfer.Options{}); err != nil {
					t.Fatal(err)
				}
				// Power fails as soon as the import is done.
				withPool(t, b.Crash(mem.KeepNone), func(p *catalog.Pool) {
					dev, err := p.OpenVolume(t.Context(), "vm1")
					if err != nil {
						t.Fatal(err)
					}
					wants(t, dev, want)
					closed(t, dev)
				})
			})
		})
	}
}

func TestExportedCloneIsWhatItWas(t *testing.T) {
	base := content(12*mib, 1)
	withPool(t, mem.New(mem.Options{}), func(p *catalog.Pool) {
		ctx := t.Context()
		if err := importAs(ctx, p, imageOf(t, base), "base", 0, transfer.Options{}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Snapshot(ctx, catalog.Ref{Volume: "base", Snapshot: "s"}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Clone(ctx, catalog.Ref{Volume: "base", Snapshot: "s"}, "vm1", catalog.CloneOptions{Size: 14 * mib}); err != nil {
			t.Fatal(err)
		}
		dev, err := p.OpenVolume(ctx, "vm1")
		if err != nil {
			t.Fatal(err)
		}
		want := append(bytes.Clone(base), make([]byte, 2*mib)...)
		rng := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			data := content(1+rng.IntN(50_000), rng.Uint64())
			off := rng.IntN(len(want) - len(data))
			if err := dev.WriteAt(ctx, data, int64(off)); err != nil {
				t.Fatal(err)
			}
			copy(want[off:], data)
		}
		if err := dev.WriteZeroes(ctx, 3*mib+100, 5*mib); err != nil {
			t.Fatal(err)
		}
		clear(want[3*mib+100 : 8*mib+100])
		path := filepath.Join(t.TempDir(), "out")
		if _, err := transfer.ExportFile(ctx, dev, path, transfer.ExportOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes that are not the %d wanted, %v", len(got), len(want), err)
		}
		closed(t, dev)
		snap, err := p.OpenSnapshot(ctx, catalog.Ref{Volume: "base", Snapshot: "s"})
		if err != nil {
			t.Fatal(err)
		}
		wants(t, snap, base)
		closed(t, snap)
	})
}

// nothingLeft checks that the pool has no volume and no object of one, and that the name is free.
func nothingLeft(t *testing.T, p *catalog.Pool, b drivers.Backend, name string) {
	t.Helper()
	if all, err := p.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("volumes are left: %+v, %v", all, err)
	}
	err := b.List(t.Context(), chunk.VolumesGroup(), func(i drivers.Info) error {
		t.Errorf("%s is left", i.Name)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := p.Create(t.Context(), name, catalog.CreateOptions{Size: mib}); err != nil {
		t.Errorf("the name is not free: %v", err)
	}
}

func TestInterruptedImportLeavesNothing(t *testing.T) {
	path := imageOf(t, content(30*mib, 1))
	b := mem.New(mem.Options{})
	withPool(t, b, func(p *catalog.Pool) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		err := importAs(ctx, p, path, "vm1", 0, transfer.Options{Progress: func(transfer.Progress) { cancel() }})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		nothingLeft(t, p, b, "vm1")
	})
}

func TestImportThatTheStorageRefusesLeavesNothing(t *testing.T) {
	path := imageOf(t, content(10*mib, 1))
	broken := errors.New("broken")
	for _, kind := range []drivers.Kind{drivers.OpWrite, drivers.OpCreate} {
		b := faulty.Wrap(mem.New(mem.Options{NoInline: true}))
		withPool(t, b, func(p *catalog.Pool) {
			var calls atomic.Int64
			b.SetHook(func(c faulty.Call) faulty.Action {
				if _, _, ok := chunk.ParseDataName(c.Name); !ok || c.Kind != kind {
					return faulty.Pass()
				}
				if calls.Add(1) == 3 {
					return faulty.Fail(broken)
				}
				return faulty.Pass()
			})
			err := importAs(t.Context(), p, path, "vm1", mib, transfer.Options{})
			if !errors.Is(err, broken) {
				t.Fatalf("%s: %v", kind, err)
			}
			b.SetHook(nil)
			nothingLeft(t, p, b, "vm1")
		})
	}
}

func TestImportWithoutSpaceLeavesNothing(t *testing.T) {
	path := imageOf(t, bytes.Repeat([]byte("data"), 10*mib))
	b := mem.New(mem.Options{})
	withPool(t, b, func(p *catalog.Pool) {
		b.SetSpace(20 * mib)
		if err := importAs(t.Context(), p, path, "vm1", 0, transfer.Options{}); !errors.Is(err, drivers.ErrNoSpace) {
			t.Fatal(err)
		}
		nothingLeft(t, p, b, "vm1")
	})
}
