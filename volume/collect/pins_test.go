package collect_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/volume/catalog"
)

// pin makes a pin for an hour that nobody holds.
func (p *process) pin(name string) catalog.PinInfo {
	p.t.Helper()
	info, err := p.Pin(p.t.Context(), ref(p.t, name), time.Hour)
	p.ok(err)
	return info
}

// TestRefusedRemovalsEndNoPins: what a copy that was interrupted goes on with stays, if the snapshot stays.
func TestRefusedRemovalsEndNoPins(t *testing.T) {
	for what, need := range map[string]func(p, other *process){
		"clone": func(p, _ *process) { p.clone("vm1@s1", "vm2") },
		"reader": func(p, other *process) {
			_, err := other.OpenSnapshot(p.t.Context(), ref(p.t, "vm1@s1"))
			p.ok(err)
		},
		"other pin": func(p, other *process) {
			_, err := other.OpenPin(p.t.Context(), p.pin("vm1@s1").ID, time.Hour)
			p.ok(err)
		},
		"lost registration": func(p, _ *process) {
			p.clone("vm1@s1", "vm2")
			id, err := p.Lookup(p.t.Context(), "vm2")
			p.ok(err)
			root, err := p.Inspect(p.t.Context(), id)
			p.ok(err)
			p.ok(p.faults.Unlink(p.t.Context(), chunk.RegistrationName(root.Parent.Volume, root.Parent.Snapshot, root.Volume)))
		},
	} {
		t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
			b := newStorage(t)
			p, other := start(t, b, 1), start(t, b, 1)
			p.create("vm1", mib)
			p.write("vm1", 0, mib, 1)
			p.snapshot("vm1@s1")
			info := p.pin("vm1@s1")
			need(p, other)
			for _, name := range []string{"vm1@s1", "vm1"} {
				for _, trash := range []time.Duration{0, time.Hour} {
					_, err := p.Remove(t.Context(), ref(t, name), catalog.RemoveOptions{Snapshots: true, Trash: trash})
					if err == nil {
						t.Fatalf("removed %s", name)
					}
				}
			}
			pin, err := p.OpenPin(t.Context(), info.ID, time.Hour)
			p.ok(err)
			p.ok(pin.End(t.Context()))
		})
	}
}

// TestPinsGoWithTheDamaged: a copy that was interrupted cannot go on with what nobody can find or read, and keeps nobody from giving it up.
func TestPinsGoWithTheDamaged(t *testing.T) {
	for _, what := range []string{"root", "name", "snapshot", "only the snapshot"} {
		t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
			b, p, id := alone(t)
			info := p.pin("vm1@s1")
			record := chunk.SerialName(id, chunk.Snapshots, info.Snapshot)
			name := id.String()
			switch what {
			case "root":
				spoilRoot(t, b, id)
			case "name":
				lose(t, b, chunk.NameRecord("vm1"))
			case "only the snapshot":
				name += "@" + record[strings.LastIndexByte(record, '/')+1:]
				fallthrough
			default:
				spoilRecord(t, b, record)
			}
			pin, err := p.OpenPin(t.Context(), info.ID, time.Hour)
			if held := err == nil; held {
				if _, err := p.giveUp(name, catalog.RemoveOptions{Snapshots: true}); !errors.Is(err, catalog.ErrInUse) {
					t.Fatalf("removed beside a copy: %v", err)
				}
				p.ok(pin.Release(t.Context()))
			}
			_, err = p.giveUp(name, catalog.RemoveOptions{Snapshots: true})
			p.ok(err)
			p.collect()
			p.clean()
		})
	}
}

// TestNameOfARestoredVolumeIsMended: one that was removed since then has had the name, too, and is younger.
func TestNameOfARestoredVolumeIsMended(t *testing.T) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	_, err := p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Trash: time.Hour})
	p.ok(err)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 2)
	r, err := p.Remove(t.Context(), ref(t, "vm1"), catalog.RemoveOptions{Limit: 1})
	p.ok(err)
	if r.Left == 0 {
		t.Fatal("nothing is left of the removed one")
	}
	_, err = p.Restore(t.Context(), "vm1", "")
	p.ok(err)
	spoilRecord(t, b, chunk.NameRecord("vm1"))
	p.repair()
	p.wants("vm1", 0, mib, 1)
	p.collect()
	p.clean()
}
