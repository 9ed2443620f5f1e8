package journal

import (
	"context"
	"fmt"
	"testing"
)

// nullStore takes writes and forgets them.
type nullStore struct{}

func (nullStore) Create(context.Context, string) error                 { return nil }
func (nullStore) Allocate(context.Context, string, int64, int64) error { return nil }
func (nullStore) ReadAt(context.Context, string, []byte, int64) error  { return nil }
func (nullStore) WriteAt(context.Context, string, []byte, int64) error { return nil }
func (nullStore) Sync(context.Context, string) error                   { return nil }
func (nullStore) SyncGroup(context.Context, string) error              { return nil }

func TestAppendAndSyncAllocateNothing(t *testing.T) {
	w := create(t, nullStore{}, DefaultSize)
	ctx := t.Context()
	var b Batch
	data := fill(1, 8)
	n := testing.AllocsPerRun(2000, func() {
		b.Reset()
		b.Touch(someObject)
		b.Delta(someObject, 3, 4, false, false)
		b.AsOf(w.Last())
		b.Data(someObject, 8, data)
		b.Supersede(someObject, 3, 4)
		b.Flush(w.Last())
		seq, err := w.Append(ctx, &b)
		if err == nil {
			err = w.Sync(ctx, seq)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.Release(w.Head())
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, blocks := range []int{0, 1, 8, 64} {
		b.Run(fmt.Sprintf("blocks=%d", blocks), func(b *testing.B) {
			w := create(b, nullStore{}, DefaultSize)
			data := fill(1, blocks)
			ctx := b.Context()
			var batch Batch
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				batch.Reset()
				batch.Delta(someObject, 0, 1, false, false)
				if blocks > 0 {
					batch.Data(someObject, 0, data)
				}
				if _, err := w.Append(ctx, &batch); err != nil {
					b.Fatal(err)
				}
				w.Release(w.Head())
			}
		})
	}
}

func BenchmarkAppendParallel(b *testing.B) {
	w := create(b, nullStore{}, DefaultSize)
	ctx := b.Context()
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		var batch Batch
		for pb.Next() {
			batch.Reset()
			batch.Delta(someObject, 0, 1, false, false)
			if _, err := w.Append(ctx, &batch); err != nil {
				b.Error(err)
				return
			}
			w.Release(w.Head())
		}
	})
}

func BenchmarkFold(b *testing.B) {
	s := newMemStore()
	w := create(b, s, MaxSize)
	start := w.Head()
	var batch Batch
	data := fill(1, 4)
	for i := uint64(0); w.Live() < MaxSize-MaxFrame; i++ {
		batch.Reset()
		o := Object{Chunk: i % 1000, Serial: 1}
		batch.Delta(o, int(i%1000), int(i%1000)+4, false, false)
		batch.Data(o, int(i%1000), data)
		batch.Flush(w.Last())
		add(b, w, &batch)
	}
	b.SetBytes(w.Live())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Fold(b.Context(), s, testVolume, PowerLost, Source{testGeneration, start}); err != nil {
			b.Fatal(err)
		}
	}
}
