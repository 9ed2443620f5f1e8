package collect_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"skerry/drivers"
	"skerry/drivers/local"
	"skerry/drivers/mem"
	"skerry/volume"
	"skerry/volume/catalog"
)

// disk is what a volume must hold, sector by sector.
type disk struct {
	now       []byte
	may       map[int][][]byte // by sector: what else it may be after a power loss
	snapshots map[string][]byte
	clones    map[string]int // of each snapshot that has some; "" is the hidden ones
}

const sector = 512

func newDisk(content []byte) *disk {
	return &disk{now: bytes.Clone(content), may: map[int][][]byte{}, snapshots: map[string][]byte{}, clones: map[string]int{}}
}

func (d *disk) write(p []byte, off int64) {
	for s := off / sector; s*sector < off+int64(len(p)); s++ {
		d.may[int(s)] = append(d.may[int(s)], bytes.Clone(d.now[s*sector:(s+1)*sector]))
	}
	copy(d.now[off:], p)
}

// story is a pool with volumes that stay open, and what all of them must hold.
type story struct {
	*process
	rng     *rand.Rand
	storage drivers.Backend
	boot    byte
	disks   map[string]*disk
	from    map[string][2]string // clones: the volume and the snapshot that they began as
	open    map[string]*volume.Device
	next    int
	now     int // the step
}

// TestModelOfData compares volumes that are being written with arrays of bytes, over random operations on them, their snapshots and clones,
// ends of the process and power losses, with and without flushes; SKERRY_SOAK makes it long.
func TestModelOfData(t *testing.T) {
	seed := modelSeed(t)
	runs := 16 / min(stride, 8)
	if os.Getenv("SKERRY_SOAK") != "" {
		runs = 2000
	}
	for run := range runs {
		for _, backend := range []string{"mem", "local"} {
			if backend == "local" && run%8 != 0 {
				continue // it syncs for real
			}
			t.Run(fmt.Sprintf("%s/%d", backend, run), func(t *testing.T) {
				s := &story{
					rng: rand.New(rand.NewPCG(seed, uint64(run))), boot: 1,
					disks: map[string]*disk{}, from: map[string][2]string{}, open: map[string]*volume.Device{},
				}
				if backend == "mem" {
					s.storage = newStorage(t)
				} else {
					s.storage = newDirectory(t)
				}
				s.process = start(t, s.storage, s.boot)
				for s.now = range 250 {
					s.step()
				}
				s.end()
			})
		}
	}
}

// newDirectory returns an empty pool in a directory.
func newDirectory(t *testing.T) drivers.Backend {
	t.Helper()
	b, err := local.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	e := drivers.NewEngine(b, drivers.Options{})
	if err := errors.Join(catalog.Init(t.Context(), e), e.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

func anyOf[V any](rng *rand.Rand, m map[string]V) string {
	if len(m) == 0 {
		return ""
	}
	return slices.Sorted(maps.Keys(m))[rng.IntN(len(m))]
}

// must ends the test if an operation failed.
func (s *story) must(err error, format string, args ...any) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("step %d: %s: %v", s.now, fmt.Sprintf(format, args...), err)
	}
}

func (s *story) fresh() string {
	s.next++
	return fmt.Sprint("vm", s.next)
}

// device returns the device of a volume, which stays open.
func (s *story) device(name string) *volume.Device {
	s.t.Helper()
	if s.open[name] == nil {
		d, err := s.OpenVolume(s.t.Context(), name)
		s.must(err, "open %s", name)
		s.open[name] = d
	}
	return s.open[name]
}

// shut closes a volume cleanly if it is open.
func (s *story) shut(name string) {
	s.t.Helper()
	if d := s.open[name]; d != nil {
		s.must(d.Close(s.t.Context()), "close %s", name)
		delete(s.open, name)
		clear(s.disks[name].may)
	}
}

func (s *story) step() {
	s.t.Helper()
	ctx := s.t.Context()
	if n := len(s.disks); n < 2 || n < 8 && s.rng.IntN(30) == 0 {
		name := s.fresh()
		size := chunkSize*int64(1+s.rng.IntN(4)) - sector*int64(s.rng.IntN(9))
		_, err := s.Create(ctx, name, catalog.CreateOptions{Size: size, ChunkSize: chunkSize})
		s.must(err, "create %s", name)
		s.disks[name] = newDisk(make([]byte, size))
		return
	}
	name := anyOf(s.rng, s.disks)
	d := s.disks[name]
	size := int64(len(d.now))
	off := s.rng.Int64N(size)
	n := min(1+s.rng.Int64N([]int64{600, 9000, 70000}[s.rng.IntN(3)]), size-off)
	switch op := s.rng.IntN(100); {
	case op < 35:
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(s.rng.Uint32())
		}
		d.write(p, off)
		s.must(s.device(name).WriteAt(ctx, p, off), "write %s", name)
	case op < 42:
		d.write(make([]byte, n), off)
		s.must(s.device(name).Discard(ctx, off, n), "discard %s", name)
	case op < 50:
		s.must(s.device(name).Flush(ctx), "flush %s", name)
		clear(d.may)
	case op < 58:
		s.takeSnapshot(name, d, fmt.Sprint("s", s.rng.IntN(3)))
	case op < 64:
		if len(s.disks) < 8 {
			s.takeClone(name, d, anyOf(s.rng, d.snapshots)) // "" is a clone of the volume itself
		}
	case op < 67:
		if snap := anyOf(s.rng, d.snapshots); snap != "" {
			s.shut(name)
			s.must(s.Rollback(ctx, catalog.Ref{Volume: name, Snapshot: snap}), "rollback %s", name)
			d.now = bytes.Clone(d.snapshots[snap])
			clear(d.may)
		}
	case op < 70:
		if snap := anyOf(s.rng, d.snapshots); snap != "" {
			s.removeSnapshot(name, d, snap)
		}
	case op < 73:
		s.removeVolume(name, d)
	case op < 76:
		s.rename(name, d)
	case op < 79:
		s.collect()
	case op < 81:
		s.check()
	case op < 84:
		s.shut(name)
	case op < 87:
		s.restart(false)
	case op < 90:
		s.restart(true)
	default:
		p := make([]byte, n)
		s.must(s.device(name).ReadAt(ctx, p, off), "read %s", name)
		if !bytes.Equal(p, d.now[off:off+n]) {
			s.t.Fatalf("step %d: %s: %d bytes at %d are wrong", s.now, name, n, off)
		}
	}
}

func (s *story) takeSnapshot(name string, d *disk, snap string) {
	s.t.Helper()
	_, err := s.Snapshot(s.t.Context(), catalog.Ref{Volume: name, Snapshot: snap})
	if d.snapshots[snap] != nil {
		if !errors.Is(err, catalog.ErrExists) {
			s.t.Fatalf("step %d: second snapshot %s@%s: %v", s.now, name, snap, err)
		}
		return
	}
	s.must(err, "snapshot %s@%s", name, snap)
	d.snapshots[snap] = bytes.Clone(d.now)
	clear(d.may)
}

func (s *story) takeClone(name string, d *disk, snap string) {
	s.t.Helper()
	clone := s.fresh()
	_, err := s.Clone(s.t.Context(), catalog.Ref{Volume: name, Snapshot: snap}, clone, catalog.CloneOptions{})
	s.must(err, "clone %s@%s", name, snap)
	content := d.snapshots[snap]
	if snap == "" {
		content = d.now
		clear(d.may)
	}
	s.disks[clone] = newDisk(content)
	s.from[clone] = [2]string{name, snap}
	d.clones[snap]++
}

// removeSnapshot removes a snapshot unless it has clones. A clone that reaches nothing of its parent any more does not count once it
// was collected.
func (s *story) removeSnapshot(name string, d *disk, snap string) {
	s.t.Helper()
	_, err := s.Remove(s.t.Context(), catalog.Ref{Volume: name, Snapshot: snap}, catalog.RemoveOptions{})
	if d.clones[snap] > 0 && errors.Is(err, catalog.ErrInUse) {
		return
	}
	s.must(err, "remove %s@%s", name, snap)
	delete(d.snapshots, snap)
	s.detached(name, snap)
}

func (s *story) removeVolume(name string, d *disk) {
	s.t.Helper()
	s.shut(name)
	_, err := s.Remove(s.t.Context(), catalog.Ref{Volume: name}, catalog.RemoveOptions{})
	if len(d.snapshots) > 0 && !errors.Is(err, catalog.ErrInUse) {
		s.t.Fatalf("step %d: remove %s with snapshots: %v", s.now, name, err)
	}
	if len(d.snapshots)+d.clones[""] > 0 && errors.Is(err, catalog.ErrInUse) {
		return
	}
	s.must(err, "remove %s", name)
	s.gone(name)
}

func (s *story) rename(name string, d *disk) {
	s.t.Helper()
	s.shut(name)
	other := s.fresh()
	s.must(s.Rename(s.t.Context(), name, other), "rename %s", name)
	delete(s.disks, name)
	s.disks[other] = d
	if f, ok := s.from[name]; ok {
		delete(s.from, name)
		s.from[other] = f
	}
	for c, f := range s.from {
		if f[0] == name {
			s.from[c] = [2]string{other, f[1]}
		}
	}
}

// detached forgets the clones of a snapshot, which are volumes of their own now.
func (s *story) detached(name, snap string) {
	delete(s.disks[name].clones, snap)
	maps.DeleteFunc(s.from, func(_ string, f [2]string) bool { return f == [2]string{name, snap} })
}

// gone forgets a removed volume.
func (s *story) gone(name string) {
	s.detached(name, "")
	delete(s.disks, name)
	if f, ok := s.from[name]; ok {
		s.disks[f[0]].clones[f[1]]--
		delete(s.from, name)
	}
}

// restart ends the process and begins another, after a power loss if the storage can have one.
func (s *story) restart(power bool) {
	s.t.Helper()
	m, simulated := s.storage.(*mem.Backend)
	power = power && simulated
	switch {
	case power:
		s.storage = m.Crash(mem.KeepRandom(s.rng))
		s.boot++
	case simulated:
		s.storage = m.Kill()
	}
	s.die()
	clear(s.open)
	s.process = start(s.t, s.storage, s.boot)
	if power {
		for name, d := range s.disks {
			s.survive(name, d)
		}
	}
	s.compare()
}

// survive takes what a volume holds after a power loss, if it may hold that.
func (s *story) survive(name string, d *disk) {
	s.t.Helper()
	got := s.read(s.device(name))
	for i := 0; i*sector < len(got); i++ {
		g := got[i*sector : (i+1)*sector]
		ok := bytes.Equal(g, d.now[i*sector:(i+1)*sector])
		for _, c := range d.may[i] {
			ok = ok || bytes.Equal(g, c)
		}
		if !ok {
			s.t.Fatalf("step %d: after a power loss sector %d of %s holds what it may not", s.now, i, name)
		}
	}
	d.now = got
	clear(d.may)
}

func (s *story) read(d *volume.Device) []byte {
	s.t.Helper()
	p := make([]byte, d.Size())
	s.must(d.ReadAt(s.t.Context(), p, 0), "read")
	return p
}

// compare compares all volumes and snapshots with what they must hold.
func (s *story) compare() {
	s.t.Helper()
	for name, d := range s.disks {
		if !bytes.Equal(s.read(s.device(name)), d.now) {
			s.t.Fatalf("step %d: %s is wrong", s.now, name)
		}
		for snap, want := range d.snapshots {
			dev, err := s.OpenSnapshot(s.t.Context(), catalog.Ref{Volume: name, Snapshot: snap})
			s.must(err, "open %s@%s", name, snap)
			if !bytes.Equal(s.read(dev), want) {
				s.t.Fatalf("step %d: %s@%s is wrong", s.now, name, snap)
			}
			s.must(dev.Close(s.t.Context()), "close %s@%s", name, snap)
		}
	}
}

// end removes everything, clones before what they began as, after which nothing may be left.
func (s *story) end() {
	s.t.Helper()
	s.compare()
	for len(s.disks) > 0 {
		before := len(s.disks)
		for name, d := range s.disks {
			busy := 0
			for _, n := range d.clones {
				busy += n
			}
			if busy > 0 {
				continue
			}
			s.shut(name)
			_, err := s.Remove(s.t.Context(), catalog.Ref{Volume: name}, catalog.RemoveOptions{Snapshots: true})
			s.must(err, "remove %s", name)
			s.gone(name)
		}
		if len(s.disks) == before {
			s.t.Fatal("volumes hold each other")
		}
	}
	s.collect()
	s.clean()
	if left := objects(s.t, s.storage, "v"); len(left) > 0 {
		s.t.Errorf("%d objects are left: %v", len(left), left[:min(len(left), 10)])
	}
}
