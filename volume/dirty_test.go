package volume

import (
	"testing"

	"skerry/mapper/journal"
)

// TestFlushCapturesWhatItCovers: a write that ends when a flush notes the last frame that it covers is among the blocks that it makes durable. Else its
// delta would count after a loss of power, and its data be lost.
func TestFlushCapturesWhatItCovers(t *testing.T) {
	d := newDirty(16)
	early, late := journal.Object{Chunk: 1, Serial: 1}, journal.Object{Chunk: 2, Serial: 2}
	d.write(early, 0, 1, nil)
	covers, objects, _, count := d.capture(func() uint64 {
		d.write(late, 3, 5, nil)
		return 7
	})
	if covers != 7 || count != 3 || len(objects) != 2 || objects[0].object != early || objects[1].object != late || !objects[1].blocks.HasAll(3, 5) {
		t.Errorf("covers frame %d with %d blocks: %+v", covers, count, objects)
	}
	if _, _, _, count := d.capture(func() uint64 { return 7 }); count != 0 {
		t.Errorf("%d blocks are captured twice", count)
	}
}
