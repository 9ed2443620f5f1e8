package volume_test

import (
	"errors"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume"
)

// TestFlattenOfManyChunks goes past the cuts that flatten makes between.
func TestFlattenOfManyChunks(t *testing.T) {
	const chunks = 700
	w := newWorld(t, chunks*chunk.MinSize, chunk.MinSize)
	other := chunk.NewVolumeID()
	for i := range uint64(chunks) {
		o, err := w.storage.Open(t.Context(), chunk.DataName(other, i, mapper.SourceSerial), drivers.Create)
		must(t, err)
		must(t, errors.Join(o.WriteAt([]byte{byte(1 + i%255)}, 0), o.Close()))
	}
	must(t, w.dev.Adopt(t.Context(), other, mapper.SourceSerial, 0, chunks))
	cuts := w.dev.Stats().Cuts
	must(t, w.dev.Flatten(t.Context(), volume.FlattenOptions{}))
	if n := w.dev.Stats().Cuts - cuts; n < 3 {
		t.Errorf("%d cuts", n)
	}
	if owners := w.dev.Root().Owners; len(owners) != 1 {
		t.Errorf("owners %v", owners)
	}
	got := content(t, w.dev)
	for i := range chunks {
		if got[i*chunk.MinSize] != byte(1+i%255) {
			t.Fatalf("chunk %d begins with %d", i, got[i*chunk.MinSize])
		}
	}
}
