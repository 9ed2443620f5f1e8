package transfer_test

import (
	"errors"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/volume/catalog"
	"skerry/volume/transfer"
)

// TestCopyFromARepairedPool: a pool whose record was written anew is another one, so that a copy from it does not go on. It is given up by its
// name, and what was kept for it keeps nobody from removing the original.
func TestCopyFromARepairedPool(t *testing.T) {
	a, b := newStorage(t), newStorage(t)
	src, dst := start(t, a, 1, 0), start(t, b, 1, 0)
	h := newHistory(src, "vm1", 20*mib, 256<<10, 1, random(t))
	h.resize(src, 20*mib)
	d := src.open("vm1")
	data := content(20*mib, 1)
	src.ok(d.WriteAt(t.Context(), data, 0))
	src.ok(d.Close(t.Context()))
	interrupted(t, src, "vm1", dst, "copy", transfer.CopyOptions{}, func(w transfer.Work) bool { return w.Done > 10*mib })
	src.stop()
	src.ok(a.Unlink(t.Context(), chunk.PoolName))
	e := drivers.NewEngine(a, drivers.Options{})
	if made, err := catalog.RepairPool(t.Context(), e); err != nil || !made {
		t.Fatalf("repaired %v, %v", made, err)
	}
	src.ok(e.Close())
	src = start(t, a, 1, 0)
	if _, err := copyAs(src, "vm1", dst, "copy", transfer.CopyOptions{}); !errors.Is(err, transfer.ErrOtherCopy) {
		t.Fatalf("went on: %v", err)
	}
	_, err := dst.Remove(t.Context(), ref(t, "copy"), catalog.RemoveOptions{})
	dst.ok(err)
	_, err = copyAs(src, "vm1", dst, "copy", transfer.CopyOptions{})
	src.ok(err)
	dst.wants("copy", data)
	_, err = src.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Snapshots: true})
	src.ok(err)
	for _, p := range []*process{src, dst} {
		p.collect()
		p.check()
	}
}
