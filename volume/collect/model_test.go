package collect_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"skerry/drivers"
	"skerry/drivers/local"
	"skerry/drivers/mem"
	"skerry/volume"
	"skerry/volume/catalog"
)

var (
	modelSeed  = flag.Uint64("seed", 0, "seed of the model test; 0: a new one each time")
	modelSteps = flag.Int("steps", 300, "operations of each run of the model test")
	modelRuns  = flag.Int("runs", 8, "runs of the model test on each backend")
)

// disk is what a volume must hold, sector by sector.
type disk struct {
	now       []byte
	may       map[int][][]byte // by sector: what else it may be after a power loss
	snapshots map[string][]byte
	clones    map[string]int // of each snapshot that has some
}

const sector = 512

func (d *disk) write(p []byte, off int64) {
	for s := off / sector; s*sector < off+int64(len(p)); s++ {
		d.may[int(s)] = append(d.may[int(s)], bytes.Clone(d.now[s*sector:(s+1)*sector]))
	}
	copy(d.now[off:], p)
}

// story is a run of the model test.
type story struct {
	*process
	rng     *rand.Rand
	storage drivers.Backend
	boot    byte
	disks   map[string]*disk
	from    map[string][2]string // clones: the volume and snapshot that they began as
	open    map[string]*volume.Device
	next    int
}

// TestModel compares a pool with arrays of bytes over random operations on volumes, snapshots and clones, ends of the process and power losses.
func TestModel(t *testing.T) {
	runs := *modelRuns
	if os.Getenv("SKERRY_SOAK") != "" {
		runs *= 100
	}
	for run := range runs {
		for _, backend := range []string{"mem", "local"} {
			t.Run(fmt.Sprintf("%s/%d", backend, run), func(t *testing.T) {
				seed := *modelSeed
				if seed == 0 {
					seed = uint64(time.Now().UnixNano())
				}
				t.Logf("seed %d", seed)
				s := &story{rng: rand.New(rand.NewPCG(seed, uint64(run))), boot: 1}
				if backend == "mem" {
					s.storage = newStorage(t)
				} else {
					b, err := local.Open(t.TempDir())
					if err != nil {
						t.Fatal(err)
					}
					s.storage = b
					e := drivers.NewEngine(b, drivers.Options{})
					if err := errors.Join(catalog.Init(t.Context(), e), e.Close()); err != nil {
						t.Fatal(err)
					}
				}
				s.process = start(t, s.storage, s.boot)
				s.disks, s.from, s.open = map[string]*disk{}, map[string][2]string{}, map[string]*volume.Device{}
				for step := range *modelSteps {
					if t.Failed() {
						return
					}
					s.step(step)
				}
				s.end()
			})
		}
	}
}

// pick returns a random key.
func pick[V any](rng *rand.Rand, m map[string]V) string {
	keys := slices.Sorted(maps.Keys(m))
	if len(keys) == 0 {
		return ""
	}
	return keys[rng.IntN(len(keys))]
}

func (s *story) fatal(step int, what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("step %d: %s: %v", step, what, err)
	}
}

// device returns the open device of a volume.
func (s *story) device(step int, name string) *volume.Device {
	s.t.Helper()
	if d := s.open[name]; d != nil {
		return d
	}
	d, err := s.OpenVolume(s.t.Context(), name)
	s.fatal(step, "open "+name, err)
	s.open[name] = d
	return d
}

// shut closes a volume cleanly if it is open.
func (s *story) shut(step int, name string) {
	s.t.Helper()
	if d := s.open[name]; d != nil {
		s.fatal(step, "close "+name, d.Close(s.t.Context()))
		delete(s.open, name)
		clear(s.disks[name].may)
	}
}

func (s *story) step(step int) {
	s.t.Helper()
	ctx := s.t.Context()
	op := s.rng.IntN(100)
	name := pick(s.rng, s.disks)
	if len(s.disks) < 2 || op < 3 && len(s.disks) < 8 {
		s.next++
		name = fmt.Sprint("vm", s.next)
		size := chunkSize*int64(1+s.rng.IntN(4)) - sector*int64(s.rng.IntN(9))
		_, err := s.Create(ctx, name, catalog.CreateOptions{Size: size, ChunkSize: chunkSize})
		s.fatal(step, "create "+name, err)
		s.disks[name] = newDisk(make([]byte, size))
		return
	}
	d := s.disks[name]
	size := int64(len(d.now))
	off := s.rng.Int64N(size)
	n := min(1+s.rng.Int64N([]int64{600, 9000, 70000}[s.rng.IntN(3)]), size-off)
	switch {
	case op < 35:
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(s.rng.Uint32())
		}
		d.write(p, off)
		s.fatal(step, "write "+name, s.device(step, name).WriteAt(ctx, p, off))
	case op < 42:
		d.write(make([]byte, n), off)
		s.fatal(step, "discard "+name, s.device(step, name).Discard(ctx, off, n))
	case op < 50:
		s.fatal(step, "flush "+name, s.device(step, name).Flush(ctx))
		clear(d.may)
	case op < 58:
		snap := fmt.Sprint("s", s.rng.IntN(3))
		_, err := s.Snapshot(ctx, catalog.Ref{Volume: name, Snapshot: snap})
		if d.snapshots[snap] != nil {
			if !errors.Is(err, catalog.ErrExists) {
				s.t.Fatalf("step %d: second snapshot %s@%s: %v", step, name, snap, err)
			}
			return
		}
		s.fatal(step, "snapshot "+name, err)
		d.snapshots[snap] = bytes.Clone(d.now)
		clear(d.may)
	case op < 64 && len(s.disks) < 8:
		snap := pick(s.rng, d.snapshots) // "" is a clone of the volume itself
		s.next++
		clone := fmt.Sprint("vm", s.next)
		_, err := s.Clone(ctx, catalog.Ref{Volume: name, Snapshot: snap}, clone, catalog.CloneOptions{})
		s.fatal(step, fmt.Sprintf("clone %s@%s", name, snap), err)
		content := d.snapshots[snap]
		if snap == "" {
			content = d.now
			clear(d.may)
		}
		s.disks[clone] = newDisk(content)
		s.from[clone] = [2]string{name, snap}
		d.clones[snap]++
	case op < 67:
		snap := pick(s.rng, d.snapshots)
		if snap == "" {
			return
		}
		s.shut(step, name)
		s.fatal(step, "rollback "+name, s.Rollback(ctx, catalog.Ref{Volume: name, Snapshot: snap}))
		d.now = bytes.Clone(d.snapshots[snap])
		clear(d.may)
	case op < 70:
		snap := pick(s.rng, d.snapshots)
		if snap == "" {
			return
		}
		_, err := s.Remove(ctx, catalog.Ref{Volume: name, Snapshot: snap}, catalog.RemoveOptions{})
		if d.clones[snap] > 0 && errors.Is(err, catalog.ErrInUse) {
			return
		}
		// A clone that reaches nothing of its parent any more does not hold it once it was collected.
		s.fatal(step, "remove snapshot", err)
		delete(d.snapshots, snap)
		s.detached(name, snap)
	case op < 73:
		s.shut(step, name)
		_, err := s.Remove(ctx, catalog.Ref{Volume: name}, catalog.RemoveOptions{})
		if len(d.snapshots) > 0 && !errors.Is(err, catalog.ErrInUse) {
			s.t.Fatalf("step %d: remove %s with snapshots: %v", step, name, err)
		}
		if len(d.snapshots)+d.clones[""] > 0 && errors.Is(err, catalog.ErrInUse) {
			return
		}
		s.fatal(step, "remove "+name, err)
		s.detached(name, "")
		s.gone(name)
	case op < 76:
		s.shut(step, name)
		s.next++
		other := fmt.Sprint("vm", s.next)
		s.fatal(step, "rename", s.Rename(ctx, name, other))
		s.disks[other] = d
		delete(s.disks, name)
		if f, ok := s.from[name]; ok {
			s.from[other] = f
			delete(s.from, name)
		}
		for c, f := range s.from {
			if f[0] == name {
				s.from[c] = [2]string{other, f[1]}
			}
		}
	case op < 79:
		s.collect()
	case op < 81:
		s.check()
	case op < 84:
		s.shut(step, name)
	case op < 88:
		s.restart(step, false)
	case op < 91:
		s.restart(step, true)
	default:
		p := make([]byte, n)
		s.fatal(step, "read "+name, s.device(step, name).ReadAt(ctx, p, off))
		if !bytes.Equal(p, d.now[off:off+n]) {
			s.t.Fatalf("step %d: %s: %d bytes at %d are wrong", step, name, n, off)
		}
	}
	if step%40 == 39 {
		s.compare(step)
	}
}

func newDisk(content []byte) *disk {
	return &disk{now: bytes.Clone(content), may: map[int][][]byte{}, snapshots: map[string][]byte{}, clones: map[string]int{}}
}

// detached forgets the clones of a snapshot, which are volumes of their own now.
func (s *story) detached(name, snap string) {
	delete(s.disks[name].clones, snap)
	for c, f := range s.from {
		if f == [2]string{name, snap} {
			delete(s.from, c)
		}
	}
}

// gone forgets a removed volume.
func (s *story) gone(name string) {
	delete(s.disks, name)
	if f, ok := s.from[name]; ok {
		s.disks[f[0]].clones[f[1]]--
		delete(s.from, name)
	}
}

// restart ends the process and begins another, after a power loss if the storage can have one.
func (s *story) restart(step int, power bool) {
	s.t.Helper()
	m, simulated := s.storage.(*mem.Backend)
	switch {
	case !simulated:
	case power:
		s.storage = m.Crash(mem.KeepRandom(s.rng))
	default:
		s.storage = m.Kill()
	}
	s.die()
	clear(s.open)
	if power && simulated {
		s.boot++
	}
	s.process = start(s.t, s.storage, s.boot)
	if power && simulated {
		for name, d := range s.disks {
			got := s.read(step, s.device(step, name))
			for i := 0; i*sector < len(got); i++ {
				g := got[i*sector : min((i+1)*sector, len(got))]
				ok := bytes.Equal(g, d.now[i*sector:][:len(g)])
				for _, c := range d.may[i] {
					ok = ok || bytes.Equal(g, c)
				}
				if !ok {
					s.t.Fatalf("step %d: after a power loss sector %d of %s holds what it may not", step, i, name)
				}
			}
			d.now = got
			clear(d.may)
		}
	}
	s.compare(step)
}

func (s *story) read(step int, d *volume.Device) []byte {
	s.t.Helper()
	p := make([]byte, d.Size())
	s.fatal(step, "read", d.ReadAt(s.t.Context(), p, 0))
	return p
}

// compare compares all volumes and snapshots with what they must hold.
func (s *story) compare(step int) {
	s.t.Helper()
	for name, d := range s.disks {
		if !bytes.Equal(s.read(step, s.device(step, name)), d.now) {
			s.t.Fatalf("step %d: %s is wrong", step, name)
		}
		for snap, want := range d.snapshots {
			dev, err := s.OpenSnapshot(s.t.Context(), catalog.Ref{Volume: name, Snapshot: snap})
			s.fatal(step, "open snapshot", err)
			if !bytes.Equal(s.read(step, dev), want) {
				s.t.Fatalf("step %d: %s@%s is wrong", step, name, snap)
			}
			s.fatal(step, "close snapshot", dev.Close(s.t.Context()))
		}
	}
}

// end removes everything, clones before what they began as, after which nothing may be left.
func (s *story) end() {
	s.t.Helper()
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
			s.shut(-1, name)
			_, err := s.Remove(s.t.Context(), catalog.Ref{Volume: name}, catalog.RemoveOptions{Snapshots: true})
			s.fatal(-1, "remove "+name, err)
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
