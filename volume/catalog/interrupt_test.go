package catalog_test

import (
	"context"
	"strings"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// TestInterruptedSnapshotIsNoCleanEnd interrupts a snapshot when the root is to be switched. The device that took it gives up with requests that
// may still be under way, so the lease must not be released as if nothing were.
func TestInterruptedSnapshotIsNoCleanEnd(t *testing.T) {
	for range 16 { // what ends first is not the same each time
		b := faulty.Wrap(mem.New(mem.Options{}))
		p := initialize(t, b)
		made := p.create("vm1", gib)
		p.write("vm1", 0, mib, 1)
		before, err := p.Inspect(t.Context(), made.ID)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		b.SetHook(func(c faulty.Call) faulty.Action {
			if c.Kind == drivers.OpReplace && strings.HasPrefix(c.Name, chunk.GroupName(made.ID, chunk.Snapshots)) {
				cancel()
			}
			return faulty.Pass()
		})
		_, err = p.Snapshot(ctx, catalog.Ref{Volume: "vm1", Snapshot: "s1"})
		b.SetHook(nil)
		if err == nil {
			t.Fatal("it succeeded")
		}
		root, err := p.Inspect(t.Context(), made.ID)
		if err != nil || root.Generation == before.Generation || !root.Held || root.State != mapper.Live {
			t.Fatalf("root %+v, %v", root, err)
		}
		cancel()
	}
}
