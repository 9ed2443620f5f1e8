package collect_test

import (
	"context"
	"errors"
	"testing"

	"skerry/drivers/faulty"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

func TestRemovalWithoutTimeLeavesTheRestToACollection(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	before := b.Used()
	r, err := p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Limit: 1})
	p.ok(err)
	if r.Left == 0 || r.Objects != 0 {
		t.Fatalf("removed: %+v", r)
	}
	if got := p.volumes(); got != "" {
		t.Fatalf("the pool has %q", got)
	}
	p.create("vm1", mib)
	p.wants("vm1", 0, mib, 0)
	if r := p.collect(); r.Objects < mib/chunkSize || r.Bytes < mib {
		t.Fatalf("collected: %+v", r)
	}
	if b.Used() > before-mib {
		t.Fatalf("%d bytes are used, %d before", b.Used(), before)
	}
	p.clean()
}

// TestCallsGivenUpLeaveNothing ends the context of operations at each call.
func TestCallsGivenUpLeaveNothing(t *testing.T) {
	for _, op := range []string{"create", "clone"} {
		for k := int64(1); ; k++ {
			b := newStorage(t)
			p := start(t, b, 1)
			p.create("vm1", mib)
			p.snapshot("vm1@s1")
			ctx, cancel := context.WithCancel(t.Context())
			first := p.faults.Calls()
			p.faults.SetHook(func(c faulty.Call) faulty.Action {
				if c.N-first == k {
					cancel()
				}
				return faulty.Pass()
			})
			var err error
			if op == "create" {
				_, err = p.Create(ctx, "vm2", catalog.CreateOptions{Size: mib})
			} else {
				_, err = p.Clone(ctx, ref(t, "vm1@s1"), "vm2", catalog.CloneOptions{})
			}
			p.faults.SetHook(nil)
			cancelled := ctx.Err() != nil
			cancel()
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatalf("%s given up at call %d: %v", op, k, err)
			}
			if got := p.volumes(); got != "vm1@s1 " && got != "vm1@s1 vm2 " || err == nil && got == "vm1@s1 " {
				t.Fatalf("%s given up at call %d: %v, and the pool has %q", op, k, err, got)
			}
			p.collect()
			p.clean()
			p.stop()
			if !cancelled {
				break
			}
		}
	}
}

func TestCollectionOfOneVolume(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	for _, name := range []string{"vm1", "vm2"} {
		p.create(name, mib)
		p.write(name, 0, mib, 1)
		p.snapshot(name + "@s1")
		p.write(name, 0, mib, 2)
		p.remove(name + "@s1")
	}
	r, err := collect.Collect(t.Context(), p.Pool, collect.Options{Volume: "vm1"})
	p.ok(err)
	if r.Objects < mib/chunkSize || r.Objects >= 2*mib/chunkSize {
		t.Fatalf("collected: %+v", r)
	}
	if _, err := collect.Collect(t.Context(), p.Pool, collect.Options{Volume: "none"}); !errors.Is(err, catalog.ErrNotFound) {
		t.Fatalf("a missing volume: %v", err)
	}
	one, err := collect.Check(t.Context(), p.Pool, collect.CheckOptions{Volume: "vm1"})
	p.ok(err)
	if len(one.Problems) != 0 || one.Volumes != 1 {
		t.Fatalf("found: %+v", one)
	}
}
