package volume_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
)

// world is one volume on storage in memory, and the process that serves it.
type world struct {
	t       *testing.T
	size    int64
	geom    chunk.Geometry
	id      chunk.VolumeID
	boot    byte
	storage *mem.Backend
	faults  *faulty.Backend
	engine  *drivers.Engine
	holder  *locking.Instance
	dev     *volume.Device
	options volume.Options
	begin   func(*faulty.Backend) // runs before the volume is opened
}

var errDead = errors.New("the process is dead")

func newWorld(t *testing.T, size, chunkSize int64) *world {
	t.Helper()
	geom, err := chunk.NewGeometry(chunkSize)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, size: size, geom: geom, id: chunk.NewVolumeID(), boot: 1, storage: mem.New(mem.Options{})}
	w.options = volume.Options{JournalSize: 256 << 10, JournalLimit: 1 << 20, Deadline: time.Minute}
	w.start()
	root := &mapper.Root{Volume: w.id, State: mapper.Live, Name: "vm1", Size: size, Geometry: geom, Owners: []chunk.VolumeID{w.id}}
	lease, err := w.holder.Create(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	w.use(lease)
	t.Cleanup(func() { w.die() })
	return w
}

// start begins a new process on the storage.
func (w *world) start() {
	w.faults = faulty.Wrap(w.storage)
	w.engine = drivers.NewEngine(w.faults, drivers.Options{})
	w.holder = locking.NewInstance(w.engine, locking.Identity{Host: "test", Boot: [16]byte{w.boot}}, locking.Options{})
	if w.begin != nil {
		w.begin(w.faults)
	}
}

func (w *world) use(lease *locking.Lease) {
	w.t.Helper()
	if err := w.tryUse(lease); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryUse(lease *locking.Lease) error {
	o := w.options
	o.Boot = [16]byte{w.boot}
	dev, err := volume.Open(w.t.Context(), volume.Config{Engine: w.engine, Options: o}, lease)
	w.dev = dev
	return err
}

// open opens the volume in a process that start began.
func (w *world) open() error {
	lease, err := w.holder.Acquire(w.t.Context(), w.id)
	if err != nil {
		return err
	}
	return w.tryUse(lease)
}

func (w *world) reopen() {
	w.t.Helper()
	w.start()
	if err := w.open(); err != nil {
		w.t.Fatalf("reopen: %v", err)
	}
}

// die ends the process as kill -9 does: nothing reaches the storage any more.
func (w *world) die() {
	w.faults.SetHook(func(faulty.Call) faulty.Action { return faulty.Fail(errDead) })
	if w.dev != nil {
		ctx, cancel := context.WithCancel(context.Background())
		w.dev.Close(ctx) // it fails, as it must
		cancel()
		w.dev = nil
	}
	w.holder.Close(context.Background())
	w.engine.Close()
}

// kill is kill -9 and a new process.
func (w *world) kill() {
	storage := w.storage.Kill()
	w.die()
	w.storage = storage
	w.reopen()
}

// crash is a power loss, after which keep says what of the unsynced changes is there.
func (w *world) crash(keep mem.Keep) {
	w.t.Helper()
	w.powerOn(w.storage.Crash(keep))
}

// powerOn ends the process and begins another on what a power loss left.
func (w *world) powerOn(storage *mem.Backend) {
	w.t.Helper()
	w.die()
	w.storage = storage
	w.boot++
	w.reopen()
}

// close ends the process cleanly.
func (w *world) close() error {
	err := w.dev.Close(w.t.Context())
	w.dev = nil
	return errors.Join(err, w.holder.Close(w.t.Context()), w.engine.Close())
}

// content reads all of a device.
func content(t *testing.T, dev *volume.Device) []byte {
	t.Helper()
	p := make([]byte, dev.Size())
	if err := dev.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatalf("read: %v", err)
	}
	return p
}

// snapshots returns the content of all snapshots by name.
func (w *world) snapshots() map[string][]byte {
	w.t.Helper()
	return w.snapshotsRead(func(dev *volume.Device) []byte { return content(w.t, dev) })
}

// snapshotsRead returns what read returns of each snapshot, by name.
func (w *world) snapshotsRead(read func(*volume.Device) []byte) map[string][]byte {
	w.t.Helper()
	c := w.engine.Client(drivers.LaneMeta, 0, nil)
	found := make(map[string][]byte)
	err := c.List(w.t.Context(), chunk.GroupName(w.id, chunk.Snapshots), func(i drivers.Info) error {
		b, err := c.Load(w.t.Context(), i.Name)
		if err != nil {
			return err
		}
		s, err := mapper.DecodeSnapshot(b)
		if err != nil {
			return err
		}
		dev, err := volume.OpenSnapshot(w.t.Context(), volume.Config{Engine: w.engine}, s)
		if err != nil {
			return err
		}
		found[s.Name] = read(dev)
		return dev.Close(w.t.Context())
	})
	if err != nil {
		w.t.Fatalf("read snapshots: %v", err)
	}
	return found
}

// model is what the volume must hold: for each sector its content now, and all that it may be after a power loss.
type model struct {
	now       []byte
	may       map[int][][]byte // by sector; a sector that is missing can only be what it is now
	snapshots map[string][]byte
	maybe     map[string][]byte // the snapshot that was being taken
	wanted    int64             // the size that it was being given, or may have got by what failed; 0: none
}

func newModel(size int64) *model {
	return &model{now: make([]byte, size), may: make(map[int][][]byte), snapshots: make(map[string][]byte), maybe: make(map[string][]byte)}
}

// write begins a write: from now on a crash can show it.
func (m *model) write(p []byte, off int64) {
	for s := off / chunk.SectorSize; s*chunk.SectorSize < off+int64(len(p)); s++ {
		m.may[int(s)] = append(m.may[int(s)], bytes.Clone(m.sector(int(s))))
	}
	copy(m.now[off:], p)
}

func (m *model) sector(s int) []byte {
	return m.now[s*chunk.SectorSize : min((s+1)*chunk.SectorSize, len(m.now))]
}

// resize begins a change of the size: from now on a crash can show it.
func (m *model) resize(size int64, geom chunk.Geometry) {
	m.wanted = size
	end := min(geom.Start(geom.Count(size)), int64(len(m.now)))
	for s := size / chunk.SectorSize; s*chunk.SectorSize < end; s++ {
		m.may[int(s)] = append(m.may[int(s)], make([]byte, len(m.sector(int(s)))))
	}
}

// resized says that the size is size.
func (m *model) resized(size int64) {
	m.wanted = 0
	m.now = append(m.now[:min(size, int64(len(m.now)))], make([]byte, max(0, size-int64(len(m.now))))...)
	for s := range m.may {
		if int64(s)*chunk.SectorSize >= size {
			delete(m.may, s)
		}
	}
}

// fits compares the size, which may have changed.
func (m *model) fits(got []byte) error {
	if len(got) != len(m.now) && int64(len(got)) == m.wanted {
		m.resized(m.wanted)
	}
	if len(got) != len(m.now) {
		return fmt.Errorf("the volume has %d bytes, want %d, or %d", len(got), len(m.now), m.wanted)
	}
	return nil
}

// flushed says that a flush has ended.
func (m *model) flushed() { clear(m.may) }

// survive compares the content after a crash, which then is the content.
func (m *model) survive(got []byte) error {
	if err := m.fits(got); err != nil {
		return err
	}
	for s := 0; s*chunk.SectorSize < len(m.now); s++ {
		g := got[s*chunk.SectorSize : min((s+1)*chunk.SectorSize, len(got))]
		ok := bytes.Equal(g, m.sector(s))
		for _, c := range m.may[s] {
			ok = ok || bytes.Equal(g, c)
		}
		if !ok {
			return fmt.Errorf("sector %d holds %x..., which it never held, or lost what was flushed: %x... (%d others allowed)", s, g[:16], m.sector(s)[:16], len(m.may[s]))
		}
	}
	copy(m.now, got)
	m.flushed()
	return nil
}

// same compares the content where nothing may be lost.
func (m *model) same(got []byte) error {
	if err := m.fits(got); err != nil {
		return err
	}
	if !bytes.Equal(got, m.now) {
		i := 0
		for got[i] == m.now[i] {
			i++
		}
		return fmt.Errorf("byte %d (chunk sector %d) is %x, want %x", i, i/chunk.SectorSize, got[i], m.now[i])
	}
	return nil
}

// sameSnapshots compares the snapshots that are there. One that was being taken may be missing.
func (m *model) sameSnapshots(got map[string][]byte) error {
	for name, g := range got {
		want, ok := m.snapshots[name]
		if !ok {
			if want, ok = m.maybe[name]; !ok {
				return fmt.Errorf("snapshot %s was never taken", name)
			}
			m.snapshots[name] = want
		}
		if !bytes.Equal(g, want) {
			i := 0
			for g[i] == want[i] {
				i++
			}
			return fmt.Errorf("snapshot %s has changed at byte %d: %x, want %x", name, i, g[i:i+8], want[i:i+8])
		}
	}
	for name := range m.snapshots {
		if got[name] == nil {
			return fmt.Errorf("snapshot %s is lost", name)
		}
	}
	clear(m.maybe)
	return nil
}

// fill returns n bytes that no other call returns.
func fill(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	stamp := rng.Uint64() | 1
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], stamp+uint64(i))
	}
	for i := n &^ 7; i < n; i++ {
		p[i] = byte(stamp>>8) | 1
	}
	return p
}
