package transfer_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"skerry/chunk"
	"skerry/drivers/mem"
	"skerry/volume"
)

// lazyModel is a volume that is copied behind, and what it must have.
type lazyModel struct {
	t       *testing.T
	rng     *rand.Rand
	storage *mem.Backend
	boot    byte
	p       *host
	d       *volume.Device
	want    []byte
}

// TestModelOfLazyImports reads, writes, discards, flushes, reopens and kills in random order while the copy runs.
func TestModelOfLazyImports(t *testing.T) {
	rng := random(t)
	for range max(2, 60/stride) {
		o := kinds[[]string{"file", "object"}[rng.IntN(2)]]
		path, image := sparse(t, (4+rng.IntN(12))*chunk.MinSize+chunk.SectorSize*rng.IntN(200), rng.Uint64())
		m := &lazyModel{t: t, rng: rng, storage: newPool(t, o), boot: 1, want: image}
		m.p = startOn(t, m.storage, 1, 1)
		m.p.ok(m.p.importLazy(path, "vm1", small))
		m.open()
		for range 80 {
			m.step()
		}
		m.p.same(m.d, m.want)
		m.p.ok(m.d.Flatten(t.Context(), volume.FlattenOptions{}))
		m.p.ok(m.d.Close(t.Context()))
		m.p.wants("vm1", m.want)
		m.p.collect()
		m.p.clean()
		m.p.stop()
	}
}

// open opens the volume and, mostly, begins to copy it.
func (m *lazyModel) open() {
	m.d = m.p.open("vm1")
	if m.rng.IntN(4) > 0 {
		m.p.CopyBehind(m.d)
	}
}

// span returns a random part of the volume.
func (m *lazyModel) span() (off, n int64) {
	off = m.rng.Int64N(int64(len(m.want)))
	return off, 1 + m.rng.Int64N(min(int64(len(m.want))-off, 1<<m.rng.IntN(18)))
}

func (m *lazyModel) step() {
	t, ctx := m.t, m.t.Context()
	switch op := m.rng.IntN(100); {
	case op < 35:
		off, n := m.span()
		got := make([]byte, n)
		m.p.ok(m.d.ReadAt(ctx, got, off))
		if !bytes.Equal(got, m.want[off:][:n]) {
			t.Fatalf("%d bytes at %d are not what they should be", n, off)
		}
	case op < 70:
		off, n := m.span()
		data := content(int(n), m.rng.Uint64())
		m.p.ok(m.d.WriteAt(ctx, data, off))
		copy(m.want[off:], data)
	case op < 80:
		off, n := m.span()
		m.p.ok(m.d.Discard(ctx, off, n))
		clear(m.want[off:][:n])
	case op < 88:
		m.p.ok(m.d.Flush(ctx))
	case op < 92:
		m.p.ok(m.d.Close(ctx))
		m.open()
	case op < 97: // the process dies: what was answered is there
		m.restart(m.storage.Kill())
	default: // the power goes
		m.p.ok(m.d.Flush(ctx))
		keep := mem.KeepRandom(m.rng)
		m.boot++
		m.restart(m.storage.Crash(keep))
	}
	if t.Failed() {
		t.FailNow()
	}
}

// restart goes on with another process on what is left.
func (m *lazyModel) restart(storage *mem.Backend) {
	m.p.die()
	m.storage = storage
	m.p = startOn(m.t, storage, 1, m.boot)
	m.p.checked()
	if m.rng.IntN(2) == 0 {
		m.p.collect()
	}
	m.open()
}
