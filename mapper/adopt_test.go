package mapper

import (
	"testing"

	"skerry/chunk"
)

func TestAdoptedChunksShowAnotherVolume(t *testing.T) {
	rng := random(t)
	ctx := t.Context()
	g := geometry(t, chunk.MinSize)
	id, source := someID(rng), chunk.VolumeID(someID(rng))
	size := g.Size() * (3 * PageChunks)
	store := newMemStore()
	m := New(store, id, g, size, []chunk.VolumeID{id}, nil, 0, 0)
	own := chunk.MakeSerial(1, 1)
	if _, err := m.Publish(ctx, 2*PageChunks, own, 0, 1, false, nil); err != nil {
		t.Fatal(err)
	}
	first, end := uint64(PageChunks-2), uint64(2*PageChunks)
	if err := m.Adopt(ctx, source, SourceSerial, first, end); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		owner      chunk.VolumeID
		first, end uint64
	}{
		"its own objects": {id, 0, 1}, "a chunk that has data": {source, end, end + 1}, "a chunk that was adopted": {source, first, first + 1},
	} {
		if err := m.Adopt(ctx, c.owner, SourceSerial, c.first, c.end); err == nil {
			t.Errorf("a map adopts %s", what)
		}
	}
	if _, err := m.Publish(ctx, first, chunk.MakeSerial(1, 2), 3, 4, false, nil); err != nil {
		t.Fatal(err)
	}
	// All that is there after the pages were stored, too.
	capture := m.Capture()
	serial := chunk.MakeSerial(1, 100)
	err := capture.Store(func() (chunk.Serial, error) { serial++; return serial, nil }, func(name string, b []byte) error {
		store.pages[name] = b
		if len(b) > 8*PageChunks+500 {
			t.Errorf("page %s takes %d bytes", name, len(b))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	owners, refs := capture.Refs()
	capture.Commit()
	for _, m := range []*Map{m, New(store, id, g, size, owners, refs, 0, 0)} {
		for index := first - 1; index <= end; index++ {
			if err := m.Ready(ctx, index); err != nil {
				t.Fatal(err)
			}
			segs, _ := m.PlanRead(index, 0, g.Size(), nil)
			whole := Segment{Owner: source, Serial: SourceSerial, Length: g.Size(), Shared: true}
			switch {
			case index == first:
				if len(segs) != 3 || segs[0].Owner != source || segs[1].Owner != id || segs[2].Owner != source {
					t.Fatalf("chunk %d: %+v", index, segs)
				}
			case index > first && index < end:
				if len(segs) != 1 || segs[0] != whole {
					t.Fatalf("chunk %d: %+v", index, segs)
				}
				if p, _ := m.Plan(index, 0, 1); p.Own || p.Writable || p.InPlace || p.Depth != 1 {
					t.Fatalf("chunk %d: %+v", index, p)
				}
			case len(segs) == 0 || segs[0].Owner == source:
				t.Fatalf("chunk %d: %+v", index, segs)
			}
		}
	}
}
