package collect_test

import (
	"bytes"
	"errors"
	"testing"

	"skerry/drivers"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// TestFullStorageGivesSpaceBack: where nothing more can be written, a volume that was not closed cleanly still opens and reads, writes
// fail with no space and lose nothing, and removal and gc work.
func TestFullStorageGivesSpaceBack(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("a", 8*chunkSize)
	p.create("b", 8*chunkSize)
	p.write("a", 0, 8*chunkSize, 1)
	p.snapshot("a@s")
	p.write("a", 0, 4*chunkSize, 2)
	d, err := p.OpenVolume(t.Context(), "b")
	p.ok(err)
	p.ok(d.WriteAt(t.Context(), bytes.Repeat([]byte{3}, chunkSize), 0))
	p.ok(d.Flush(t.Context()))
	b = b.Kill()
	p.die()

	b.SetSpace(b.Used())
	p = start(t, b, 1)
	d, err = p.OpenVolume(t.Context(), "b")
	p.ok(err)
	got := make([]byte, chunkSize)
	p.ok(d.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, bytes.Repeat([]byte{3}, chunkSize)) {
		t.Error("flushed data is lost")
	}
	for off := int64(0); ; off += chunkSize {
		if off == 8*chunkSize {
			t.Fatal("the storage is not full")
		}
		err := d.WriteAt(t.Context(), bytes.Repeat([]byte{4}, chunkSize), off)
		if errors.Is(err, drivers.ErrNoSpace) {
			break
		}
		p.ok(err)
	}
	p.ok(d.Flush(t.Context()))
	p.ok(d.Close(t.Context()))

	p.ok(p.Rollback(t.Context(), ref(t, "a@s")))
	_, err = collect.Collect(t.Context(), p.Pool, collect.Options{})
	p.ok(err)
	p.wants("a", 0, 8*chunkSize, 1)
	_, err = p.Remove(t.Context(), ref(t, "a"), catalog.RemoveOptions{Snapshots: true})
	p.ok(err)
	p.write("b", 0, 8*chunkSize, 5)
	p.wants("b", 0, 8*chunkSize, 5)
	if len(objects(t, b, "reserve")) != 1 {
		t.Error("the reserve was not made again")
	}
	p.collect() // failed writes may have left objects
	p.clean()
}

// TestCollectionKeepsSpaceBackAgain: a reserve that was spent on full storage is made again once there is space.
func TestCollectionKeepsSpaceBackAgain(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	reserve := objects(t, b, "reserve")
	p.create("a", 8*chunkSize)
	b.SetSpace(b.Used())
	for i := 0; len(objects(t, b, "reserve")) > 0; i++ {
		if i == 10 {
			t.Fatal("the reserve is not spent")
		}
		b.SetSpace(b.Used())
		err := p.WithReserve(t.Context(), func() error {
			if len(objects(t, b, "reserve")) == 0 {
				b.SetSpace(b.Used()) // others were quicker to use it
				return nil
			}
			return drivers.ErrNoSpace
		})
		p.ok(err)
	}
	b.SetSpace(0)
	p.collect()
	if again := objects(t, b, "reserve"); len(again) != len(reserve) {
		t.Errorf("the reserve is %q, was %q", again, reserve)
	}
	p.collect()
	if again := objects(t, b, "reserve"); len(again) != len(reserve) {
		t.Errorf("after one more collection the reserve is %q", again)
	}
}
