package collect_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/local"
	"skerry/drivers/mem"
	"skerry/mapper"
	"skerry/volume/catalog"
	"skerry/volume/collect"
	"skerry/volume/hash"
)

func (p *process) scrub(name string) collect.ScrubReport {
	p.t.Helper()
	r, err := collect.Scrub(p.t.Context(), p.Pool, collect.ScrubOptions{Volume: name})
	p.ok(err)
	return r
}

// sound fails if a scrub finds anything.
func (p *process) sound() collect.ScrubReport {
	p.t.Helper()
	r := p.scrub("")
	if len(r.Damage) > 0 || r.Unlisted > 0 {
		p.t.Fatalf("damage: %+v", r.Damage)
	}
	return r
}

// localPool returns a pool in a directory, with a family.
func localPool(t *testing.T) (dir string, p *process) {
	t.Helper()
	dir = t.TempDir()
	b, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := drivers.NewEngine(b, drivers.Options{})
	if err := errors.Join(catalog.Init(t.Context(), e), e.Close()); err != nil {
		t.Fatal(err)
	}
	p = openLocal(t, dir)
	p.family()
	return dir, p
}

// family makes volumes that share objects: a, its snapshots s1 and s2, and b, a clone of s1.
func (p *process) family() {
	p.t.Helper()
	p.create("a", mib)
	p.write("a", 0, 3*chunkSize, 1)
	p.snapshot("a@s1")
	p.write("a", chunkSize, 8*kib, 2)
	p.snapshot("a@s2")
	p.write("a", 5*chunkSize, 4*kib, 3)
	p.clone("a@s1", "b")
	p.write("b", 2*chunkSize, 4*kib, 4)
}

// openLocal opens a pool in a directory in a new process.
func openLocal(t *testing.T, dir string) *process {
	t.Helper()
	b, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() }) // the engine has closed it already
	return start(t, b, 1)
}

// file returns the path of the one object whose name matches.
func file(t *testing.T, dir, pattern string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "v", pattern))
	if err != nil || len(all) != 1 {
		t.Fatalf("%s is %q, %v", pattern, all, err)
	}
	return all[0]
}

// id returns the id of a volume.
func (p *process) id(name string) string {
	p.t.Helper()
	id, err := p.Lookup(p.t.Context(), name)
	p.ok(err)
	return id.String()
}

func flip(t *testing.T, path string, off int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[off] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// injuries returns where damage shows, in short: "volume@snapshot offset+length".
func injuries(r collect.ScrubReport) string {
	var all []string
	for _, i := range r.Damage {
		name := i.Volume
		if i.Snapshot != "" {
			name += "@" + i.Snapshot
		}
		all = append(all, fmt.Sprintf("%s %dK+%dK", name, i.Offset/kib, i.Length/kib))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func TestScrubFindsDamage(t *testing.T) {
	for _, tt := range []struct {
		name string
		harm func(t *testing.T, dir string, p *process)
		want string
		text string // of the first injury
	}{
		{"nothing", func(*testing.T, string, *process) {}, "", ""},
		{"a removed object", func(t *testing.T, dir string, p *process) {
			if err := os.Remove(file(t, dir, p.id("a")+"/data/0/0.*")); err != nil {
				t.Fatal(err)
			}
		}, "a 0K+64K, a@s1 0K+64K, a@s2 0K+64K, b 0K+64K", "no such object"},
		{"an object cut short", func(t *testing.T, dir string, p *process) {
			if err := os.Truncate(file(t, dir, p.id("a")+"/data/0/2.*"), 50*kib); err != nil {
				t.Fatal(err)
			}
			// The clone has its first block itself.
		}, "a 176K+16K, a@s1 176K+16K, a@s2 176K+16K, b 176K+16K", "too short"},
		{"an object that is only in a snapshot", func(t *testing.T, dir string, p *process) {
			p.ok(p.Rollback(t.Context(), ref(t, "a@s1")))
			all, err := filepath.Glob(filepath.Join(dir, "v", p.id("a"), "data/0/1.*"))
			if err != nil || len(all) != 2 {
				t.Fatal(all, err)
			}
			if err := os.Truncate(all[1], 0); err != nil {
				t.Fatal(err)
			}
		}, "a@s2 64K+8K", "too short"},
		{"an own object of the clone", func(t *testing.T, dir string, p *process) {
			if err := os.Remove(file(t, dir, p.id("b")+"/data/0/*")); err != nil {
				t.Fatal(err)
			}
		}, "b 128K+4K", "no such object"},
		{"a flipped bit in a page", func(t *testing.T, dir string, p *process) {
			flip(t, file(t, dir, p.id("b")+"/page/*"), 5000)
		}, "b 0K+65536K", "checksum"},
		{"a flipped bit in a snapshot's record", func(t *testing.T, dir string, p *process) {
			all, err := filepath.Glob(filepath.Join(dir, "v", p.id("a"), "snap/*"))
			if err != nil || len(all) != 2 {
				t.Fatal(all, err)
			}
			flip(t, all[0], 40)
			if err := os.Remove(file(t, dir, p.id("b")+"/data/0/*")); err != nil {
				t.Fatal(err)
			}
		}, "a 0K+0K, b 128K+4K", "checksum"},
		{"a flipped bit in a root", func(t *testing.T, dir string, p *process) {
			all, err := filepath.Glob(filepath.Join(dir, "v", p.id("b"), "root/*"))
			if err != nil || len(all) == 0 {
				t.Fatal(all, err)
			}
			flip(t, all[len(all)-1], 60)
		}, "", "checksum"},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			dir, p := localPool(t)
			tt.harm(t, dir, p)
			id := p.id("a")
			p.stop()
			p = openLocal(t, dir)
			r := p.scrub("")
			got := injuries(r)
			if tt.want == "" && tt.text != "" { // told by the id
				if len(r.Damage) != 1 || r.Damage[0].Volume == id {
					t.Errorf("damage %q", got)
				}
			} else if got != tt.want {
				t.Errorf("damage %q, want %q", got, tt.want)
			}
			if tt.text != "" && (len(r.Damage) == 0 || !strings.Contains(r.Damage[0].Text, tt.text)) {
				t.Errorf("damage %+v, want %q", r.Damage, tt.text)
			}
			if tt.name == "nothing" && (r.Volumes != 2 || r.Objects != 6 || r.Bytes != 3*64*kib+8*kib+4*kib+4*kib) {
				t.Errorf("%+v", r)
			}
			p.stop()
		})
	}
}

// TestScrubOfOneVolume reads what the volume shares too.
func TestScrubOfOneVolume(t *testing.T) {
	dir, p := localPool(t)
	if err := os.Remove(file(t, dir, p.id("a")+"/data/0/0.*")); err != nil {
		t.Fatal(err)
	}
	r := p.scrub("b")
	if got := injuries(r); got != "b 0K+64K" || r.Volumes != 1 || r.Objects != 3 {
		t.Errorf("damage %q, %+v", got, r)
	}
	if _, err := collect.Scrub(t.Context(), p.Pool, collect.ScrubOptions{Volume: "none"}); !errors.Is(err, catalog.ErrNotFound) {
		t.Error(err)
	}
	p.stop()
}

func TestScrubReadsEachBlockOnce(t *testing.T) {
	_, p := localPool(t)
	for n := range 5 {
		p.write("a", 4*chunkSize, 4*kib, byte(n))
		p.snapshot(fmt.Sprintf("a@more%d", n))
	}
	var mu sync.Mutex
	read := make(map[string]int)
	p.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpRead || c.Kind == drivers.OpLoad && strings.Contains(c.Name, "/page/") {
			mu.Lock()
			read[c.String()]++
			mu.Unlock()
		}
		return faulty.Pass()
	})
	r := p.sound()
	p.faults.SetHook(nil)
	pages := 0
	for call, n := range read {
		if n != 1 {
			t.Errorf("%s: %d times", call, n)
		}
		if strings.HasPrefix(call, "load") {
			pages++
		}
	}
	if pages == 0 || len(read)-pages != int(r.Objects) {
		t.Errorf("%d pages, %d reads of %d objects", pages, len(read)-pages, r.Objects)
	}
	p.stop()
}

func TestScrubOfUnreadableBlocks(t *testing.T) {
	_, p := localPool(t)
	broken := func(c faulty.Call) bool {
		return c.Kind == drivers.OpRead && strings.Contains(c.Name, "/data/0/2.") && c.Off <= 8*kib && c.Off+c.Length > 8*kib
	}
	p.faults.SetHook(faulty.On(broken, faulty.Fail(syscall.EIO)))
	r := p.scrub("")
	if got := injuries(r); got != "a 136K+4K, a@s1 136K+4K, a@s2 136K+4K, b 136K+4K" || !strings.Contains(r.Damage[0].Text, "input/output error") {
		t.Errorf("damage %q, %+v", got, r.Damage)
	}
	p.faults.SetHook(faulty.OnKind(faulty.Fail(drivers.ErrUnavailable), drivers.OpRead))
	if _, err := collect.Scrub(t.Context(), p.Pool, collect.ScrubOptions{}); !errors.Is(err, drivers.ErrUnavailable) {
		t.Errorf("unavailable storage: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpRead {
			cancel()
		}
		return faulty.Pass()
	})
	if _, err := collect.Scrub(ctx, p.Pool, collect.ScrubOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	p.faults.SetHook(nil)
	p.stop()
}

// TestScrubBesideChanges scrubs while volumes are written, cut, snapshotted, removed and collected at each of its own calls.
func TestScrubBesideChanges(t *testing.T) {
	seed := modelSeed(t)
	for k := int64(1); ; k += stride {
		rng := rand.New(rand.NewPCG(seed, uint64(k)))
		storage := newStorage(t)
		p, other := start(t, storage, 1), start(t, storage, 1)
		other.family()
		first := p.faults.Calls()
		met := false
		var once sync.Once
		p.faults.SetHook(func(c faulty.Call) faulty.Action {
			if c.N-first != k {
				return faulty.Pass()
			}
			once.Do(func() {
				met = true
				p.faults.SetHook(nil)
				disturb(other, rng)
			})
			return faulty.Pass()
		})
		r := p.scrub("")
		p.faults.SetHook(nil)
		if len(r.Damage) > 0 {
			t.Fatalf("disturbed at call %d: %+v", k, r.Damage)
		}
		other.stop()
		p.stop()
		if !met {
			return
		}
	}
}

func disturb(p *process, rng *rand.Rand) {
	switch rng.IntN(4) {
	case 0:
		p.write("a", 0, 6*chunkSize, 9)
		p.remove("a@s2")
		p.collect()
	case 1:
		p.remove("b")
		p.collect()
		p.remove("a@s1")
		p.collect()
	case 2:
		p.ok(p.Rollback(p.t.Context(), ref(p.t, "a@s2")))
		p.write("b", 0, mib, 7)
		p.collect()
	default:
		p.remove("b")
		p.remove("a@s1")
		p.remove("a@s2")
		p.remove("a")
		p.create("a", mib)
		p.collect()
	}
}

// TestScrubOfUncleanVolumes finds nothing wrong with what the next open will mend.
func TestScrubOfUncleanVolumes(t *testing.T) {
	storage := newStorage(t)
	p := start(t, storage, 1)
	p.create("a", mib+512)
	p.write("a", 0, chunkSize, 1)
	d, err := p.OpenVolume(t.Context(), "a")
	p.ok(err)
	p.ok(d.WriteAt(t.Context(), make([]byte, 3*chunkSize), 100))
	p.ok(d.WriteAt(t.Context(), []byte{1}, mib+511))
	other := start(t, storage, 1)
	other.sound() // it is held
	other.stop()
	p.ok(d.Flush(t.Context()))
	crashed := storage.Crash(mem.KeepNone)
	p.die()
	p = start(t, crashed, 2)
	p.sound()
	p.write("a", mib, 512, 2)
	p.sound()
	p.stop()
}

// TestScrubRate reads 384 KiB at 64 KiB a second: the first piece passes at once.
func TestScrubRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, newStorage(t), 1)
		p.create("a", mib)
		p.write("a", 0, 6*chunkSize, 1)
		before := time.Now()
		var last int64
		r, err := collect.Scrub(t.Context(), p.Pool, collect.ScrubOptions{Rate: chunkSize, Progress: func(read int64) { last = read }})
		p.ok(err)
		if took := time.Since(before); took != 5*time.Second || r.Bytes != 6*chunkSize || last != r.Bytes {
			t.Errorf("%d bytes, %d told, in %v", r.Bytes, last, took)
		}
		p.stop()
	})
}

func (p *process) seal(name string) string {
	p.t.Helper()
	sum, err := p.Seal(p.t.Context(), ref(p.t, name), hash.Options{})
	p.ok(err)
	return sum.String()
}

func TestScrubComparesSealedSnapshots(t *testing.T) {
	dir, p := localPool(t)
	sum := p.seal("a@s1")
	if again := p.seal("a@s1"); again != sum {
		t.Errorf("sealed with %s, then %s", sum, again)
	}
	p.seal("a@s2")
	if r := p.sound(); r.Sealed != 2 {
		t.Errorf("%+v", r)
	}
	p.clean()
	// Of both snapshots, and of what only the first has.
	flip(t, file(t, dir, p.id("a")+"/data/0/2.*"), 100)
	p.stop()
	p = openLocal(t, dir)
	r := p.scrub("")
	if got := injuries(r); got != "a@s1 0K+1024K, a@s2 0K+1024K" || !strings.Contains(r.Damage[0].Text, "sealed") {
		t.Errorf("damage %q, %+v", got, r.Damage)
	}
	_, err := p.Seal(t.Context(), ref(t, "a@s1"), hash.Options{})
	if !errors.Is(err, hash.ErrMismatch) {
		t.Errorf("seal again: %v", err)
	}
	all, err := filepath.Glob(filepath.Join(dir, "v/*/seal/*"))
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	flip(t, all[0], 60)
	p.stop()
	p = openLocal(t, dir)
	if got := injuries(p.scrub("")); got != "a@s1 0K+0K, a@s2 0K+1024K" {
		t.Errorf("damage %q", got)
	}
	if r, err := collect.Check(t.Context(), p.Pool, collect.CheckOptions{}); err != nil || !r.Damaged() {
		t.Errorf("check of a damaged seal: %+v, %v", r, err)
	}
	p.seal("a@s1")
	if r, err := collect.Check(t.Context(), p.Pool, collect.CheckOptions{}); err != nil || r.Damaged() {
		t.Errorf("check of a seal made anew: %+v, %v", r, err)
	}
	p.stop()
}

// TestScrubOfSealedAndMissing tells of a missing object once.
func TestScrubOfSealedAndMissing(t *testing.T) {
	dir, p := localPool(t)
	p.seal("a@s1")
	if err := os.Remove(file(t, dir, p.id("a")+"/data/0/2.*")); err != nil {
		t.Fatal(err)
	}
	p.stop()
	p = openLocal(t, dir)
	if got := injuries(p.scrub("")); got != "a 128K+64K, a@s1 128K+64K, a@s2 128K+64K, b 132K+60K" {
		t.Errorf("damage %q", got)
	}
	p.stop()
}

func TestSealsGoWithTheirSnapshots(t *testing.T) {
	storage := newStorage(t)
	p := start(t, storage, 1)
	p.family()
	p.seal("a@s1")
	p.seal("a@s2")
	p.remove("a@s2")
	seals := func() (n int) {
		for _, name := range objects(t, storage, "v") {
			if strings.Contains(name, "/seal/") {
				n++
			}
		}
		return n
	}
	if n := seals(); n != 1 {
		t.Errorf("%d seals, want 1", n)
	}
	p.collect()
	// One that was stored after the snapshot was gone is left for gc.
	id, err := p.Lookup(t.Context(), "a")
	p.ok(err)
	client := p.engine.Client(drivers.LaneMeta, 0, nil)
	stray := chunk.SerialName(id, chunk.Seals, chunk.MakeSerial(1, 99))
	p.ok(client.Replace(t.Context(), stray, (&mapper.Seal{Volume: id, Snapshot: chunk.MakeSerial(1, 99), Size: 1}).Encode(), drivers.Condition{Absent: true}))
	if r := p.check(); len(r.Problems) != 1 || r.Problems[0].Kind != collect.Leak {
		t.Errorf("check with a stray seal: %+v", r.Problems)
	}
	p.collect()
	if n := seals(); n != 1 {
		t.Errorf("%d seals after gc, want 1", n)
	}
	p.clean()
	p.remove("b")
	_, err = p.Remove(t.Context(), ref(t, "a"), catalog.RemoveOptions{Snapshots: true})
	p.ok(err)
	if n := seals(); n != 0 {
		t.Errorf("%d seals of nothing", n)
	}
	p.stop()
}
