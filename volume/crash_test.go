package volume_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume"
)

// step is one operation of a scenario. It begins the change in the model, and ends it if the volume says that it is done.
type step struct {
	name string
	do   func(w *world, m *model) error
}

func writeStep(rng *rand.Rand, off, n int64) step {
	p := fill(rng, int(n))
	return step{fmt.Sprintf("write %d+%d", off, n), func(w *world, m *model) error {
		if off+n > int64(len(m.now)) {
			return nil // resize has failed
		}
		m.write(p, off)
		return w.dev.WriteAt(context.Background(), p, off)
	}}
}

func discardStep(off, n int64) step {
	return step{fmt.Sprintf("discard %d+%d", off, n), func(w *world, m *model) error {
		if off+n > int64(len(m.now)) {
			return nil // resize has failed
		}
		m.write(make([]byte, n), off)
		return w.dev.Discard(context.Background(), off, n)
	}}
}

var flushStep = step{"flush", func(w *world, m *model) error {
	err := w.dev.Flush(context.Background())
	if err == nil {
		m.flushed()
	}
	return err
}}

var cutStep = step{"cut", func(w *world, m *model) error {
	_, err := w.dev.Cut(context.Background())
	return err
}}

var growStep = step{"grow", func(w *world, m *model) error { return w.dev.Grow(context.Background()) }}

func snapshotStep(name string) step {
	return step{"snapshot " + name, func(w *world, m *model) error {
		picture := append([]byte(nil), m.now...)
		m.maybe[name] = picture
		_, err := w.dev.Snapshot(context.Background(), name)
		if err == nil {
			m.snapshots[name] = picture
			delete(m.maybe, name)
			m.flushed()
		}
		return err
	}}
}

func resizeStep(size int64) step {
	return step{fmt.Sprintf("resize to %d", size), func(w *world, m *model) error {
		m.resize(size, w.geom)
		err := w.dev.Resize(context.Background(), size)
		if err == nil {
			m.resized(size)
			m.flushed()
		}
		return err
	}}
}

var flattenStep = step{"flatten", func(w *world, m *model) error {
	return w.dev.Flatten(context.Background(), volume.FlattenOptions{})
}}

var reopenStep = step{"close and open", func(w *world, m *model) error {
	if err := w.close(); err != nil {
		return err
	}
	m.flushed()
	w.start()
	return w.open()
}}

// story is a volume and what is done to it.
type story struct {
	name  string
	begin func(t *testing.T) (*world, *model)
	steps []step
}

func flushedClone(t *testing.T, seed uint64) (*world, *model) {
	w, m := cloned(t, seed)
	must(t, w.dev.Flush(t.Context()))
	return w, m
}

func stories() []story {
	small := func(t *testing.T) (*world, *model) { return newWorld(t, 6*64<<10, 64<<10), newModel(6 * 64 << 10) }
	return []story{
		{"requests", small, scenario(1)},
		{"resize", small, resizes(2)},
		{"flatten", func(t *testing.T) (*world, *model) { return flushedClone(t, 3) }, flattens(3)},
		{"journals", smallJournal, growths(4)},
	}
}

// smallJournal begins with a journal that grows twice.
func smallJournal(t *testing.T) (*world, *model) {
	w := newWorld(t, 6*64<<10, 64<<10)
	must(t, w.close())
	w.options.JournalSize, w.options.JournalLimit = 64<<10, 1<<20
	w.start()
	must(t, w.open())
	return w, newModel(6 * 64 << 10)
}

// growths changes the same blocks in one, two and three journals, which both ways of flushing know of.
func growths(seed uint64) []step {
	rng := rand.New(rand.NewPCG(seed, 7))
	const chunkSize = 64 << 10
	return []step{
		writeStep(rng, 0, 8192),
		writeStep(rng, chunkSize, 4096),
		flushStep,
		writeStep(rng, 0, 4096), // in place, not flushed
		growStep,
		writeStep(rng, 4096, 512), // the first journal names the object
		flushStep,
		writeStep(rng, 2*chunkSize, 4096),
		discardStep(chunkSize, 4096), // the first journal has data of it
		growStep,
		writeStep(rng, 4096, 700),
		writeStep(rng, 3*chunkSize, 4096),
		flushStep,
		writeStep(rng, 0, 3*chunkSize), // over what all journals have data of; objects are synced
		flushStep,
		writeStep(rng, 8192, 100),
		discardStep(2*chunkSize, 8192),
		flushStep,
		writeStep(rng, 12288, 4096),
		growStep, // it is large enough: a cut
		writeStep(rng, 12288, 300),
		snapshotStep("s1"),
		writeStep(rng, 12288, 4096),
		flushStep,
		reopenStep,
	}
}

// resizes makes a volume smaller and larger, within a block, a chunk, and over chunks.
func resizes(seed uint64) []step {
	rng := rand.New(rand.NewPCG(seed, 7))
	const chunkSize = 64 << 10
	return []step{
		writeStep(rng, 0, 3*chunkSize),
		writeStep(rng, 5*chunkSize, 9000),
		flushStep,
		writeStep(rng, 2*chunkSize, 12<<10), // in place, not flushed
		resizeStep(2*chunkSize + 9*512),     // within a block that has data
		writeStep(rng, 2*chunkSize, 9*512),
		resizeStep(4*chunkSize + 512), // zeros follow
		writeStep(rng, 2*chunkSize+4096, 2*chunkSize),
		snapshotStep("s1"),
		discardStep(chunkSize, 8192),
		resizeStep(2 * chunkSize), // at a border of chunks
		growStep,
		resizeStep(2*chunkSize - 4096),
		flushStep,
		resizeStep(7*chunkSize - 512),
		writeStep(rng, 6*chunkSize, chunkSize-512),
		flushStep,
		reopenStep,
		resizeStep(512),
		resizeStep(2 * chunkSize),
		cutStep,
		reopenStep,
	}
}

// flattens gives a clone its own data, beside all else that a clone has.
func flattens(seed uint64) []step {
	rng := rand.New(rand.NewPCG(seed, 7))
	const chunkSize = 64 << 10
	return []step{
		writeStep(rng, 70000, 5000),
		flushStep,
		discardStep(3*chunkSize, 3*4096),
		snapshotStep("s1"),
		writeStep(rng, 4096, 700),
		flattenStep,
		writeStep(rng, 3*chunkSize, 20000), // to copied blocks
		flushStep,
		resizeStep(4 * chunkSize),
		flattenStep, // there is nothing to do
		reopenStep,
	}
}

// scenario touches every path of requests that stores something.
func scenario(seed uint64) []step {
	rng := rand.New(rand.NewPCG(seed, 7))
	const chunkSize = 64 << 10
	return []step{
		writeStep(rng, 0, 4096),               // a new object
		writeStep(rng, 8192, 4096),            // another block of it
		writeStep(rng, 5000, 700),             // read-modify-write across two blocks
		flushStep,                             // through the journal
		writeStep(rng, 0, 4096),               // in place
		flushStep,                             //
		writeStep(rng, 0, 2048),               // in place, in part, not flushed
		writeStep(rng, chunkSize, chunkSize),  // a whole chunk
		writeStep(rng, 2*chunkSize-512, 1024), // across a border
		discardStep(0, 8192),
		flushStep,
		writeStep(rng, 4096, 4096), // after the discard
		snapshotStep("s1"),
		writeStep(rng, 4096, 512), // copy on write
		writeStep(rng, chunkSize+100, 9000),
		flushStep,
		writeStep(rng, 4096, 512),
		growStep, // from one journal to the next, without a cut
		writeStep(rng, 4096+1024, 512),
		flushStep,
		cutStep,
		writeStep(rng, 4096, 4096),
		discardStep(chunkSize, chunkSize),
		cutStep,
		reopenStep,
		writeStep(rng, 4096, 8192),
		flushStep,
		snapshotStep("s2"),
		writeStep(rng, 3*chunkSize, 2*chunkSize), // larger than the journal takes: objects are synced
		writeStep(rng, 5*chunkSize, chunkSize),
		flushStep,
		writeStep(rng, 3*chunkSize, 4096),
		flushStep,
		reopenStep,
	}
}

// endings are the ways in which a process ends at some moment, and what of the unsynced changes is left.
var endings = []struct {
	name string
	kill bool
	keep func(k int64) mem.Keep
}{
	{name: "kill -9", kill: true},
	{name: "power loss, nothing unsynced is left", keep: func(int64) mem.Keep { return mem.KeepNone }},
	{name: "power loss, all is left", keep: func(int64) mem.Keep { return mem.KeepAll }},
	{name: "power loss, some is left", keep: func(k int64) mem.Keep { return mem.KeepRandom(rand.New(rand.NewPCG(uint64(k), 1))) }},
	{name: "power loss, some other is left", keep: func(k int64) mem.Keep { return mem.KeepRandom(rand.New(rand.NewPCG(uint64(k), 2))) }},
}

// TestCrashBeforeEveryOperation ends the process, or the power, before each operation of the
// backend in a scenario; and again while the volume is being opened after that. What was flushed must be there, snapshots must be as they
// were, also when they are read before the volume is opened, and the volume works.
func TestCrashBeforeEveryOperation(t *testing.T) {
	for _, s := range stories() {
		for _, e := range endings {
			t.Run(s.name+", "+e.name, func(t *testing.T) {
				t.Parallel()
				for k := int64(1); ; k += stride {
					if !crashAt(t, s, k, e.kill, e.keep) {
						t.Logf("%d operations", k-1)
						return
					}
					if t.Failed() {
						return
					}
				}
			})
		}
	}
}

// crashAt runs a story until operation k and ends it there. It returns false if the story has fewer.
func crashAt(t *testing.T, s story, k int64, kill bool, keep func(int64) mem.Keep) bool {
	w, m := s.begin(t)
	var mu sync.Mutex // of the next two
	var taken *mem.Backend
	calls := int64(0)
	hook := func(f *faulty.Backend) {
		f.SetHook(func(c faulty.Call) faulty.Action {
			mu.Lock()
			defer mu.Unlock()
			if taken != nil {
				return faulty.Fail(errDead)
			}
			if calls++; calls < k {
				return faulty.Pass()
			}
			if kill {
				taken = w.storage.Kill()
			} else {
				taken = w.storage.Crash(keep(k))
			}
			return faulty.Fail(errDead)
		})
	}
	w.begin = hook
	hook(w.faults)
	var at string
	for _, s := range s.steps {
		at = s.name
		if err := s.do(w, m); err != nil {
			break
		}
		at = ""
	}
	mu.Lock()
	ended := taken
	mu.Unlock()
	if ended == nil {
		if at != "" {
			t.Fatalf("%s fails by itself", at)
		}
		return false
	}
	w.begin = nil
	w.die()
	w.storage = ended
	if !kill {
		w.boot++
	}
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("ended before operation %d, in %q, %s: %v", k, at, what, err)
		}
	}
	w.start()
	check("snapshots before it is opened", m.sameSnapshots(w.snapshots()))
	// The end comes again at some operation of the first opening.
	w.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.N > k%41 {
			return faulty.Fail(errDead)
		}
		return faulty.Pass()
	})
	err := w.open()
	w.faults.SetHook(nil)
	if err == nil {
		check("read", m.survive(content(t, w.dev)))
	} else if !errors.Is(err, errDead) {
		check("open", err)
	}
	again := w.storage.Kill()
	if !kill {
		again = w.storage.Crash(mem.KeepRandom(rand.New(rand.NewPCG(uint64(k), 3))))
		w.boot++
	}
	w.die()
	w.storage = again
	w.reopen()
	check("read after the second opening", m.survive(content(t, w.dev)))
	check("snapshots", m.sameSnapshots(w.snapshots()))
	off := min(60000, w.dev.Size()-512)
	p := fill(rand.New(rand.NewPCG(uint64(k), 4)), int(min(3000, w.dev.Size()-off)))
	m.write(p, off)
	check("write", w.dev.WriteAt(t.Context(), p, off))
	check("resize", w.dev.Resize(t.Context(), 9*64<<10))
	m.resized(9 * 64 << 10)
	check("close", w.close())
	w.reopen()
	check("read at last", m.same(content(t, w.dev)))
	check("snapshots at last", m.sameSnapshots(w.snapshots()))
	check("close at last", w.close())
	return true
}

var errBroken = errors.New("broken")

// TestErrorAtEveryOperation makes each operation of the backend in a scenario fail once, before or after it was done. The volume either
// goes on or has failed for good; nothing that it acknowledged is lost.
func TestErrorAtEveryOperation(t *testing.T) {
	actions := map[string]faulty.Action{
		"not done":    faulty.Fail(errBroken),
		"done":        faulty.FailAfter(errBroken),
		"no space":    faulty.Fail(drivers.ErrNoSpace),
		"torn":        faulty.Tear(1, errBroken),
		"unknown yes": faulty.FailAfter(faulty.ErrUnknown),
		"unknown no":  faulty.Fail(faulty.ErrUnknown),
	}
	for _, s := range stories() {
		for name, action := range actions {
			t.Run(s.name+", "+name, func(t *testing.T) {
				t.Parallel()
				for k := int64(1); errorAt(t, s, k, action, 0) && !t.Failed(); k += stride {
				}
			})
		}
	}
}

// TestLateDeliveryOfEveryMutation lets each mutation of a scenario end without a verdict, and do its work some steps later: in the same grant or
// in a later one.
func TestLateDeliveryOfEveryMutation(t *testing.T) {
	for _, s := range stories() {
		for _, steps := range []int{1, 3, 100} {
			t.Run(fmt.Sprintf("%s, %d steps later", s.name, steps), func(t *testing.T) {
				t.Parallel()
				for k := int64(1); errorAt(t, s, k, faulty.Late(), steps) && !t.Failed(); k += stride {
				}
			})
		}
	}
}

// TestEveryMutationTwice delivers each mutation of a scenario a second time.
func TestEveryMutationTwice(t *testing.T) {
	for _, s := range stories() {
		for k := int64(1); errorAt(t, s, k, faulty.Twice(), 0) && !t.Failed(); k += stride {
		}
	}
}

// errorAt runs a story with an error at operation k; what the storage holds back is delivered after some more steps, or at the
// end. It returns false if there are fewer operations.
func errorAt(t *testing.T, s story, k int64, action faulty.Action, late int) bool {
	w, m := s.begin(t)
	var mu sync.Mutex // of the next three
	calls, hit := int64(0), ""
	var holding *faulty.Backend
	deliver := func() {
		mu.Lock()
		defer mu.Unlock()
		if holding != nil {
			// Names that are gone by now make it fail, which is as well.
			_ = holding.Deliver(context.Background())
		}
	}
	w.begin = func(f *faulty.Backend) {
		f.SetHook(func(c faulty.Call) faulty.Action {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls == k {
				hit = c.String()
				holding = f
				return action
			}
			return faulty.Pass()
		})
	}
	w.begin(w.faults)
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("error at operation %d, %s: %s: %v", k, hit, what, err)
		}
	}
	since := 0
	for _, s := range s.steps {
		err := s.do(w, m)
		mu.Lock()
		if holding != nil {
			since++
		}
		mu.Unlock()
		if since == late {
			deliver()
		}
		if w.dev == nil || err != nil && w.dev.Err() != nil {
			// It has failed: what counts is there when it is opened again.
			storage := w.storage.Kill()
			if w.dev != nil {
				storage = w.storage.Crash(mem.KeepNone)
				w.boot++
			}
			w.die()
			w.storage = storage
			w.start()
			check("open again", w.open())
			check("after a failure", m.survive(content(t, w.dev)))
			check("snapshots", m.sameSnapshots(w.snapshots()))
			continue
		}
		if err != nil {
			// One request failed; what it would have changed may hold either.
			check("after an error", m.settle(content(t, w.dev)))
			check("snapshots", m.sameSnapshots(w.snapshots()))
			// What may be now may be something else after a crash, until the next flush.
			if err := w.dev.Flush(context.Background()); err != nil {
				w.crash(mem.KeepNone)
				check("after a failed flush", m.survive(content(t, w.dev)))
			}
		}
	}
	w.begin = nil
	w.faults.SetHook(nil)
	deliver()
	check("read", m.same(content(t, w.dev)))
	check("snapshots", m.sameSnapshots(w.snapshots()))
	w.crash(mem.KeepNone)
	check("after power loss", m.survive(content(t, w.dev)))
	check("snapshots after power loss", m.sameSnapshots(w.snapshots()))
	mu.Lock()
	defer mu.Unlock()
	return hit != ""
}
