package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/drivers/source"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/collect"
	"skerry/volume/transfer"
)

// host is a process with a pool open that can read the images of volumes.
type host struct {
	*process
	id locking.Identity
}

// newPool returns the storage of an empty pool.
func newPool(t testing.TB, o mem.Options) *mem.Backend {
	t.Helper()
	b := mem.New(o)
	e := drivers.NewEngine(b, drivers.Options{})
	if err := errors.Join(catalog.Init(t.Context(), e), e.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// startOn opens the pool on b in a new process of a host, under a boot id.
func startOn(t testing.TB, b drivers.Backend, number, boot byte, changes ...func(*catalog.Options)) *host {
	t.Helper()
	shown := source.Wrap(b)
	p := &host{process: &process{t: t, faults: faulty.Wrap(shown)}}
	p.id = locking.Identity{Host: "host" + string('0'+number), HostID: [16]byte{number}, Boot: [16]byte{number, boot}, PID: int(boot)}
	p.engine = drivers.NewEngine(p.faults, drivers.Options{})
	o := catalog.Options{Identity: p.id, Volume: volume.Options{JournalSize: 64 << 10}, Sources: transfer.NewSources(shown, p.id.Boot)}
	for _, change := range changes {
		change(&o)
	}
	var err error
	p.Pool, err = catalog.Open(t.Context(), p.engine, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.die)
	return p
}

// fails fails unless err is want.
func (p *host) fails(err, want error, what string) {
	p.t.Helper()
	if !errors.Is(err, want) {
		p.t.Fatalf("%s: got %v, want %v", what, err, want)
	}
}

// target is a creation and its device.
type target struct {
	*catalog.Creation
	*volume.Device
}

// importLazy imports an image as the skerry command does.
func (p *host) importLazy(path, name string, o catalog.CreateOptions) error {
	ctx := p.t.Context()
	img, err := transfer.OpenLazy(ctx, path, transfer.Auto)
	if err != nil {
		return err
	}
	defer img.Close()
	if o.Size == 0 {
		o.Size = img.VolumeSize()
	}
	c, err := p.Begin(ctx, name, o)
	if err != nil {
		return err
	}
	if _, err = transfer.ImportLazy(ctx, img, target{c, c.Device()}, p.id); err == nil {
		_, err = c.Commit(ctx)
	}
	if err != nil {
		c.Abort(context.WithoutCancel(ctx)) // the process may be dead
	}
	return err
}

// same fails unless a device has this content.
func (p *host) same(d *volume.Device, want []byte) {
	p.t.Helper()
	got := make([]byte, len(want))
	p.ok(d.ReadAt(p.t.Context(), got, 0))
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				p.t.Fatalf("byte %d of %d is %d, not %d", i, len(want), got[i], want[i])
			}
		}
	}
}

// flatten copies all that the volume still has in an image.
func (p *host) flatten(name string) {
	p.t.Helper()
	d := p.open(name)
	p.ok(d.Flatten(p.t.Context(), volume.FlattenOptions{}))
	p.ok(d.Close(p.t.Context()))
}

// checked fails if anything is damaged, and returns the report.
func (p *host) checked() collect.CheckReport {
	p.t.Helper()
	r, err := collect.Check(p.t.Context(), p.Pool, collect.CheckOptions{})
	p.ok(err)
	if r.Damaged() {
		p.t.Fatalf("damaged: %+v", r.Problems)
	}
	return r
}

// clean fails unless a check finds nothing at all.
func (p *host) clean() {
	p.t.Helper()
	if r := p.checked(); len(r.Problems) > 0 || len(r.Skipped) > 0 {
		p.t.Fatalf("not clean: %+v, skipped %+v", r.Problems, r.Skipped)
	}
}

// left returns how many chunks a volume still has in an image, -1 if it has none.
func (p *host) left(name string) int {
	p.t.Helper()
	i, err := p.Info(p.t.Context(), name)
	p.ok(err)
	if i.Source == nil {
		return -1
	}
	return int(i.Source.Left)
}

// images returns how many images a pool has as objects.
func images(t testing.TB, b drivers.Backend) (n int) {
	t.Helper()
	err := b.List(t.Context(), chunk.VolumesGroup(), func(i drivers.Info) error {
		if id, g, ok := chunk.ParseVolume(i.Name); ok && g == chunk.Images {
			n++
		} else if ok && g == chunk.Data {
			if _, s, _ := chunk.ParseDataName(i.Name); s == mapper.SourceSerial && id.IsZero() {
				t.Errorf("%s is stored", i.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
