package drivers

import (
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const shards = 16

// handles is the cache of open objects. A handle that is in use or dirty is not closed; the others
// lie in their shard's list and the one that was used longest ago makes room for the next.
//
// Lock order: shard.mu, then dirtySet.mu. No backend call is made under either.
type handles struct {
	e     *Engine
	seed  maphash.Seed
	clock atomic.Int64 // orders uses
	slots atomic.Int64 // open, or about to be
	room  notice       // a slot or an unused handle may have become free

	shards [shards]shard
}

type shard struct {
	mu   sync.Mutex
	m    map[string]*handle
	idle handle // head of the ring of open, clean, unused handles, the latest used first
}

// handle is one object of the cache.
type handle struct {
	name  string
	shard *shard
	ready chan struct{} // closed once obj or err is set

	obj    Object
	reader TryReader // nil if obj is none
	writer TryWriter
	err    error // why it could not be opened

	// Guarded by shard.mu.
	open     bool
	dropped  bool  // no longer in the map; closed when unused
	stale    bool  // to be dropped when unused and clean
	readOnly error // why it could not be opened for writing
	users    int
	changing int    // changes that run
	changes  uint64 // changes that have ended
	dirty    bool   // has or may get unsynced changes: a member of the dirty set
	failed   bool   // a sync failed: never clean again, never counted dirty again
	used     int64  // clock at the last use
	next     *handle
	prev     *handle
	current  *syncRun
	waiting  *syncRun

	// Guarded by dirtySet.mu.
	dirtyNext, dirtyPrev *handle
	cleaning             bool
}

// errAgain tells those who waited for another's open or create to try themselves.
var errAgain = errors.New("try again")

func (c *handles) init(e *Engine) {
	c.e = e
	c.seed = maphash.MakeSeed()
	for i := range c.shards {
		s := &c.shards[i]
		s.m = make(map[string]*handle)
		s.idle.next, s.idle.prev = &s.idle, &s.idle
	}
}

func (c *handles) shardOf(name []byte) *shard {
	return &c.shards[maphash.Bytes(c.seed, name)%shards]
}

// isOpen reports whether the object's handle is cached.
func (c *handles) isOpen(name []byte) bool {
	s := c.shardOf(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.m[string(name)]
	return h != nil && h.open
}

// peek takes the handle of an open object for an I/O that does not block, nil if that cannot be.
func (c *handles) peek(name []byte, write bool) (h *handle, open bool) {
	s := c.shardOf(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h = s.m[string(name)]; h == nil || !h.open {
		return nil, false
	}
	if !write {
		if h.reader == nil {
			return nil, true
		}
	} else if h.writer == nil || h.readOnly != nil || !c.e.dirty.beginLocked(h) {
		return nil, true
	}
	c.useLocked(h)
	return h, true
}

func (c *handles) useLocked(h *handle) {
	if h.users == 0 && h.next != nil {
		h.next.prev, h.prev.next = h.prev, h.next
		h.next, h.prev = nil, nil
	}
	h.users++
}

// put ends a use, and if changed a change. If it returns true the caller must call close.
func (c *handles) put(h *handle, changed bool) (closeIt bool) {
	s := h.shard
	s.mu.Lock()
	if changed {
		h.changing--
		h.changes++
	}
	if h.users--; h.users > 0 {
		s.mu.Unlock()
		return false
	}
	if h.dropped || !h.open {
		closeIt = h.open
		h.open = false
		s.mu.Unlock()
		return closeIt
	}
	if h.stale && !h.dirty {
		closeIt = c.dropLocked(h)
		s.mu.Unlock()
		return closeIt
	}
	c.idleLocked(h)
	s.mu.Unlock()
	c.room.wake()
	return false
}

// idleLocked puts an unused handle where it can be closed, unless it is dirty.
func (c *handles) idleLocked(h *handle) {
	if h.users > 0 || h.dirty || h.dropped || !h.open || h.next != nil {
		return
	}
	h.used = c.clock.Add(1)
	i := &h.shard.idle
	h.next, h.prev = i.next, i
	h.next.prev, i.next = h, h
}

// get takes the handle of op's object, and opens it if need be.
func (c *handles) get(op *Op) (*handle, error) {
	s := c.shardOf(op.Name)
	for {
		s.mu.Lock()
		h := s.m[string(op.Name)]
		if h == nil {
			h = c.claimLocked(s, string(op.Name))
			s.mu.Unlock()
			if err := c.e.open(h, op.due); err != nil {
				return nil, err
			}
			return h, nil
		}
		c.useLocked(h)
		open := h.open
		s.mu.Unlock()
		if open {
			return h, nil
		}
		if !wait(h.ready, op.due) {
			if c.put(h, false) {
				_ = c.close(h) // it was removed while it was opened
			}
			return nil, opError(op, errLate)
		}
		if h.err == nil {
			return h, nil
		}
		c.put(h, false) // nothing is open
		if h.err != errAgain {
			return nil, h.err
		}
	}
}

// claim enters a handle that is about to be opened, used by the caller; nil if the name has one.
func (c *handles) claim(name string) *handle {
	s := c.shardOf([]byte(name))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[name] != nil {
		return nil
	}
	return c.claimLocked(s, name)
}

func (c *handles) claimLocked(s *shard, name string) *handle {
	h := &handle{name: name, shard: s, ready: make(chan struct{}), users: 1}
	s.m[name] = h
	return h
}

// opened ends a claim: the object is open.
func (c *handles) opened(h *handle, obj Object, readOnly error) {
	h.obj = obj
	h.reader, _ = obj.(TryReader)
	h.writer, _ = obj.(TryWriter)
	failed := c.e.failed.get([]byte(h.name)) != nil
	s := h.shard
	s.mu.Lock()
	h.open, h.readOnly, h.failed = true, readOnly, failed
	s.mu.Unlock()
	close(h.ready)
}

// fail ends a claim, of which there may be none: the object is not open.
func (c *handles) fail(h *handle, err error) {
	if h == nil {
		return
	}
	s := h.shard
	s.mu.Lock()
	if s.m[h.name] == h {
		delete(s.m, h.name)
	}
	h.dropped = true
	h.users--
	s.mu.Unlock()
	h.err = err
	close(h.ready)
}

// drop forgets a name that was removed. Its handle is closed when its users have ended.
func (c *handles) drop(name string) {
	s := c.shardOf([]byte(name))
	s.mu.Lock()
	h := s.m[name]
	closeIt := false
	if h != nil {
		closeIt = c.dropLocked(h)
	}
	s.mu.Unlock()
	if closeIt {
		_ = c.close(h) // nobody will see the object again
	}
}

// forget has a handle closed, and opened again at the next use, as soon as it is unused and clean.
func (c *handles) forget(h *handle) {
	h.shard.mu.Lock()
	defer h.shard.mu.Unlock()
	h.stale = true
}

// dropLocked takes h out of the map. If it returns true the caller must call close.
func (c *handles) dropLocked(h *handle) (closeIt bool) {
	delete(h.shard.m, h.name)
	h.dropped = true
	if h.dirty {
		h.dirty = false
		c.e.dirty.remove(h)
	}
	if h.users > 0 || !h.open {
		return false
	}
	if h.next != nil {
		h.next.prev, h.prev.next = h.prev, h.next
		h.next, h.prev = nil, nil
	}
	h.open = false
	return true
}

// close closes a dropped, unused handle.
func (c *handles) close(h *handle) error {
	err := h.obj.Close()
	c.release()
	return err
}

// reserve waits for a slot for one more open object, and closes one if that is needed.
func (c *handles) reserve(due time.Time) error {
	for !c.tryReserve() {
		room := c.room.wait()
		if c.tryReserve() {
			c.room.unwait()
			return nil
		}
		if h := c.oldest(); h != nil {
			c.room.unwait()
			_ = c.close(h) // it is clean: nothing depends on what its close says
			continue
		}
		c.e.dirty.clean()
		ok := wait(room, due)
		c.room.unwait()
		if !ok {
			return errLate
		}
	}
	return nil
}

func (c *handles) tryReserve() bool {
	for n := c.slots.Load(); n < int64(c.e.o.MaxHandles); n = c.slots.Load() {
		if c.slots.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

// release gives a slot back.
func (c *handles) release() {
	c.slots.Add(-1)
	c.room.wake()
}

// oldest drops the unused handle that was used longest ago, for the caller to close; nil if there is none.
func (c *handles) oldest() *handle {
	var from *shard
	var used int64
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		if h := s.idle.prev; h != &s.idle && (from == nil || h.used < used) {
			from, used = s, h.used
		}
		s.mu.Unlock()
	}
	if from == nil {
		return nil
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	h := from.idle.prev
	if h == &from.idle || !c.dropLocked(h) {
		return nil // taken meanwhile
	}
	return h
}

// closeAll closes all handles and waits for those in use.
func (c *handles) closeAll() error {
	var errs []error
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		var list []*handle
		for _, h := range s.m {
			if c.dropLocked(h) {
				list = append(list, h)
			}
		}
		s.mu.Unlock()
		for _, h := range list {
			errs = append(errs, c.close(h))
		}
	}
	for c.slots.Load() > 0 {
		room := c.room.wait()
		if c.slots.Load() > 0 {
			<-room
		}
		c.room.unwait()
	}
	return errors.Join(errs...)
}
