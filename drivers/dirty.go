package drivers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// cleaners is how many handles are synced at once to make room for more dirty ones.
const cleaners = 4

// dirtySet holds the handles with unsynced changes, in the order in which they became dirty, and bounds their number.
type dirtySet struct {
	e    *Engine
	most int
	room notice

	mu       sync.Mutex
	ring     handle // head
	n        int
	cleaners int
	start    func()
}

func (d *dirtySet) init(e *Engine) {
	d.e = e
	d.most = e.o.MaxDirty
	d.ring.dirtyNext, d.ring.dirtyPrev = &d.ring, &d.ring
	d.start = d.cleaner
}

// beginLocked begins a change of h, whose shard is locked; false if too many handles are dirty.
func (d *dirtySet) beginLocked(h *handle) bool {
	if !h.dirty && !h.failed && !h.dropped && !d.e.props.DurableWrites {
		if !d.add(h) {
			return false
		}
		h.dirty = true
	}
	h.changing++
	return true
}

func (d *dirtySet) add(h *handle) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n >= d.most {
		d.cleanLocked()
		return false
	}
	d.n++
	d.pushLocked(h)
	return true
}

func (d *dirtySet) pushLocked(h *handle) {
	h.dirtyPrev, h.dirtyNext = d.ring.dirtyPrev, &d.ring
	h.dirtyPrev.dirtyNext, d.ring.dirtyPrev = h, h
}

func (d *dirtySet) takeLocked(h *handle) {
	h.dirtyNext.dirtyPrev, h.dirtyPrev.dirtyNext = h.dirtyPrev, h.dirtyNext
}

// remove is for a handle that is clean, failed or removed.
func (d *dirtySet) remove(h *handle) {
	d.mu.Lock()
	d.takeLocked(h)
	d.n--
	d.mu.Unlock()
	d.room.wake()
}

// beginChange begins a change of h; it waits while too many handles are dirty.
func (e *Engine) beginChange(h *handle, due time.Time) error {
	for {
		if began, err := e.dirty.begin(h); began || err != nil {
			return err
		}
		room := e.dirty.room.wait()
		began, err := e.dirty.begin(h)
		ok := began || err != nil || wait(room, due)
		e.dirty.room.unwait()
		if began || err != nil {
			return err
		}
		if !ok {
			return errLate
		}
	}
}

func (d *dirtySet) begin(h *handle) (bool, error) {
	h.shard.mu.Lock()
	defer h.shard.mu.Unlock()
	if h.readOnly != nil {
		return false, h.readOnly
	}
	return d.beginLocked(h), nil
}

// clean starts to sync dirty handles, so that they can be closed.
func (d *dirtySet) clean() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cleanLocked()
}

func (d *dirtySet) cleanLocked() {
	for d.cleaners < min(cleaners, d.n) {
		d.cleaners++
		d.e.tasks.Add(1)
		go d.start()
	}
}

// cleaner syncs the handles that have been dirty longest until a quarter of the room is free.
func (d *dirtySet) cleaner() {
	defer d.e.tasks.Done()
	low := d.most * 3 / 4
	for {
		h := d.pick(low)
		if h == nil {
			return
		}
		d.syncAsUser(h)
	}
}

// pick returns the handle that has been dirty longest and that nobody cleans; nil, which ends the cleaner, if
// no more than low are dirty.
func (d *dirtySet) pick(low int) *handle {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n > low {
		for h := d.ring.dirtyNext; h != &d.ring; h = h.dirtyNext {
			if !h.cleaning {
				h.cleaning = true
				d.takeLocked(h)
				d.pushLocked(h)
				return h
			}
		}
	}
	d.cleaners--
	return nil
}

// syncAsUser syncs a handle that the caller does not use.
func (d *dirtySet) syncAsUser(h *handle) error {
	c := &d.e.handles
	h.shard.mu.Lock()
	gone := h.dropped
	if !gone {
		c.useLocked(h)
	}
	h.shard.mu.Unlock()
	var err error
	if !gone {
		if err = d.sync(h); err != nil {
			d.e.o.Logger.Error("background sync", "driver", d.e.props.Kind, "object", h.name, "err", err)
		}
	}
	d.mu.Lock()
	h.cleaning = false
	d.mu.Unlock()
	if !gone && c.put(h, false) {
		_ = c.close(h) // it was removed meanwhile
	}
	return err
}

// syncAll syncs all that is dirty. Nothing must be changing.
func (d *dirtySet) syncAll() error {
	d.mu.Lock()
	var list []*handle
	for h := d.ring.dirtyNext; h != &d.ring; h = h.dirtyNext {
		list = append(list, h)
	}
	d.mu.Unlock()
	slices.SortFunc(list, func(a, b *handle) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	var errs []error
	for _, h := range list {
		errs = append(errs, d.syncAsUser(h))
	}
	return errors.Join(errs...)
}

// syncRun is one sync of an object, which all share who asked before it began.
type syncRun struct {
	done chan struct{}
	err  error
}

// sync syncs a handle that the caller uses. Only one sync of a handle runs at once, as the
// operating system reports a failure to one of concurrent callers only.
func (d *dirtySet) sync(h *handle) error {
	s := h.shard
	s.mu.Lock()
	run := h.waiting
	if run != nil {
		s.mu.Unlock()
		<-run.done
		return run.err
	}
	run = &syncRun{done: make(chan struct{})}
	if before := h.current; before != nil {
		h.waiting = run
		s.mu.Unlock()
		<-before.done
		s.mu.Lock()
		h.waiting = nil
	}
	h.current = run
	changes, failed := h.changes, h.failed
	s.mu.Unlock()

	if failed {
		run.err = d.e.failed.get([]byte(h.name))
	} else if run.err = h.obj.Sync(); run.err != nil {
		run.err = d.e.failed.set(h.name, run.err)
	}

	s.mu.Lock()
	if run.err != nil {
		h.failed = true
	}
	clean := run.err == nil && h.changing == 0 && h.changes == changes
	if h.dirty && (clean || h.failed) {
		h.dirty = false
		d.remove(h)
	}
	if h.current == run {
		h.current = nil
	}
	s.mu.Unlock()
	close(run.done)
	return run.err
}

// failedSyncs remembers the first failed sync of each name, until its cache is dropped.
type failedSyncs struct {
	any atomic.Bool
	mu  sync.Mutex
	m   map[string]error
}

func (f *failedSyncs) get(name []byte) error {
	if !f.any.Load() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m[string(name)]
}

func (f *failedSyncs) set(name string, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil {
		f.m = make(map[string]error)
	}
	if f.m[name] == nil {
		f.m[name] = fmt.Errorf("%w (final: what was not synced before may be lost)", err)
		f.any.Store(true)
	}
	return f.m[name]
}

// forget is for a name whose cached data is gone.
func (f *failedSyncs) forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.m, name)
}

// FailedSyncs returns the names of objects whose sync has failed, sorted.
func (e *Engine) FailedSyncs() []string {
	e.failed.mu.Lock()
	defer e.failed.mu.Unlock()
	return slices.Sorted(maps.Keys(e.failed.m))
}
