package transfer_test

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"testing"

	"skerry/chunk"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume"
	"skerry/volume/catalog"
)

// TestLazyImportSurvivesACrashBeforeEveryCall ends the process, or the power, before call k of an import and of the copy behind it. The
// volume is there whole or not at all, and whatever was copied by then, its content is that of the image and of what was flushed.
func TestLazyImportSurvivesACrashBeforeEveryCall(t *testing.T) {
	rng := random(t)
	for kind, o := range kinds {
		t.Run(kind, func(t *testing.T) {
			path, image := sparse(t, 8*chunk.MinSize+700, rng.Uint64())
			image = append(image, make([]byte, 512-700%512)...)
			imported := newPool(t, o)
			p := startOn(t, imported, 1, 1)
			p.ok(p.importLazy(path, "vm1", small))
			p.stop()
			written := bytes.Clone(image)
			for _, c := range []*lazyCrash{
				{t: t, name: "import", before: newPool(t, o), contents: [][]byte{image}, unborn: true, do: func(p *host) error {
					return p.importLazy(path, "vm1", small)
				}, done: catalog.ErrExists},
				{t: t, name: "copy", before: imported, contents: [][]byte{image, written}, do: func(p *host) error {
					return copyAndWrite(p, written)
				}},
			} {
				for _, keep := range []mem.Keep{nil, mem.KeepAll, mem.KeepNone, mem.KeepRandom(rng)} {
					for k, finished := int64(1), false; !finished; k += 1 + rng.Int64N(2*stride-1) {
						finished = c.cut(k, keep)
					}
				}
			}
		})
	}
}

// copyAndWrite copies a volume behind a write, a discard and a flush, and sets want to what it has then.
func copyAndWrite(p *host, want []byte) error {
	ctx := p.t.Context()
	d, err := p.OpenVolume(ctx, "vm1")
	if err != nil {
		return err
	}
	copy(want[5000:], "written")
	clear(want[5*chunk.MinSize:][:3*chunk.BlockSize])
	err = d.WriteAt(ctx, []byte("written"), 5000)
	if err == nil {
		err = d.Discard(ctx, 5*chunk.MinSize, 3*chunk.BlockSize)
	}
	if err == nil {
		err = d.Flush(ctx)
	}
	if err == nil {
		err = d.Flatten(ctx, volume.FlattenOptions{})
	}
	return errors.Join(err, d.Close(ctx))
}

// lazyCrash is something done to a pool that is cut off.
type lazyCrash struct {
	t        *testing.T
	name     string
	before   *mem.Backend
	do       func(p *host) error
	contents [][]byte // of the volume, before and after
	unborn   bool     // it may not be there
	done     error    // what a repetition may say
}

// cut does it on a copy of the storage until call k and goes on in a new process. It reports whether there was no call k.
func (c *lazyCrash) cut(k int64, keep mem.Keep) (finished bool) {
	t := c.t
	t.Helper()
	b := c.before.Kill()
	p := startOn(t, b, 1, 1)
	var mu sync.Mutex
	var after *mem.Backend
	var what string
	first := p.faults.Calls()
	p.faults.SetHook(func(call faulty.Call) faulty.Action {
		if call.N-first < k {
			return faulty.Pass()
		}
		mu.Lock()
		defer mu.Unlock()
		if after == nil {
			after, what = crashed(b, keep), call.String()
		}
		return faulty.Fail(errDead)
	})
	err := c.do(p)
	mu.Lock()
	finished = after == nil
	mu.Unlock()
	if finished {
		p.ok(err)
		after = b.Kill()
	}
	p.die()
	boot := byte(1)
	if keep != nil {
		boot = 2
	}
	q := startOn(t, after, 1, boot)
	defer q.die()
	defer func() {
		if t.Failed() {
			t.Logf("%s cut off before call %d, %s", c.name, k, what)
		}
	}()
	q.checked()
	there := q.volumes() != ""
	if !there && !c.unborn {
		t.Fatal("the volume is gone")
	}
	if there {
		c.one(q)
		if k%2 == 0 {
			q.collect()
			c.one(q)
		}
	}
	if err := c.do(q); err != nil && !(there && c.done != nil && errors.Is(err, c.done)) {
		t.Fatalf("again: %v", err)
	}
	q.wants("vm1", c.contents[len(c.contents)-1])
	q.flatten("vm1")
	q.wants("vm1", c.contents[len(c.contents)-1])
	q.collect()
	q.clean()
	if n := images(t, after); n != 0 {
		t.Fatalf("%d images are left", n)
	}
	q.stop()
	return finished
}

// one fails unless the volume has one of the contents: of each sector that of before or of after.
func (c *lazyCrash) one(q *host) {
	q.t.Helper()
	d := q.open("vm1")
	got := make([]byte, d.Size())
	q.ok(d.ReadAt(q.t.Context(), got, 0))
	q.ok(d.Close(q.t.Context()))
sectors:
	for off := 0; off < len(got); off += chunk.SectorSize {
		for _, want := range c.contents {
			if bytes.Equal(got[off:][:chunk.SectorSize], want[off:][:chunk.SectorSize]) {
				continue sectors
			}
		}
		q.t.Fatalf("the sector at %d is neither that of before nor of after", off)
	}
}

// TestErrorsOfACopyBehindAreTold fails each call of the storage once: the copy fails or goes on, and never has other content.
func TestErrorsOfACopyBehindAreTold(t *testing.T) {
	rng := random(t)
	for kind, o := range kinds {
		t.Run(kind, func(t *testing.T) {
			path, image := sparse(t, 6*chunk.MinSize, rng.Uint64())
			imported := newPool(t, o)
			p := startOn(t, imported, 1, 1)
			p.ok(p.importLazy(path, "vm1", small))
			p.stop()
			broken := errors.New("broken")
			for k, finished := int64(1), false; !finished; k += 1 + rng.Int64N(2*stride-1) {
				b := imported.Kill()
				p := startOn(t, b, 1, 1)
				d := p.open("vm1")
				first := p.faults.Calls()
				p.faults.SetHook(faulty.At(first+k, faulty.Fail(broken)))
				err := d.Flatten(t.Context(), volume.FlattenOptions{})
				finished = p.faults.Calls() < first+k
				if err != nil && !errors.Is(err, broken) {
					t.Fatalf("call %d: %v", k, err)
				}
				p.faults.SetHook(nil)
				p.same(d, image)
				d.Close(t.Context()) // it fails if a sync did
				p.wants("vm1", image)
				p.flatten("vm1")
				p.wants("vm1", image)
				p.collect()
				p.clean()
				p.stop()
			}
		})
	}
}

// TestImageThatChangesAtAnyMomentIsDamage changes the image beside call k of its copy. What was copied before is right, and nothing
// is copied after.
func TestImageThatChangesAtAnyMomentIsDamage(t *testing.T) {
	rng := random(t)
	path, image := sparse(t, 6*chunk.MinSize, rng.Uint64())
	for k, finished := int64(1), false; !finished; k += 1 + rng.Int64N(2*stride-1) {
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		p := startOn(t, newPool(t, mem.Options{}), 1, 1)
		p.ok(p.importLazy(path, "vm1", small))
		d := p.open("vm1")
		first := p.faults.Calls()
		var once sync.Once
		p.faults.SetHook(func(c faulty.Call) faulty.Action {
			if c.N-first >= k {
				once.Do(func() {
					f, err := os.OpenFile(path, os.O_WRONLY, 0)
					if err == nil {
						_, err = f.Write(bytes.Repeat([]byte{0xEE}, len(image)))
						err = errors.Join(err, f.Close())
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			return faulty.Pass()
		})
		err := d.Flatten(t.Context(), volume.FlattenOptions{})
		finished = p.faults.Calls()-first < k
		if err != nil && !errors.Is(err, volume.ErrDamaged) {
			t.Fatalf("call %d: %v", k, err)
		}
		if err == nil != (d.Root().Source == nil) {
			t.Fatalf("call %d: %v, source %q", k, err, d.Root().Source)
		}
		buf := make([]byte, chunk.BlockSize)
		for off := 0; off < len(image); off += len(buf) {
			err := d.ReadAt(t.Context(), buf, int64(off))
			if err != nil && !errors.Is(err, volume.ErrDamaged) {
				t.Fatal(err)
			}
			if err == nil && !bytes.Equal(buf, image[off:][:len(buf)]) {
				t.Fatalf("call %d: wrong data at %d", k, off)
			}
		}
		p.ok(d.Close(t.Context()))
		p.stop()
	}
}
