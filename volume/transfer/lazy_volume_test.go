package transfer_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers/mem"
	"skerry/volume/catalog"
	"skerry/volume/collect"
	"skerry/volume/transfer"
)

func TestWhatNeedsAllIsRefusedUntilAllIsCopied(t *testing.T) {
	ctx := t.Context()
	path, want := sparse(t, mib, 3)
	p := startOn(t, newPool(t, mem.Options{}), 1, 1)
	p.ok(p.importLazy(path, "vm1", small))
	try := func(when string) {
		t.Helper()
		_, err := p.Snapshot(ctx, catalog.Ref{Volume: "vm1", Snapshot: "s1"})
		p.fails(err, catalog.ErrInUse, when+": snapshot")
		if want := fmt.Sprintf("volume vm1: in use: it is still being copied from %s (0 %% done); finish that with: skerry flatten vm1", path); err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
		_, err = p.Clone(ctx, catalog.Ref{Volume: "vm1"}, "vm2", catalog.CloneOptions{})
		p.fails(err, catalog.ErrInUse, when+": clone")
	}
	try("closed")
	p.fails(p.Rollback(ctx, catalog.Ref{Volume: "vm1", Snapshot: "s1"}), catalog.ErrInUse, "rollback")
	d := p.open("vm1")
	try("open")
	p.ok(d.Close(ctx))
	p.ok(p.Rename(ctx, "vm1", "vm2"))
	u, err := collect.MeasureVolume(ctx, p.Pool, "vm2")
	if err != nil || u.Err != nil || u.Own > 64*1024 || u.Shared != 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
	p.wants("vm2", want)
	_, err = p.Remove(ctx, catalog.Ref{Volume: "vm2"}, catalog.RemoveOptions{})
	p.ok(err)
	p.clean()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the image is not what it was: %v", err)
	}
	p.stop()
}

func TestLazyVolumeIsResized(t *testing.T) {
	for kind, o := range kinds {
		t.Run(kind, func(t *testing.T) {
			ctx := t.Context()
			path, want := sparse(t, 10*chunk.MinSize, 11)
			p := startOn(t, newPool(t, o), 1, 1)
			p.ok(p.importLazy(path, "vm1", small))
			resize := func(n int64) {
				t.Helper()
				_, err := p.Resize(ctx, "vm1", catalog.ResizeOptions{Size: n, Shrink: true})
				p.ok(err)
				want = append(want[:min(n, int64(len(want)))], make([]byte, max(0, n-int64(len(want))))...)
				p.wants("vm1", want)
			}
			resize(20 * chunk.MinSize)
			resize(7*chunk.MinSize + 1024)
			clear(want[len(want):cap(want)]) // what was cut off does not come back
			resize(10 * chunk.MinSize)
			p.collect()
			p.clean()
			p.flatten("vm1")
			p.wants("vm1", want)
			p.collect()
			p.clean()
			p.stop()
		})
	}
}

func TestLazyVolumeComesBackFromTheTrash(t *testing.T) {
	for kind, o := range kinds {
		t.Run(kind, func(t *testing.T) {
			ctx := t.Context()
			path, want := sparse(t, 10*chunk.MinSize, 12)
			p := startOn(t, newPool(t, o), 1, 1)
			p.ok(p.importLazy(path, "vm1", small))
			_, err := p.Remove(ctx, catalog.Ref{Volume: "vm1"}, catalog.RemoveOptions{Trash: time.Hour})
			p.ok(err)
			p.collect()
			p.clean()
			_, err = p.Restore(ctx, "vm1", "")
			p.ok(err)
			p.wants("vm1", want)
			u, err := collect.MeasureVolume(ctx, p.Pool, "vm1")
			if err != nil || u.Reclaimable > 0 || (u.Own > int64(len(want)/4)) != (kind == "object") {
				t.Errorf("usage %+v, %v", u, err)
			}
			p.flatten("vm1")
			p.wants("vm1", want)
			p.stop()
		})
	}
}

func TestLazyVolumeIsNotCopied(t *testing.T) {
	path, _ := sparse(t, mib, 13)
	storage := newPool(t, mem.Options{})
	p, other := startOn(t, storage, 1, 1), startOn(t, newPool(t, mem.Options{}), 1, 1)
	p.ok(p.importLazy(path, "vm1", small))
	_, err := copyAs(p.process, "vm1", other.process, "vm2", transfer.CopyOptions{})
	p.fails(err, catalog.ErrInUse, "copy")
	p.clean()
	nothingLeft(t, other.Pool, other.faults, "vm2")
}
