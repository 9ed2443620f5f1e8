package exports

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/mem"
	"skerry/fuse"
	"skerry/volume"
	"skerry/volume/catalog"
)

// names returns the names of what is listed. No two may have the same number, and each can be looked up.
func names(t *testing.T, v fuse.Volumes) string {
	t.Helper()
	all, err := v.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	seen := map[uint64]bool{}
	for _, e := range all {
		names = append(names, e.Name)
		if seen[e.ID] || e.ID < 2 {
			t.Errorf("%s: number %d", e.Name, e.ID)
		}
		seen[e.ID] = true
		if got, err := v.Lookup(t.Context(), e.Name); err != nil || got != e {
			t.Errorf("looked up: %+v, %v; listed: %+v", got, err, e)
		}
	}
	return strings.Join(names, " ")
}

func TestFilesOfAPool(t *testing.T) {
	b := mem.New(mem.Options{})
	p := memPool(t, b)
	newVolume(t, p, "vm1")
	newVolume(t, p, "vm2")
	for _, s := range []string{"a", "b"} {
		if _, err := p.Snapshot(t.Context(), catalog.Ref{Volume: "vm2", Snapshot: s}); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	x := New(p, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if got := names(t, x.FUSE()); got != "vm1 vm2 vm2@a vm2@b" {
		t.Error(got)
	}
	given := New(p, Options{Names: []string{"vm2@a", "vm1"}}).FUSE()
	if got := names(t, given); got != "vm1 vm2@a" {
		t.Error(got)
	}
	for _, name := range []string{"vm2", "vm2@b", "vm3", "vm1@a", "../x"} {
		if _, err := given.Lookup(t.Context(), name); !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(given.Create(t.Context(), "vm3", mib), given.Rename(t.Context(), "vm1", "vm3")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a name was made: %v", err)
	}
	spoilRoots(t, p, b, "vm1")
	if got := names(t, x.FUSE()); got != "vm2 vm2@a vm2@b" {
		t.Errorf("beside a damaged volume: %s", got)
	}
	if !strings.Contains(log.String(), "vm1") || !strings.Contains(log.String(), "skerry check") {
		t.Errorf("the log does not tell of the damage: %s", &log)
	}
}

// spoilRoots damages all roots of a volume.
func spoilRoots(t *testing.T, p *catalog.Pool, b *mem.Backend, name string) {
	t.Helper()
	i, err := p.Brief(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var roots []string
	err = b.List(t.Context(), chunk.GroupName(i.ID, chunk.Roots), func(o drivers.Info) error {
		roots = append(roots, o.Name)
		return nil
	})
	for _, r := range roots {
		err = errors.Join(err, b.Replace(t.Context(), r, []byte("no root"), drivers.Condition{}))
	}
	if err != nil || len(roots) == 0 {
		t.Fatal(roots, err)
	}
}

func TestVolumesGetSmallerForOneClientOnly(t *testing.T) {
	p := memPool(t, mem.New(mem.Options{}))
	newVolume(t, p, "vm1")
	x := New(p, Options{Names: []string{"vm1"}})
	if err := x.OpenNamed(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, release, err := x.FUSE().Open(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := x.NBD().Open(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Resize(t.Context(), mib/2); !errors.Is(err, catalog.ErrInUse) || d.Size() != mib {
		t.Errorf("smaller under an NBD client: %v, %d bytes", err, d.Size())
	}
	if err := d.Resize(t.Context(), 2*mib); err != nil {
		t.Error(err)
	}
	other()
	if err := d.Resize(t.Context(), mib/2); err != nil || d.Size() != mib/2 {
		t.Errorf("smaller alone: %v, %d bytes", err, d.Size())
	}
	release()
	if err := x.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestReadOnlyFilesRefuseChanges(t *testing.T) {
	p := memPool(t, mem.New(mem.Options{}))
	newVolume(t, p, "vm1")
	x := New(p, Options{ReadOnly: true}).FUSE()
	d, release, err := x.Open(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	r := &volume.Request{Kind: volume.Write, Data: []byte{1}, Length: 1}
	if !d.ReadOnly() || !d.Submit(r) || !errors.Is(r.Err, volume.ErrReadOnly) {
		t.Errorf("write: %v", r.Err)
	}
	for what, err := range map[string]error{
		"resize": d.Resize(t.Context(), 2*mib), "create": x.Create(t.Context(), "vm2", mib),
		"rename": x.Rename(t.Context(), "vm1", "vm2"), "remove": x.Remove(t.Context(), "vm1"),
	} {
		if !errors.Is(err, volume.ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
