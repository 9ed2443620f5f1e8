package catalog_test

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume/catalog"
)

func TestParseRef(t *testing.T) {
	long := string(slices.Repeat([]byte("a"), catalog.MaxName))
	for s, want := range map[string]catalog.Ref{
		"vm1": {Volume: "vm1"}, "vm1@s": {Volume: "vm1", Snapshot: "s"}, "A.b_c+d-e@1": {Volume: "A.b_c+d-e", Snapshot: "1"}, long: {Volume: long},
	} {
		if got, err := catalog.ParseRef(s); err != nil || got != want || got.String() != s {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "@", "vm1@", "@s", "a@b@c", ".a", "-a", "a/b", "a b", "ä", "a\x00", long + "a", "vm1@.s", "../x"} {
		if got, err := catalog.ParseRef(s); !errors.Is(err, drivers.ErrInvalid) {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}

func TestR01MissingThings(t *testing.T) {
	_, p := newPool(t)
	p.create("vm1", gib)
	ctx := t.Context()
	none, noSnap := catalog.Ref{Volume: "none"}, catalog.Ref{Volume: "vm1", Snapshot: "none"}
	calls := map[string]func() error{
		"open":             func() error { _, err := p.OpenVolume(ctx, "none"); return err },
		"open, no name":    func() error { _, err := p.OpenVolume(ctx, "../pool"); return err },
		"open a snapshot":  func() error { _, err := p.OpenSnapshot(ctx, noSnap); return err },
		"info":             func() error { _, err := p.Info(ctx, "none"); return err },
		"lease":            func() error { _, err := p.Lease(ctx, "none"); return err },
		"snapshot":         func() error { _, err := p.Snapshot(ctx, catalog.Ref{Volume: "none", Snapshot: "s"}); return err },
		"clone":            func() error { _, err := p.Clone(ctx, none, "vm2", catalog.CloneOptions{}); return err },
		"clone a snapshot": func() error { _, err := p.Clone(ctx, noSnap, "vm2", catalog.CloneOptions{}); return err },
		"clone a hidden": func() error {
			_, err := p.Clone(ctx, catalog.Ref{Volume: "vm1"}, "vm2", catalog.CloneOptions{Hidden: 7})
			return err
		},
		"remove":            func() error { _, err := p.Remove(ctx, none, catalog.RemoveOptions{}); return err },
		"remove a snapshot": func() error { _, err := p.Remove(ctx, noSnap, catalog.RemoveOptions{}); return err },
		"roll back":         func() error { return p.Rollback(ctx, noSnap) },
		"rename":            func() error { return p.Rename(ctx, "none", "vm2") },
	}
	for what, call := range calls {
		if err := call(); !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	d := p.open("vm1")
	p.close(d)
	if err := d.Close(ctx); err == nil {
		t.Error("closed twice")
	}
	if infos, err := p.List(ctx); err != nil || len(infos) != 1 {
		t.Errorf("the pool has %+v, %v", infos, err)
	}
}

func TestR02InfoIsRightAlsoAskedConcurrently(t *testing.T) {
	_, p := newPool(t)
	made := p.create("vm1", 3*gib)
	p.snapshot("vm1@s1")
	p.snapshot("vm1@s2")
	p.clone("vm1@s2", "vm2", 4*gib)
	d := p.open("vm1")
	defer p.close(d)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			i, err := p.Info(t.Context(), "vm1")
			if err != nil || i.ID != made.ID || i.Size != 3*gib || i.ChunkSize != chunk.DefaultSize || i.State != "live" || i.Holder == nil ||
				len(i.Snapshots) != 2 || i.Snapshots[0].Name != "s1" || i.Snapshots[1].Ref().String() != "vm1@s2" {
				t.Errorf("info: %+v, %v", i, err)
			}
			all, err := p.List(t.Context())
			if err != nil || len(all) != 2 || all[0].Name != "vm1" || all[1].Parent.String() != "vm1@s2" || all[1].Size != 4*gib || all[1].Holder != nil {
				t.Errorf("list: %+v, %v", all, err)
			}
			leases, err := p.Leases(t.Context())
			if err != nil || len(leases) != 2 || !leases[0].Held || !leases[0].Here || !leases[0].Alive || leases[1].Held {
				t.Errorf("leases: %+v, %v", leases, err)
			}
		})
	}
	wg.Wait()
}

func TestPools(t *testing.T) {
	b, p := newPool(t)
	if err := catalog.Init(t.Context(), p.engine); !errors.Is(err, catalog.ErrPoolExists) {
		t.Fatalf("made twice: %v", err)
	}
	if _, err := catalog.Open(t.Context(), p.engine, catalog.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Replace(t.Context(), chunk.PoolName, []byte("rubbish"), drivers.Condition{}); err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.Open(t.Context(), p.engine, catalog.Options{}); !errors.Is(err, mapper.ErrDamaged) {
		t.Fatalf("a damaged pool: %v", err)
	}
	if err := b.Unlink(t.Context(), chunk.PoolName); err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.Open(t.Context(), p.engine, catalog.Options{}); !errors.Is(err, catalog.ErrNoPool) {
		t.Fatalf("no pool: %v", err)
	}
}

func TestDamagedVolumesAreListed(t *testing.T) {
	b, p := newPool(t)
	p.create("vm1", gib)
	bad := p.create("vm2", gib)
	if err := b.Replace(t.Context(), chunk.RootName(bad.ID, 1), []byte("rubbish"), drivers.Condition{}); err != nil {
		t.Fatal(err)
	}
	infos, err := p.List(t.Context())
	if err != nil || len(infos) != 2 || infos[0].State != "live" || infos[1].State != "damaged" || !errors.Is(infos[1].Err, mapper.ErrDamaged) {
		t.Fatalf("list: %+v, %v", infos, err)
	}
	if _, err := p.OpenVolume(t.Context(), "vm2"); !errors.Is(err, mapper.ErrDamaged) {
		t.Fatalf("opened: %v", err)
	}
	if _, err := p.Create(t.Context(), "vm2", catalog.CreateOptions{Size: gib}); !errors.Is(err, mapper.ErrDamaged) {
		t.Fatalf("created over it: %v", err)
	}
}

func TestClosingThePoolClosesItsVolumes(t *testing.T) {
	b, p := newPool(t)
	p.create("vm1", gib)
	d := p.open("vm1")
	if err := d.WriteAt(t.Context(), []byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	p.stop()
	if err := d.WriteAt(t.Context(), []byte{1}, 0); err == nil {
		t.Fatal("written after the end")
	}
	q := start(t, b)
	q.wants("vm1", 0, 1, 1)
	if info, err := q.Info(t.Context(), "vm1"); err != nil || info.Holder != nil || info.Unclean {
		t.Fatalf("it was left as %+v, %v", info, err)
	}
}

// TestMapsAreBounded: a volume whose map would have more pages than a root can name is refused before anything is made.
func TestMapsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, _ drivers.Backend, p *process) {
		const chunkSize, largest = 64 << 10, 64 << 10 * mapper.PageChunks * mapper.MaxPages
		ctx := t.Context()
		if _, err := p.Create(ctx, "vm1", catalog.CreateOptions{Size: largest + 512, ChunkSize: chunkSize}); !errors.Is(err, drivers.ErrInvalid) {
			t.Errorf("create: %v", err)
		}
		if _, err := p.Create(ctx, "vm1", catalog.CreateOptions{Size: largest, ChunkSize: chunkSize}); err != nil {
			t.Fatal(err)
		}
		p.snapshot("vm1@s")
		from := catalog.Ref{Volume: "vm1", Snapshot: "s"}
		if _, err := p.Clone(ctx, from, "vm2", catalog.CloneOptions{Size: largest + 512}); !errors.Is(err, drivers.ErrInvalid) {
			t.Errorf("clone: %v", err)
		}
	})
}
