package fsxtest_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"skerry/volume/fsxtest"
)

const (
	chunk      = 64 << 10
	size       = 512<<10 + 5*512
	operations = 20_000 // as over the doors of the program
)

var (
	errRefused = errors.New("refused")
	errBeyond  = errors.New("beyond the end")
)

// memory is a volume in memory, with faults that are planted in it.
type memory struct {
	fault string

	mu        sync.Mutex
	data      []byte
	synced    []byte // data at the last sync
	snapshots map[string][]byte
	calls     int
}

func newMemory(fault string) *memory {
	return &memory{fault: fault, data: make([]byte, size), synced: make([]byte, size), snapshots: map[string][]byte{}}
}

// now reports whether the fault is this one and shows this time, one time in n.
func (m *memory) now(fault string, n int) bool {
	if m.fault != fault {
		return false
	}
	m.calls++
	return m.calls%n == 0
}

func (m *memory) Size() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.data)), nil
}

func (m *memory) ReadAt(p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case off+int64(len(p)) > int64(len(m.data)):
		return errBeyond
	case m.now("an error", 500):
		return errRefused
	case m.now("a read that fills nothing", 500):
		return nil
	}
	n := len(p)
	if at := (off/chunk + 1) * chunk; m.fault == "a read that stops at the border of a chunk" && at < off+int64(n) {
		n = int(at - off)
	}
	copy(p[:n], m.data[off:])
	return nil
}

func (m *memory) WriteAt(p []byte, off int64, durable bool) error {
	if m.fault == "neighbours in a block" && len(p) < 4096 {
		return m.replaceBlocks(p, off)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch end := off + int64(len(p)); {
	case end > int64(len(m.data)):
		return errBeyond
	case m.fault == "a lost write" && crc32.ChecksumIEEE(p)%100 == 0: // the same ones each time, in whatever order they come
		return nil
	case m.now("a write that lands beside", 500):
		off = max(0, off-512)
	case m.fault == "the last byte before the border of a chunk" && end%chunk == 0 && len(p) > 4096:
		p = p[:len(p)-1]
	}
	copy(m.data[off:], p)
	return nil
}

// replaceBlocks writes whole blocks, with what was around p before.
func (m *memory) replaceBlocks(p []byte, off int64) error {
	from := off / 4096 * 4096
	m.mu.Lock()
	b := bytes.Clone(m.data[from:min((off+int64(len(p))+4095)/4096*4096, int64(len(m.data)))])
	m.mu.Unlock()
	runtime.Gosched()
	copy(b[off-from:], p)
	m.mu.Lock()
	copy(m.data[from:], b)
	m.mu.Unlock()
	return nil
}

func (m *memory) Zero(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off+n > int64(len(m.data)) {
		return errBeyond
	}
	if m.fault == "zeros that end at a sector" {
		n = max(n/512*512, min(n, 512))
	}
	clear(m.data[off : off+n])
	return nil
}

func (m *memory) Punch(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off+n > int64(len(m.data)) {
		return errBeyond
	}
	if m.now("stale data in a hole", 20) && n > 4096 {
		off, n = off+4096, n-4096
	}
	clear(m.data[off : off+n])
	return nil
}

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced = append(m.synced[:0], m.data...)
	return nil
}

func (m *memory) Extents(off, n int64) ([]fsxtest.Extent, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off+n > int64(len(m.data)) {
		return nil, errBeyond
	}
	var list []fsxtest.Extent
	for at := off; at < off+n; at += 4096 {
		end := min(at+4096, off+n)
		x := fsxtest.Extent{Offset: at, Length: end - at, Zero: len(bytes.Trim(m.data[at:end], "\x00")) == 0}
		if m.now("data that is called a hole", 300) {
			x.Zero = true
		}
		if !m.now("a gap between extents", 300) {
			list = append(list, x)
		}
	}
	return list, nil
}

func (m *memory) Resize(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault == "what was cut off comes back" {
		if int64(cap(m.data)) < size {
			m.data = append(m.data, make([]byte, size-int64(len(m.data)))...)
		}
		m.data = m.data[:size]
		return nil
	}
	if m.now("a size that stays", 10) {
		return nil
	}
	kept := min(size, int64(len(m.data)))
	m.data = append(m.data[:kept:kept], make([]byte, size-kept)...)
	return nil
}

func (m *memory) Snapshot(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snapshots[name] = bytes.Clone(m.data)
	if m.fault == "a snapshot that changes" {
		m.snapshots[name] = m.data
	}
	return nil
}

func (m *memory) ReadSnapshot(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.snapshots[name]
	if !ok {
		return nil, errors.New("no such snapshot")
	}
	return bytes.Clone(s), nil
}

func (m *memory) RemoveSnapshot(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault == "the wrong snapshot goes" && len(m.snapshots) > 1 {
		for other := range m.snapshots {
			if other != name {
				name = other
				break
			}
		}
	}
	delete(m.snapshots, name)
	return nil
}

func (m *memory) Rollback(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = bytes.Clone(m.snapshots[name])
	if m.fault == "a rollback that leaves the first block" {
		clear(m.data[:min(512, len(m.data))])
	}
	return nil
}

// reopen forgets, with this fault, what was not synced.
func (m *memory) reopen() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault == "a reopen that forgets" && len(m.synced) == len(m.data) {
		copy(m.data, m.synced)
	}
	return nil
}

func exerciser(t *testing.T, d fsxtest.Disk, seed uint64, o fsxtest.Options) *fsxtest.Exerciser {
	t.Helper()
	o.Seed, o.Chunk, o.Beside = seed, chunk, true
	e, err := fsxtest.New(d, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// volumeOptions are those of the tests here.
func volumeOptions(m *memory) fsxtest.Options {
	return fsxtest.Options{
		MaxSize: 1 << 20, Resize: 200, Snapshot: 400, Rollback: 800, Actions: []fsxtest.Action{{Name: "reopen", Every: 400, Do: m.reopen}},
	}
}

func TestNothingIsWrongWithoutAFault(t *testing.T) {
	seed, ops := fsxtest.Settings(t, operations, 1_000_000)
	m := newMemory("")
	e := exerciser(t, m, seed, volumeOptions(m))
	if err := e.Run(ops); err != nil {
		t.Fatal(err)
	}
	if err := e.Verify(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(e.Content(), m.data) {
		t.Error("the model is not what the disk is")
	}
}

func TestPlantedFaultsAreFound(t *testing.T) {
	seed, ops := fsxtest.Settings(t, operations, operations)
	for _, fault := range []string{
		"an error", "a read that fills nothing", "a read that stops at the border of a chunk", "a lost write", "a write that lands beside",
		"the last byte before the border of a chunk", "neighbours in a block", "zeros that end at a sector", "stale data in a hole",
		"data that is called a hole", "a gap between extents", "what was cut off comes back", "a size that stays", "a snapshot that changes",
		"the wrong snapshot goes", "a rollback that leaves the first block", "a reopen that forgets",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			m := newMemory(fault)
			e := exerciser(t, m, seed, volumeOptions(m))
			var f *fsxtest.Failure
			if err := errors.Join(e.Run(ops), e.Verify()); !errors.As(err, &f) {
				t.Fatalf("it was not found: %v", err)
			}
			t.Logf("found by operation %d", f.Operation)
			if fault == "an error" && !errors.Is(f, errRefused) {
				t.Errorf("%v is not what was returned", f)
			}
		})
	}
}

// TestFailuresTellWhatIsWrong: of a byte that is wrong, who wrote it and who should have; and how to come there again.
func TestFailuresTellWhatIsWrong(t *testing.T) {
	seed, ops := fsxtest.Settings(t, operations, operations)
	find := func(ops int) *fsxtest.Failure {
		m := newMemory("a lost write")
		var f *fsxtest.Failure
		errors.As(exerciser(t, m, seed, volumeOptions(m)).Run(ops), &f)
		return f
	}
	f := find(ops)
	if f == nil || f.Offset < 0 || !errors.Is(f, fsxtest.ErrDiffers) {
		t.Fatalf("a lost write shows as %v", f)
	}
	for _, want := range []string{
		fmt.Sprintf("byte %d is", f.Offset), "instead of what operation", fmt.Sprintf("operations that touched byte %d:", f.Offset),
		fmt.Sprintf("operation %d, ", f.Operation), fmt.Sprintf("SKERRY_SEED=%d SKERRY_FSX_OPS=", seed),
	} {
		if !strings.Contains(f.Error(), want) {
			t.Errorf("it does not say %q:\n%v", want, f)
		}
	}
	if again := find(f.Operation + 1); again == nil || again.Error() != f.Error() {
		t.Errorf("the same seed shows\n%v\nafter\n%v", again, f)
	}
	if before := find(max(0, f.Operation-8)); before != nil {
		t.Errorf("fewer operations fail too: %v", before)
	}
}

func TestUnitsAlignAllRequests(t *testing.T) {
	seed, _ := fsxtest.Settings(t, 0, 0)
	a := &aligned{memory: newMemory("")}
	if err := exerciser(t, a, seed, fsxtest.Options{Unit: 512, MaxSize: 1 << 20, Resize: 50}).Run(operations / 4); err != nil {
		t.Fatal(err)
	}
}

// aligned refuses what is not made of sectors.
type aligned struct{ *memory }

func (a *aligned) check(off, n int64) error {
	if off%512 != 0 || n%512 != 0 || n == 0 {
		return fmt.Errorf("%d bytes at %d", n, off)
	}
	return nil
}

func (a *aligned) ReadAt(p []byte, off int64) error {
	return errors.Join(a.check(off, int64(len(p))), a.memory.ReadAt(p, off))
}

func (a *aligned) WriteAt(p []byte, off int64, durable bool) error {
	return errors.Join(a.check(off, int64(len(p))), a.memory.WriteAt(p, off, durable))
}

func (a *aligned) Zero(off, n int64) error {
	return errors.Join(a.check(off, n), a.memory.Zero(off, n))
}

func (a *aligned) Punch(off, n int64) error {
	return errors.Join(a.check(off, n), a.memory.Punch(off, n))
}

// TestStripesOfOneDiskAreApart: several exercisers have a part each, all at once, and together they see a fault of the whole.
func TestStripesOfOneDiskAreApart(t *testing.T) {
	seed, _ := fsxtest.Settings(t, 0, 0)
	for _, stripe := range []int64{4096, 1000} {
		for _, fault := range []string{"", "neighbours in a block", "a lost write"} {
			m := newMemory(fault)
			const count = 3
			var all sync.WaitGroup
			var errs [count]error
			for i := range count {
				e := exerciser(t, fsxtest.Striped(m, int64(i), count, stripe), seed+uint64(i), fsxtest.Options{})
				all.Go(func() { errs[i] = errors.Join(e.Run(operations/4), e.Verify()) })
			}
			all.Wait()
			if err := errors.Join(errs[:]...); (err != nil) != (fault != "") {
				t.Errorf("stripes of %d bytes, %q: %v", stripe, fault, err)
			}
		}
	}
}

// TestSettledOperationsAreThereOrNot: a disk that dies amid a write has done a part of it, whole sectors.
func TestSettledOperationsAreThereOrNot(t *testing.T) {
	seed, _ := fsxtest.Settings(t, 0, 0)
	for torn, whole := range map[int64]bool{512: true, 100: false} {
		for _, first := range []bool{true, false} {
			d := &dying{memory: newMemory(""), torn: torn, first: first}
			e := exerciser(t, d, seed, fsxtest.Options{MaxSize: size})
			if err := e.Run(500); err != nil {
				t.Fatal(err)
			}
			d.dies.Store(true)
			var f *fsxtest.Failure
			if err := e.Run(500); !errors.As(err, &f) || !errors.Is(f, errRefused) {
				t.Fatalf("the disk dies: %v", err)
			}
			d.dies.Store(false)
			err := errors.Join(e.Settle(), e.Verify())
			if whole && err != nil || !whole && err == nil {
				t.Errorf("pieces of %d bytes are done: %v", torn, err)
			}
		}
	}
}

// dying is a disk that does the first or the last piece of a large write, to a border, when it dies.
type dying struct {
	*memory
	torn  int64
	first bool
	dies  atomic.Bool
}

func (d *dying) WriteAt(p []byte, off int64, durable bool) error {
	if !d.dies.Load() || len(p) < 2000 {
		return d.memory.WriteAt(p, off, durable)
	}
	at := (off+999)/512*512 + d.torn - 512
	if d.first {
		p = p[:at-off]
	} else {
		p, off = p[at-off:], at
	}
	return errors.Join(errRefused, d.memory.WriteAt(p, off, durable))
}
