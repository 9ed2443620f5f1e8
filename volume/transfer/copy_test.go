package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/volume/catalog"
	"skerry/volume/collect"
	"skerry/volume/hash"
	"skerry/volume/transfer"
)

func TestCopyHasTheContentOfTheOriginal(t *testing.T) {
	rng := random(t)
	for _, c := range []struct {
		from, want string
		o          transfer.CopyOptions
	}{
		{"vm1", "copy", transfer.CopyOptions{}},
		{"vm1@s2", "copy", transfer.CopyOptions{ChunkSize: chunk.MinSize}},
		{"vm1", "copy @s1 @s2 @s3", transfer.CopyOptions{Snapshots: true, ChunkSize: 1 << 20}},
		{"vm1@s2", "copy @s1 @s2", transfer.CopyOptions{Snapshots: true, Workers: 1}},
		{"clone", "copy @c1", transfer.CopyOptions{Snapshots: true, ChunkSize: chunk.MinSize}},
		{"clone", "copy", transfer.CopyOptions{NoVerify: true}},
	} {
		t.Run(fmt.Sprintf("%s with snapshots %v", c.from, c.o.Snapshots), func(t *testing.T) {
			from, to := start(t, newStorage(t), 1, 0), start(t, newStorage(t), 1, 0)
			h := newHistory(from, "vm1", 5*mib+512, 256<<10, 3, rng)
			_, err := from.Clone(t.Context(), ref(t, "vm1@s2"), "clone", catalog.CloneOptions{})
			from.ok(err)
			clone := &history{name: "clone", now: append([]byte{}, h.snaps["s2"]...), snaps: map[string][]byte{}}
			clone.change(from, rng, 4)
			clone.snapshot(from, "c1")
			clone.change(from, rng, 4)
			r, err := copyAs(from, c.from, to, "copy", c.o)
			if err != nil {
				t.Fatal(err)
			}
			if r.Resumed || len(r.Unverified) > 0 || r.Info.Name != "copy" || r.Info.State != "live" {
				t.Errorf("%+v", r)
			}
			if l := to.volumes(); l != c.want || strings.Join(append([]string{"copy"}, r.Snapshots...), " @") != c.want {
				t.Fatalf("the pool has %q, the result %q; want %q", l, r.Snapshots, c.want)
			}
			if strings.HasPrefix(c.from, "clone") {
				h = clone
			}
			if s := ref(t, c.from).Snapshot; s != "" {
				to.wants("copy", h.snaps[s])
			} else {
				to.wants("copy", h.now)
			}
			for _, s := range r.Snapshots {
				to.wants("copy@"+s, h.snaps[s])
			}
			for _, p := range []*process{from, to} {
				p.collect()
				p.check()
			}
		})
	}
}

func TestCopyWithinOnePool(t *testing.T) {
	p := start(t, newStorage(t), 1, 0)
	h := newHistory(p, "vm1", 2*mib, 64<<10, 2, random(t))
	if _, err := copyAs(p, "vm1", p, "vm1", transfer.CopyOptions{}); !errors.Is(err, catalog.ErrExists) {
		t.Fatalf("copied onto itself: %v", err)
	}
	_, err := copyAs(p, "vm1", p, "vm2", transfer.CopyOptions{Snapshots: true})
	p.ok(err)
	_, err = p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Snapshots: true})
	p.ok(err)
	p.collect()
	p.check()
	p.wants("vm2", h.now)
	p.wants("vm2@s1", h.snaps["s1"])
}

// TestSnapshotsOfACopyShareData: each snapshot takes only what it changed.
func TestSnapshotsOfACopyShareData(t *testing.T) {
	from, to := start(t, newStorage(t), 1, 0), start(t, newStorage(t), 1, 0)
	_, err := from.Create(t.Context(), "vm1", catalog.CreateOptions{Size: 8 * mib, ChunkSize: 1 << 20})
	from.ok(err)
	h := &history{name: "vm1", now: make([]byte, 8*mib), snaps: map[string][]byte{}}
	d := from.open("vm1")
	from.ok(d.WriteAt(t.Context(), bytes.Repeat([]byte("data"), 2*mib), 0))
	from.ok(d.Close(t.Context()))
	for i := range 5 {
		h.snapshot(from, fmt.Sprint(i))
		d := from.open("vm1")
		from.ok(d.WriteAt(t.Context(), []byte("changed"), int64(i)<<20))
		from.ok(d.Close(t.Context()))
	}
	r, err := copyAs(from, "vm1", to, "vm1", transfer.CopyOptions{Snapshots: true})
	from.ok(err)
	if max := int64(8*mib + 5*chunk.BlockSize); r.Written > max || r.Written < 8*mib {
		t.Errorf("wrote %d bytes, at most %d differ", r.Written, max)
	}
}

// interrupted begins a copy and interrupts it when so much is copied.
func interrupted(t *testing.T, from *process, r string, to *process, name string, o transfer.CopyOptions, at func(transfer.Work) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Checkpoint, o.Workers = 100<<10, 1
	o.Progress = func(w transfer.Work) {
		if at(w) {
			cancel()
		}
	}
	if _, err := transfer.Copy(ctx, from.Pool, ref(t, r), to.Pool, name, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("not interrupted: %v", err)
	}
}

// TestInterruptedCopyGoesOn: nothing of it shows, its name is reserved, it is kept by gc, and what was copied is not
// copied again, though the original was written since.
func TestInterruptedCopyGoesOn(t *testing.T) {
	rng := random(t)
	for _, from := range []string{"vm1", "vm1@s2"} {
		a, b := newStorage(t), newStorage(t)
		src, dst := start(t, a, 1, 0), start(t, b, 1, 0)
		h := newHistory(src, "vm1", 20*mib, 256<<10, 2, rng)
		h.resize(src, 20*mib)
		d := src.open("vm1")
		data := content(20*mib, 1)
		src.ok(d.WriteAt(t.Context(), data, 0))
		src.ok(d.Close(t.Context()))
		copy(h.now, data)
		if from != "vm1" {
			h.snapshot(src, "s3")
			from = "vm1@s3"
		}
		o := transfer.CopyOptions{Snapshots: true}
		interrupted(t, src, from, dst, "copy", o, func(w transfer.Work) bool { return w.Snapshot != "s1" && w.Snapshot != "s2" && w.Done > 10*mib })
		if l := dst.volumes(); l != "" {
			t.Fatalf("the pool has %q", l)
		}
		want := string(h.now)
		h.change(src, rng, 50)
		for _, p := range []*process{src, dst} {
			p.collect()
			p.check(collect.Pending)
		}
		if _, err := copyAs(src, "vm1@s1", dst, "copy", transfer.CopyOptions{}); !errors.Is(err, transfer.ErrOtherCopy) {
			t.Fatalf("copied something else: %v", err)
		}
		if _, err := copyAs(src, from, dst, "copy", transfer.CopyOptions{}); !errors.Is(err, transfer.ErrOtherCopy) {
			t.Fatalf("went on without snapshots: %v", err)
		}
		if _, err := copyAs(src, from, dst, "copy", transfer.CopyOptions{Snapshots: true, ChunkSize: 1 << 20}); !errors.Is(err, transfer.ErrOtherCopy) {
			t.Fatalf("went on with another chunk size: %v", err)
		}
		src.stop()
		dst.stop()
		src, dst = start(t, a, 1, 6*24*time.Hour), start(t, b, 1, 6*24*time.Hour)
		r, err := copyAs(src, from, dst, "copy", o)
		src.ok(err)
		if !r.Resumed || r.Written > 9*mib {
			t.Errorf("not gone on with: %+v", r)
		}
		dst.wants("copy", []byte(want))
		dst.wants("copy@s1", h.snaps["s1"])
		for _, p := range []*process{src, dst} {
			p.collect()
			p.check()
			p.stop()
		}
	}
}

func TestInterruptedCopyIsGivenUp(t *testing.T) {
	for _, end := range []string{"rm", "rm in one pool", "time", "snapshot"} {
		t.Run(end, func(t *testing.T) {
			a := newStorage(t)
			b := a
			src := start(t, a, 1, 0)
			dst := src
			if end != "rm in one pool" {
				b = newStorage(t)
				dst = start(t, b, 1, 0)
			}
			newHistory(src, "vm1", 20*mib, 256<<10, 1, random(t)).resize(src, 20*mib)
			d := src.open("vm1")
			src.ok(d.WriteAt(t.Context(), content(20*mib, 1), 0))
			src.ok(d.Close(t.Context()))
			_, err := src.Snapshot(t.Context(), ref(t, "vm1@s2"))
			src.ok(err)
			what := "vm1"
			if end == "snapshot" {
				what = "vm1@s2"
			}
			interrupted(t, src, what, dst, "copy", transfer.CopyOptions{}, func(w transfer.Work) bool { return w.Done > 10*mib })
			switch end {
			case "time":
				src.stop()
				dst.stop()
				src, dst = start(t, a, 1, 8*24*time.Hour), start(t, b, 1, 8*24*time.Hour)
			case "snapshot":
				_, err := src.Remove(t.Context(), ref(t, what), catalog.RemoveOptions{})
				src.ok(err)
				if _, err := copyAs(src, what, dst, "copy", transfer.CopyOptions{}); !errors.Is(err, catalog.ErrExists) {
					t.Fatalf("what was copied is gone: %v", err)
				}
				fallthrough
			default:
				_, err := dst.Remove(t.Context(), ref(t, "copy"), catalog.RemoveOptions{})
				dst.ok(err)
			}
			src.collect()
			dst.collect()
			dst.check()
			if end == "rm" {
				src.check(collect.Pending)
				src.stop()
				src = start(t, a, 1, 8*24*time.Hour)
				src.collect()
			}
			src.check()
			info, err := src.Info(t.Context(), "vm1")
			src.ok(err)
			if info.Hidden > 0 {
				t.Errorf("%d hidden snapshots are left", info.Hidden)
			}
			_, err = copyAs(src, "vm1", dst, "copy", transfer.CopyOptions{})
			src.ok(err)
		})
	}
}

// TestSnapshotRemovedBetweenTwoTries: the copy goes on without it, and with a part of it that was copied.
func TestSnapshotRemovedBetweenTwoTries(t *testing.T) {
	rng := random(t)
	for _, removed := range []string{"s1", "s2"} {
		src, dst := start(t, newStorage(t), 1, 0), start(t, newStorage(t), 1, 0)
		_, err := src.Create(t.Context(), "vm1", catalog.CreateOptions{Size: 20 * mib, ChunkSize: 256 << 10})
		src.ok(err)
		h := &history{name: "vm1", now: make([]byte, 20*mib), snaps: map[string][]byte{}}
		for i := range 3 {
			d := src.open("vm1")
			data := content(20*mib, uint64(i))
			src.ok(d.WriteAt(t.Context(), data, 0))
			src.ok(d.Close(t.Context()))
			copy(h.now, data)
			h.snapshot(src, fmt.Sprint("s", i+1))
		}
		h.change(src, rng, 5)
		o := transfer.CopyOptions{Snapshots: true}
		interrupted(t, src, "vm1", dst, "copy", o, func(w transfer.Work) bool { return w.Snapshot == "s2" && w.Done > 10*mib })
		_, err = src.Remove(t.Context(), ref(t, "vm1@"+removed), catalog.RemoveOptions{})
		src.ok(err)
		src.collect()
		r, err := copyAs(src, "vm1", dst, "copy", o)
		src.ok(err)
		want := "copy @s1 @s2 @s3"
		if removed == "s2" {
			want = "copy @s1 @s3"
		} else if strings.Join(r.Unverified, " ") != "s1" {
			t.Errorf("not verified: %q", r.Unverified)
		}
		if l := dst.volumes(); l != want {
			t.Fatalf("the pool has %q", l)
		}
		dst.wants("copy", h.now)
		for _, s := range r.Snapshots {
			dst.wants("copy@"+s, h.snaps[s])
		}
	}
}

// TestCopyThatDiffersLeavesNothing: the storage gives other data than was written.
func TestCopyThatDiffersLeavesNothing(t *testing.T) {
	a, b := newStorage(t), newStorage(t)
	src, dst := start(t, a, 1, 0), start(t, b, 1, 0)
	newHistory(src, "vm1", 2*mib, 256<<10, 1, random(t))
	d := src.open("vm1")
	src.ok(d.WriteAt(t.Context(), []byte("data"), 0))
	src.ok(d.Close(t.Context()))
	broken := false
	_, err := copyAs(src, "vm1", dst, "copy", transfer.CopyOptions{Snapshots: true, Progress: func(w transfer.Work) {
		if w.Verify && !broken {
			broken = true
			flip(t, b)
		}
	}})
	if !errors.Is(err, hash.ErrMismatch) {
		t.Fatalf("no mismatch was found: %v", err)
	}
	for _, p := range []*process{src, dst} {
		p.collect()
		p.check()
	}
	if l := dst.volumes(); l != "" {
		t.Fatalf("the pool has %q", l)
	}
	_, err = copyAs(src, "vm1", dst, "copy", transfer.CopyOptions{Snapshots: true})
	src.ok(err)
}

// TestErrorEndsACopyAndTheNextGoesOn: an error of the storage of either pool, also one that leaves the outcome open, in the same process.
func TestErrorEndsACopyAndTheNextGoesOn(t *testing.T) {
	rng := random(t)
	for _, f := range faults() {
		for _, which := range []string{"source", "target"} {
			for k := int64(1); ; k += 1 + rng.Int64N(8*stride-1) {
				src, dst := start(t, newStorage(t), 1, 0), start(t, newStorage(t), 1, 0)
				h := newHistory(src, "vm1", 1<<20, 64<<10, 2, rng)
				p := src
				if which == "target" {
					p = dst
				}
				what := f.at(p, k)
				_, err := copyAs(src, "vm1", dst, "copy", transfer.CopyOptions{Snapshots: true, Workers: 1})
				p.faults.SetHook(nil)
				if err != nil && what() == "" {
					t.Fatal(err)
				}
				if err != nil && dst.volumes() == "" {
					_, err := copyAs(src, "vm1", dst, "copy", transfer.CopyOptions{Snapshots: true})
					if err != nil {
						t.Fatalf("%s in the %s, call %d, %s: again: %v", f.name, which, k, what(), err)
					}
				}
				f.deliver(p)
				dst.wants("copy", h.now)
				dst.wants("copy@s1", h.snaps["s1"])
				dst.collect()
				dst.check()
				src.collect()
				src.check(collect.Pending)
				src.die()
				dst.die()
				if what() == "" {
					break
				}
			}
		}
	}
}
