package catalog_test

import (
	"errors"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// TestRemovalSparesACloneThatLostItsRegistration: a lost registration is damage, and nothing that the clone reads is removed.
func TestRemovalSparesACloneThatLostItsRegistration(t *testing.T) {
	each(t, func(t *testing.T, b drivers.Backend, p *process) {
		parent := p.create("golden", gib)
		p.write("golden", 0, mib, 7)
		p.snapshot("golden@v1")
		clone := p.clone("golden@v1", "vm1", 0)
		s, err := p.SnapshotInfo(t.Context(), catalog.Ref{Volume: "golden", Snapshot: "v1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Unlink(t.Context(), chunk.RegistrationName(parent.ID, s.Serial, clone.ID)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Remove(t.Context(), s.Ref(), catalog.RemoveOptions{}); !errors.Is(err, mapper.ErrDamaged) {
			t.Errorf("remove the snapshot: %v", err)
		}
		o := catalog.RemoveOptions{Snapshots: true}
		if _, err := p.Remove(t.Context(), catalog.Ref{Volume: "golden"}, o); !errors.Is(err, mapper.ErrDamaged) {
			t.Errorf("remove the volume: %v", err)
		}
		p.wants("vm1", 0, mib, 7)
		p.remove("vm1")
		p.remove("golden@v1")
		p.remove("golden")
	})
}
