package transfer_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume/catalog"
	"skerry/volume/collect"
	"skerry/volume/hash"
	"skerry/volume/transfer"
)

// delta exports what makes one snapshot of a volume to another, and returns the file's path.
func (p *process) delta(from, to string, o transfer.DeltaOptions) string {
	p.t.Helper()
	path := filepath.Join(p.t.TempDir(), "delta")
	_, err := transfer.ExportDelta(p.t.Context(), p.Pool, ref(p.t, from), ref(p.t, to), path, nil, o)
	p.ok(err)
	return path
}

// apply applies a delta, of which only so many bytes are there; 0: all.
func (p *process) apply(name, path string, bytes int64, o transfer.ApplyOptions) (transfer.Applied, error) {
	p.t.Helper()
	f, err := os.Open(path)
	p.ok(err)
	defer f.Close()
	if bytes > 0 {
		cut := filepath.Join(p.t.TempDir(), "cut")
		b, err := os.ReadFile(path)
		p.ok(err)
		p.ok(os.WriteFile(cut, b[:bytes], 0o600))
		f.Close()
		f, err = os.Open(cut)
		p.ok(err)
	}
	d, err := transfer.OpenDeltaFile(p.t.Context(), f)
	if err != nil {
		return transfer.Applied{}, err
	}
	defer d.Close()
	return transfer.ApplyDelta(p.t.Context(), p.Pool, name, d, o)
}

// TestDeltasKeepACopyUpToDate: random histories, each step as a delta to a second pool, of another chunk size.
func TestDeltasKeepACopyUpToDate(t *testing.T) {
	rng := random(t)
	for round := range 4 {
		src, dst := start(t, newStorage(t), 1, 0), start(t, newStorage(t), 1, 0)
		h := newHistory(src, "vm1", 1<<20, 64<<10, 1, rng)
		_, err := copyAs(src, "vm1@s1", dst, "copy", transfer.CopyOptions{Snapshots: true, ChunkSize: 128 << 10})
		src.ok(err)
		o := transfer.DeltaOptions{}
		for step := range 6 {
			last := h.names[len(h.names)-1]
			name := fmt.Sprintf("d%d", step)
			h.snapshot(src, name)
			if o.Compress = transfer.Uncompressed; rng.IntN(2) == 0 {
				o.Compress = transfer.Zstd
			}
			path := src.delta("vm1@"+last, "vm1@"+name, o)
			r, err := dst.apply("copy", path, 0, transfer.ApplyOptions{})
			src.ok(err)
			if r.Base != last || r.Present || r.Snapshot.Name != name {
				t.Errorf("round %d: %+v", round, r)
			}
			if r, err = dst.apply("copy", path, 0, transfer.ApplyOptions{}); err != nil || !r.Present {
				t.Errorf("again: %+v, %v", r, err)
			}
			dst.wants("copy", h.snaps[name])
			h.change(src, rng, rng.IntN(12))
			if rng.IntN(3) == 0 {
				h.resize(src, 512*int64(1+rng.IntN(4000)))
			}
			if rng.IntN(3) == 0 {
				_, err := src.Remove(t.Context(), ref(t, "vm1@"+last), catalog.RemoveOptions{})
				src.ok(err)
			}
		}
		for name, want := range h.snaps {
			if name[0] == 'd' {
				dst.wants("copy@"+name, want)
			}
		}
		dst.collect()
		dst.check()
		src.stop()
		dst.stop()
	}
}

// deltaWorld is two pools: vm1 with s1 and s2, copy with s1, and the delta between the two.
func deltaWorld(t *testing.T) (src, dst *process, h *history, delta string) {
	t.Helper()
	src, dst = start(t, newStorage(t), 1, 0), start(t, newStorage(t), 1, 0)
	h = newHistory(src, "vm1", 1<<20, 64<<10, 2, random(t))
	_, err := copyAs(src, "vm1@s1", dst, "copy", transfer.CopyOptions{Snapshots: true})
	src.ok(err)
	return src, dst, h, src.delta("vm1@s1", "vm1@s2", transfer.DeltaOptions{})
}

func TestDeltaOntoSomethingElseIsRefused(t *testing.T) {
	_, dst, h, delta := deltaWorld(t)
	before := h.snaps["s1"]
	_, err := dst.Create(t.Context(), "other", catalog.CreateOptions{Size: int64(len(before))})
	dst.ok(err)
	_, err = dst.Snapshot(t.Context(), ref(t, "other@s1"))
	dst.ok(err)
	if _, err := dst.apply("other", delta, 0, transfer.ApplyOptions{}); !errors.Is(err, transfer.ErrNoBase) {
		t.Errorf("onto another volume: %v", err)
	}
	if _, err := dst.apply("none", delta, 0, transfer.ApplyOptions{}); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("onto none: %v", err)
	}
	// Written, but with what was there: that is no change.
	d := dst.open("copy")
	dst.ok(d.WriteAt(t.Context(), before[:4096], 0))
	dst.ok(d.Close(t.Context()))
	d = dst.open("copy")
	if _, err := dst.apply("copy", delta, 0, transfer.ApplyOptions{}); !errors.Is(err, catalog.ErrInUse) {
		t.Errorf("onto an open volume: %v", err)
	}
	dst.ok(d.WriteAt(t.Context(), []byte{before[0] + 1}, 0))
	dst.ok(d.Close(t.Context()))
	if _, err := dst.apply("copy", delta, 0, transfer.ApplyOptions{}); !errors.Is(err, catalog.ErrChanged) {
		t.Errorf("onto a volume that was written: %v", err)
	}
	changed := bytes.Clone(before)
	changed[0]++
	dst.wants("copy", changed)
	_, err = dst.apply("copy", delta, 0, transfer.ApplyOptions{Rollback: true})
	dst.ok(err)
	dst.wants("copy", h.snaps["s2"])
	dst.wants("copy@s1", before)
	_, err = dst.Remove(t.Context(), ref(t, "copy@s2"), catalog.RemoveOptions{})
	dst.ok(err)
	_, err = dst.Snapshot(t.Context(), ref(t, "other@s2"))
	dst.ok(err)
	if _, err := dst.apply("other", delta, 0, transfer.ApplyOptions{}); !errors.Is(err, catalog.ErrExists) {
		t.Errorf("onto a volume with another s2: %v", err)
	}
	dst.collect()
	dst.check()
}

// TestDeltaAppliesToAnyCopyOfItsBase: under another name of the snapshot, and of an equal volume that was written since then and back.
func TestDeltaAppliesToAnyCopyOfItsBase(t *testing.T) {
	_, dst, h, delta := deltaWorld(t)
	_, err := dst.Clone(t.Context(), ref(t, "copy@s1"), "clone", catalog.CloneOptions{})
	dst.ok(err)
	_, err = dst.Snapshot(t.Context(), ref(t, "clone@base"))
	dst.ok(err)
	d := dst.open("clone")
	dst.ok(d.WriteAt(t.Context(), []byte{h.snaps["s1"][0] + 1}, 0))
	dst.ok(d.WriteAt(t.Context(), h.snaps["s1"][:1], 0))
	dst.ok(d.Close(t.Context()))
	r, err := dst.apply("clone", delta, 0, transfer.ApplyOptions{})
	dst.ok(err)
	if r.Base != "base" {
		t.Errorf("%+v", r)
	}
	dst.wants("clone", h.snaps["s2"])
	dst.wants("clone@base", h.snaps["s1"])
	dst.wants("copy", h.snaps["s1"])
	dst.collect()
	dst.check()
}

func TestBrokenDeltaChangesNothing(t *testing.T) {
	_, dst, h, delta := deltaWorld(t)
	st, err := os.Stat(delta)
	dst.ok(err)
	for _, n := range []int64{3, 100, 300, st.Size() / 2, st.Size() - 1} {
		if _, err := dst.apply("copy", delta, n, transfer.ApplyOptions{}); !errors.Is(err, transfer.ErrShort) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	b, err := os.ReadFile(delta)
	dst.ok(err)
	b[len(b)/2]++
	broken := filepath.Join(t.TempDir(), "broken")
	dst.ok(os.WriteFile(broken, b, 0o600))
	if _, err := dst.apply("copy", broken, 0, transfer.ApplyOptions{}); !errors.Is(err, transfer.ErrDamaged) && !errors.Is(err, hash.ErrMismatch) {
		t.Errorf("changed: %v", err)
	}
	if l := dst.volumes(); l != "copy @s1" {
		t.Fatalf("the pool has %q", l)
	}
	dst.wants("copy", h.snaps["s1"])
	dst.check(collect.Leak)
	dst.collect()
	dst.check()
	_, err = dst.apply("copy", delta, 0, transfer.ApplyOptions{})
	dst.ok(err)
	dst.wants("copy", h.snaps["s2"])
}

// TestErrorEndsADeltaAndTheNextGoesOn: an error of the storage, also one that leaves the outcome open, in the same process.
func TestErrorEndsADeltaAndTheNextGoesOn(t *testing.T) {
	rng := random(t)
	for _, f := range faults() {
		for k := int64(1); ; k += 1 + rng.Int64N(2*stride-1) {
			_, dst, h, delta := deltaWorld(t)
			what := f.at(dst, k)
			_, err := dst.apply("copy", delta, 0, transfer.ApplyOptions{})
			dst.faults.SetHook(nil)
			if err != nil && what() == "" {
				t.Fatal(err)
			}
			if err != nil {
				dst.wants("copy@s1", h.snaps["s1"])
				if _, err := dst.apply("copy", delta, 0, transfer.ApplyOptions{}); err != nil {
					t.Fatalf("%s, call %d, %s: again: %v", f.name, k, what(), err)
				}
			}
			f.deliver(dst)
			dst.wants("copy", h.snaps["s2"])
			dst.wants("copy@s1", h.snaps["s1"])
			dst.wants("copy@s2", h.snaps["s2"])
			dst.collect()
			dst.check()
			if what() == "" {
				break
			}
		}
	}
}

// TestDeltaIsAppliedWholeOrNotAtAll ends the process, or the power, before call k of the pool.
func TestDeltaIsAppliedWholeOrNotAtAll(t *testing.T) {
	rng := random(t)
	a, b := newStorage(t), newStorage(t)
	src, dst := start(t, a, 1, 0), start(t, b, 1, 0)
	h := newHistory(src, "vm1", 1<<20, 64<<10, 2, rng)
	_, err := copyAs(src, "vm1@s1", dst, "copy", transfer.CopyOptions{Snapshots: true})
	src.ok(err)
	// The volume has a journal, and objects that are newer than its snapshot, with the same content.
	d := dst.open("copy")
	dst.ok(d.WriteAt(t.Context(), h.snaps["s1"][:100<<10], 0))
	delta := src.delta("vm1@s1", "vm1@s2", transfer.DeltaOptions{Compress: transfer.Zstd})
	b = b.Kill()
	dst.die()
	for _, keep := range []mem.Keep{nil, mem.KeepAll, mem.KeepNone, mem.KeepRandom(rng)} {
		for k, finished := int64(1), false; !finished; k += 1 + rng.Int64N(2*stride-1) {
			finished = cutApply(t, b, h, delta, k, keep, rng)
		}
	}
}

func cutApply(t *testing.T, b *mem.Backend, h *history, delta string, k int64, keep mem.Keep, rng *rand.Rand) (finished bool) {
	t.Helper()
	b = b.Kill()
	p := start(t, b, 1, 0)
	var mu sync.Mutex
	var after *mem.Backend
	var what string
	first := p.faults.Calls()
	p.faults.SetHook(func(c faulty.Call) faulty.Action {
		mu.Lock()
		defer mu.Unlock()
		if after == nil && c.N-first >= k {
			what, after = c.String(), crashed(b, keep)
		}
		if after != nil {
			return faulty.Fail(errDead)
		}
		return faulty.Pass()
	})
	_, err := p.apply("copy", delta, 0, transfer.ApplyOptions{})
	mu.Lock()
	finished = after == nil
	mu.Unlock()
	if finished {
		p.ok(err)
		after = b.Kill()
	}
	p.die()
	defer func() {
		if t.Failed() {
			t.Logf("cut off before call %d, %s", k, what)
		}
	}()
	boot := byte(1)
	if keep != nil {
		boot = 2
	}
	q := start(t, after, boot, 0)
	defer q.die()
	q.check(collect.Leak, collect.Stale)
	if rng.IntN(2) == 0 {
		q.collect()
	}
	if rng.IntN(2) == 0 {
		d := q.open("copy")
		got := make([]byte, d.Size())
		q.ok(errors.Join(d.ReadAt(t.Context(), got, 0), d.Close(t.Context())))
		if !bytes.Equal(got, h.snaps["s1"]) && !bytes.Equal(got, h.snaps["s2"]) {
			t.Fatal("the volume is neither what it was nor what it was to be")
		}
	}
	q.wants("copy@s1", h.snaps["s1"])
	_, err = q.apply("copy", delta, 0, transfer.ApplyOptions{})
	q.ok(err)
	if l := q.volumes(); l != "copy @s1 @s2" {
		t.Fatalf("the pool has %q", l)
	}
	q.wants("copy", h.snaps["s2"])
	q.wants("copy@s1", h.snaps["s1"])
	q.wants("copy@s2", h.snaps["s2"])
	q.collect()
	q.check()
	return finished
}
