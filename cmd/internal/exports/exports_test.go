package exports

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/nbd"
	"skerry/volume"
	"skerry/volume/catalog"
)

const mib = 1 << 20

// memPool opens a pool in memory, in another process each time.
func memPool(t *testing.T, b drivers.Backend) *catalog.Pool {
	t.Helper()
	e := drivers.NewEngine(b, drivers.Options{})
	if err := catalog.Init(t.Context(), e); err != nil && !errors.Is(err, catalog.ErrPoolExists) {
		t.Fatal(err)
	}
	p, err := catalog.Open(t.Context(), e, catalog.Options{Identity: locking.Identity{Host: "test", Boot: [16]byte{1}, PID: 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Close(context.Background()), e.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func newVolume(t *testing.T, p *catalog.Pool, name string) {
	t.Helper()
	if _, err := p.Create(t.Context(), name, catalog.CreateOptions{Size: mib}); err != nil {
		t.Fatal(err)
	}
}

func TestExportsAreOpenedOnceAndClosedAfterTheLast(t *testing.T) {
	p := memPool(t, mem.New(mem.Options{}))
	newVolume(t, p, "vm1")
	newVolume(t, p, "vm2")
	x := New(p, Options{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 20 {
				dev, release, err := x.NBD().Open(t.Context(), fmt.Sprintf("vm%d", 1+i%2))
				if err != nil {
					t.Error(err)
					return
				}
				data := []byte{byte(i)}
				if err := dev.(*volume.Device).WriteAt(t.Context(), data, int64(i)); err != nil {
					t.Error(err)
				}
				release()
			}
		})
	}
	wg.Wait()
	for _, name := range []string{"vm1", "vm2"} {
		if l, err := p.Lease(t.Context(), name); err != nil || l.Held {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	dev, release, err := x.NBD().Open(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16)
	if err := dev.(*volume.Device).ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	release()
	for i := 0; i < len(got); i += 2 { // those of vm1
		if got[i] != byte(i) {
			t.Errorf("byte %d is %d", i, got[i])
		}
	}
}

func TestNamedExportsStayOpen(t *testing.T) {
	b := mem.New(mem.Options{})
	p, other := memPool(t, b), memPool(t, b)
	newVolume(t, p, "vm1")
	newVolume(t, p, "vm2")
	x := New(p, Options{Names: []string{"vm1"}})
	if err := x.OpenNamed(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vm1", ""} {
		_, release, err := x.NBD().Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	if _, _, err := x.NBD().Open(t.Context(), "vm2"); !errors.Is(err, nbd.ErrUnknownExport) {
		t.Errorf("what is not served: %v", err)
	}
	if _, err := other.OpenVolume(t.Context(), "vm1"); !errors.Is(err, locking.ErrHeld) {
		t.Errorf("the lease was not kept: %v", err)
	}
	if err := x.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	dev, err := other.OpenVolume(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOpenNamedKeepsNothingIfOneFails(t *testing.T) {
	p := memPool(t, mem.New(mem.Options{}))
	newVolume(t, p, "vm1")
	x := New(p, Options{Names: []string{"vm1", "nope"}})
	if err := x.OpenNamed(t.Context()); !errors.Is(err, catalog.ErrNotFound) {
		t.Fatal(err)
	}
	if err := x.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l, err := p.Lease(t.Context(), "vm1"); err != nil || l.Held {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestUnknownExports(t *testing.T) {
	b := mem.New(mem.Options{})
	p, other := memPool(t, b), memPool(t, b)
	newVolume(t, p, "vm1")
	x := New(p, Options{})
	for _, name := range []string{"", "nope", "vm1@nope", "nope@x", "../pool", "vm1@", "pool/vm1", "\xff\x00"} {
		if _, _, err := x.NBD().Open(t.Context(), name); !errors.Is(err, nbd.ErrUnknownExport) {
			t.Errorf("open %q: %v", name, err)
		}
		if _, err := x.NBD().Describe(t.Context(), name); !errors.Is(err, nbd.ErrUnknownExport) {
			t.Errorf("describe %q: %v", name, err)
		}
	}
	dev, err := other.OpenVolume(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := x.NBD().Open(t.Context(), "vm1"); !errors.Is(err, locking.ErrHeld) {
		t.Errorf("held elsewhere: %v", err)
	}
	if err := dev.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, release, err := x.NBD().Open(t.Context(), "vm1") // a failure is not remembered
	if err != nil {
		t.Fatal(err)
	}
	release()
}

// TestADescriptionOfAnOpenExportTouchesNoStorage: clients ask every second, also while the storage hangs.
func TestADescriptionOfAnOpenExportTouchesNoStorage(t *testing.T) {
	b := faulty.Wrap(mem.New(mem.Options{}))
	p := memPool(t, b)
	newVolume(t, p, "vm1")
	x := New(p, Options{})
	dev, release, err := x.NBD().Open(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.(*volume.Device).Resize(t.Context(), 2*mib); err != nil {
		t.Fatal(err)
	}
	b.SetHook(func(c faulty.Call) faulty.Action { return faulty.Fail(drivers.ErrUnavailable) })
	info, err := x.NBD().Describe(t.Context(), "vm1")
	if err != nil || info.Size != 2*mib || info.ReadOnly || info.Description != "volume vm1" {
		t.Errorf("%+v, %v", info, err)
	}
	b.SetHook(nil)
	release()
	if info, err := x.NBD().Describe(t.Context(), "vm1"); err != nil || info.Size != 2*mib {
		t.Errorf("closed: %+v, %v", info, err)
	}
}

func TestReadOnlyDeviceRefusesChanges(t *testing.T) {
	p := memPool(t, mem.New(mem.Options{}))
	newVolume(t, p, "vm1")
	x := New(p, Options{ReadOnly: true})
	dev, release, err := x.NBD().Open(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if info, err := x.NBD().Describe(t.Context(), "vm1"); err != nil || !info.ReadOnly || !dev.ReadOnly() || info.Size != mib {
		t.Errorf("%+v, %v, read-only %v", info, err, dev.ReadOnly())
	}
	for _, r := range []*volume.Request{
		{Kind: volume.Write, Data: []byte{1}, Length: 1}, {Kind: volume.WriteZeroes, Length: 512}, {Kind: volume.Discard, Length: 512},
	} {
		if !dev.Submit(r) || !errors.Is(r.Err, volume.ErrReadOnly) {
			t.Errorf("kind %d: %v", r.Kind, r.Err)
		}
	}
}
