package volume_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/mem"
	"skerry/drivers/trace"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// traced is one volume whose calls of the storage are recorded.
type traced struct {
	t       *testing.T
	storage *mem.Backend
	id      chunk.VolumeID
	boot    byte
	engine  *drivers.Engine
	holder  *locking.Instance
	dev     *volume.Device

	mu    sync.Mutex
	on    bool
	lines []string
}

// The volume has chunks large enough for both ways of flushing.
const (
	traceChunk = 1 << 20
	traceSize  = 8*traceChunk - 512
)

func newTraced(t *testing.T) *traced {
	t.Helper()
	w := &traced{t: t, storage: mem.New(mem.Options{}), id: chunk.NewVolumeID(), boot: 1}
	w.start()
	geom, err := chunk.NewGeometry(traceChunk)
	if err != nil {
		t.Fatal(err)
	}
	root := &mapper.Root{Volume: w.id, State: mapper.Live, Name: "vm1", Size: traceSize, Geometry: geom, Owners: []chunk.VolumeID{w.id}}
	lease, err := w.holder.Create(t.Context(), root)
	w.ok(err)
	w.ok(w.use(lease))
	t.Cleanup(w.stop)
	return w
}

func (w *traced) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// start begins a process on the storage.
func (w *traced) start() {
	b := trace.Wrap(w.storage, w.line)
	b.Rename(w.short)
	w.engine = drivers.NewEngine(b, drivers.Options{})
	w.holder = locking.NewInstance(w.engine, locking.Identity{Host: "test", Boot: [16]byte{w.boot}}, locking.Options{})
}

func (w *traced) use(lease *locking.Lease) (err error) {
	o := volume.Options{JournalSize: 1 << 20, JournalLimit: 2 << 20, Deadline: time.Minute, Boot: [16]byte{w.boot}}
	w.dev, err = volume.Open(w.t.Context(), volume.Config{Engine: w.engine, Options: o}, lease)
	return err
}

func (w *traced) open() error {
	lease, err := w.holder.Acquire(w.t.Context(), w.id)
	if err != nil {
		return err
	}
	return w.use(lease)
}

// stop ends the process.
func (w *traced) stop() {
	ctx := context.Background()
	if w.dev != nil {
		w.ok(w.dev.Close(ctx))
		w.dev = nil
	}
	w.ok(errors.Join(w.holder.Close(ctx), w.engine.Close()))
}

// replace goes on with a new process on what an end of the present one left behind.
func (w *traced) replace(storage *mem.Backend) {
	w.stop() // on the storage that nobody looks at any more
	w.storage = storage
	w.start()
}

func (w *traced) kill() { w.replace(w.storage.Kill()) }

func (w *traced) losePower() {
	w.boot++
	w.replace(w.storage.Crash(mem.KeepNone))
}

func (w *traced) line(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.on {
		w.lines = append(w.lines, s)
	}
}

func (w *traced) record(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on = on
}

// short replaces the random parts of a name.
func (w *traced) short(name string) string {
	if strings.HasPrefix(name, chunk.InstanceGroup+"/") {
		return chunk.InstanceName("*")
	}
	return strings.ReplaceAll(name, w.id.String(), "ID")
}

var recordLength = regexp.MustCompile(`^(replace \S+) \d+`)

// synced is a sync of an object or of its group. Neighbours in one part of the volume may run in parallel.
var synced = regexp.MustCompile(`^sync(?:group)? v/ID/(data|page)`)

// text returns the calls. What runs in parallel is sorted; the lengths of records are left to their own tests.
func (w *traced) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	part := func(i int) string {
		if m := synced.FindStringSubmatch(w.lines[i]); m != nil {
			return m[1]
		}
		return ""
	}
	for i := 0; i < len(w.lines); {
		end := i + 1
		for part(i) != "" && end < len(w.lines) && part(end) == part(i) {
			end++
		}
		slices.Sort(w.lines[i:end])
		i = end
	}
	var b strings.Builder
	for _, s := range w.lines {
		fmt.Fprintln(&b, recordLength.ReplaceAllString(s, "$1"))
	}
	return b.String()
}

// The operations of the scenarios.

func (w *traced) write(off, n int64, flags volume.Flags) {
	w.t.Helper()
	p := slices.Repeat([]byte{1}, int(n))
	w.ok(await(w.dev, &volume.Request{Kind: volume.Write, Flags: flags, Offset: off, Length: n, Data: p}))
}

func (w *traced) zero(kind volume.Kind, off, n int64, flags volume.Flags) {
	w.t.Helper()
	w.ok(await(w.dev, &volume.Request{Kind: kind, Flags: flags, Offset: off, Length: n}))
}

func (w *traced) read(off, n int64) {
	w.t.Helper()
	w.ok(w.dev.ReadAt(w.t.Context(), make([]byte, n), off))
}

func (w *traced) flush() {
	w.t.Helper()
	w.ok(w.dev.Flush(w.t.Context()))
}

func (w *traced) cut() {
	w.t.Helper()
	_, err := w.dev.Cut(w.t.Context())
	w.ok(err)
}

func (w *traced) snapshot(name string) {
	w.t.Helper()
	_, err := w.dev.Snapshot(w.t.Context(), name)
	w.ok(err)
}

// written has data in two chunks, all of it stored.
func written(w *traced) {
	w.write(0, 64<<10, 0)
	w.write(traceChunk, traceChunk, 0)
	w.flush()
	w.cut()
}

// unclean has one change of each kind that the journal alone knows: flushed as data, synced, and not flushed.
func unclean(w *traced) {
	written(w)
	w.write(4096, 4096, 0)
	w.flush()
	w.write(2*traceChunk, 2*traceChunk, 0)
	w.flush()
	w.write(4*traceChunk, 4096, 0)
	w.zero(volume.Discard, 8192, 4096, 0)
}

// TestGoldenTraces compares the calls of the storage of each scenario, in order, with testdata.
func TestGoldenTraces(t *testing.T) {
	nothing := func(*traced) {}
	for _, s := range []struct {
		name        string
		prepare, do func(w *traced)
	}{
		{"first-write", nothing, func(w *traced) { w.write(0, 4096, 0) }},
		{"write-to-a-new-chunk", written, func(w *traced) { w.write(5*traceChunk, 4096, 0) }},
		{"write-across-chunks", written, func(w *traced) { w.write(5*traceChunk-4096, 8192, 0) }},
		{"write-in-place-after-a-cut", written, func(w *traced) { w.write(4096, 8192, 0) }},
		{"write-in-place", func(w *traced) { written(w); w.write(4096, 4096, 0) }, func(w *traced) { w.write(8192, 512, 0) }},
		{"write-of-part-of-a-missing-block", written, func(w *traced) { w.write(512<<10+512, 512, 0) }},
		{"write-of-parts-of-shared-blocks", func(w *traced) { written(w); w.snapshot("s1") }, func(w *traced) { w.write(4096+512, 12<<10, 0) }},
		{"write-to-a-shared-chunk", func(w *traced) { written(w); w.snapshot("s1") }, func(w *traced) { w.write(4096, 8192, 0) }},
		{"read-of-nothing", nothing, func(w *traced) { w.read(0, 4*traceChunk) }},
		{"read-of-two-layers", func(w *traced) { written(w); w.snapshot("s1"); w.write(4096, 4096, 0) }, func(w *traced) { w.read(0, 128<<10) }},
		{"flush-of-nothing", nothing, func(w *traced) { w.flush() }},
		{"flush-after-a-cut-alone", func(w *traced) { w.write(traceChunk, traceChunk, 0); w.cut() }, func(w *traced) { w.flush() }},
		{"flush-again", func(w *traced) { written(w); w.write(0, 4096, 0); w.flush() }, func(w *traced) { w.flush() }},
		{"flush-small", func(w *traced) { written(w); w.write(0, 4096, 0); w.write(traceChunk, 8192, 0) }, func(w *traced) { w.flush() }},
		{"flush-large", func(w *traced) {
			written(w)
			w.write(traceChunk, 4096, 0)
			w.flush() // leaves older data in the journal
			w.write(traceChunk, 3*traceChunk, 0)
		}, func(w *traced) { w.flush() }},
		{"fua", written, func(w *traced) { w.write(4096, 4096, volume.FUA) }},
		{"fua-to-a-shared-chunk", func(w *traced) { written(w); w.snapshot("s1") }, func(w *traced) { w.write(4096, 4096, volume.FUA) }},
		{"discard-of-own-blocks", written, func(w *traced) { w.zero(volume.Discard, 4096, 16<<10, 0) }},
		{"discard-of-a-whole-object", written, func(w *traced) { w.zero(volume.Discard, 0, traceChunk, 0) }},
		{"discard-of-shared-blocks", func(w *traced) { written(w); w.snapshot("s1") }, func(w *traced) { w.zero(volume.Discard, 4096, 16<<10, 0) }},
		{"discard-of-nothing", written, func(w *traced) { w.zero(volume.Discard, 5*traceChunk, traceChunk, 0) }},
		{"write-zeroes-that-keep-space", written, func(w *traced) { w.zero(volume.WriteZeroes, 4096, 16<<10, volume.NoHole) }},
		{"snapshot-of-nothing", nothing, func(w *traced) { w.snapshot("s1") }},
		{"snapshot", func(w *traced) { written(w); w.write(4096, 4096, 0) }, func(w *traced) { w.snapshot("s1") }},
		{"cut-of-nothing", written, func(w *traced) { w.cut() }},
		{"cut", func(w *traced) {
			written(w)
			w.write(4096, 4096, 0)
			w.write(5*traceChunk, 4096, 0)
		}, func(w *traced) { w.cut() }},
		{"cut-that-removes", func(w *traced) { written(w); w.zero(volume.Discard, 0, traceChunk, 0) }, func(w *traced) { w.cut() }},
		{"larger-journal", func(w *traced) { written(w); w.write(4096, 4096, 0) }, func(w *traced) { w.ok(w.dev.Grow(w.t.Context())) }},
		{"cut-after-a-larger-journal", func(w *traced) {
			written(w)
			w.write(4096, 4096, 0)
			w.ok(w.dev.Grow(w.t.Context()))
			w.write(0, 4096, 0)
		}, func(w *traced) { w.ok(w.dev.Grow(w.t.Context())) }},
		{"close-unchanged", nothing, (*traced).stopDevice},
		{"close", func(w *traced) { written(w); w.write(4096, 4096, 0) }, (*traced).stopDevice},
		{"open", func(w *traced) { written(w); w.stop(); w.start() }, func(w *traced) { w.ok(w.open()) }},
		{"open-after-kill-9", func(w *traced) { unclean(w); w.kill() }, func(w *traced) { w.ok(w.open()) }},
		{"open-after-power-loss", func(w *traced) { unclean(w); w.losePower() }, func(w *traced) { w.ok(w.open()) }},
	} {
		t.Run(s.name, func(t *testing.T) {
			w := newTraced(t)
			s.prepare(w)
			w.record(true)
			s.do(w)
			w.record(false)
			golden(t, filepath.Join("testdata", s.name+".golden"), w.text())
		})
	}
}

func (w *traced) stopDevice() {
	w.ok(w.dev.Close(w.t.Context()))
	w.dev = nil
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run this test with -update", err)
	}
	if got == string(want) {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	i := 0
	for i < min(len(g), len(w))-1 && g[i] == w[i] {
		i++
	}
	t.Errorf("the calls have changed: run with -update and look at git diff\nline %d: got %q, want %q", i+1, g[i], w[i])
}
