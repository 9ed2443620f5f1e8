package volume_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume"
)

func TestAdoptedChunksAreCopiedOnWrite(t *testing.T) {
	const chunks = mapper.PageChunks + 3
	w := newWorld(t, chunks*chunk.MinSize, chunk.MinSize)
	ctx := t.Context()
	rng := rand.New(rand.NewPCG(1, 1))
	other := chunk.NewVolumeID()
	want := make([]byte, w.size)
	for _, i := range []uint64{0, 1, chunks - 1} {
		data := fill(rng, chunk.MinSize-100)
		copy(want[i*chunk.MinSize:], data)
		o, err := w.storage.Open(ctx, chunk.DataName(other, i, mapper.SourceSerial), drivers.Create)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(o.WriteAt(data, 0), o.Close()); err != nil {
			t.Fatal(err)
		}
		if err := w.dev.Adopt(ctx, other, mapper.SourceSerial, i, i+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.dev.Adopt(ctx, other, mapper.SourceSerial, 0, 1); err == nil {
		t.Error("a chunk with data adopts another")
	}
	if err := w.dev.Adopt(ctx, other, mapper.SourceSerial, chunks-1, chunks+1); !errors.Is(err, volume.ErrOutOfRange) {
		t.Errorf("beyond the end: %v", err)
	}
	same := func(when string) {
		t.Helper()
		if !bytes.Equal(content(t, w.dev), want) {
			t.Fatalf("%s: the volume is not what it should be", when)
		}
	}
	same("at first")
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	same("opened again")
	copy(want[100:], "some bytes")
	if err := w.dev.WriteAt(ctx, []byte("some bytes"), 100); err != nil {
		t.Fatal(err)
	}
	clear(want[chunk.MinSize:][:chunk.BlockSize])
	if err := w.dev.Discard(ctx, chunk.MinSize, chunk.BlockSize); err != nil {
		t.Fatal(err)
	}
	same("changed")
	w.kill()
	same("after a kill")
	info, err := w.storage.Stat(ctx, chunk.DataName(other, 0, mapper.SourceSerial))
	if err != nil || info.Size != chunk.MinSize-100 {
		t.Errorf("the other volume's object has changed: %+v, %v", info, err)
	}
}
