package volume

import (
	"cmp"
	"slices"
	"sync"

	"skerry/chunk"
	"skerry/mapper/journal"
)

// dirty knows what was written and is not durable where it belongs. Of each object that was
// changed since the last cut it remembers the blocks written since the last flush and the
// blocks whose data lies in the journal.
type dirty struct {
	blocks int // of a chunk

	mu      sync.Mutex
	objects map[journal.Object]*objectState
	fans    map[string]uint64 // groups in which objects were created since they were last synced, with the last one's number
	creates uint64            // numbers creations
	written []*objectState    // those with blocks to flush, and some that have none any more
	dropped []journal.Object
	recent  recent
}

// fan is a group with creations that are not known to be durable, up to the one numbered last.
type fan struct {
	group string
	last  uint64
}

// objectState is what is known about one object.
type objectState struct {
	object    journal.Object
	touched   bool         // the journal since the last cut names it
	listed    bool         // in dirty.written
	written   chunk.Bitmap // blocks written since the last flush, or since the last cut if that came later
	cutting   chunk.Bitmap // the same before the cut that is under way; nil if none
	journaled chunk.Bitmap // blocks with data in the journal since the last cut; nil if none
	before    chunk.Bitmap // the same before the cut that is under way
}

func newDirty(blocks int) *dirty {
	return &dirty{blocks: blocks, objects: make(map[journal.Object]*objectState), fans: make(map[string]uint64)}
}

func (d *dirty) stateLocked(o journal.Object) *objectState {
	s := d.objects[o]
	if s == nil {
		s = &objectState{object: o, written: chunk.NewBitmap(d.blocks)}
		d.objects[o] = s
	}
	return s
}

// isTouched reports whether the journal names the object since the last cut.
func (d *dirty) isTouched(o journal.Object) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.objects[o]
	return s != nil && s.touched
}

// touch notes that the journal names the object.
func (d *dirty) touch(o journal.Object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stateLocked(o).touched = true
}

// created notes that an object was made in a group.
func (d *dirty) created(group string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.creates++
	d.fans[group] = d.creates
}

// write notes that blocks [first, end) were written. whole is what they hold now, nil if that is not known.
func (d *dirty) write(o journal.Object, first, end int, whole []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stateLocked(o)
	s.written.Set(first, end)
	d.listLocked(s)
	if whole != nil {
		d.recent.put(o, first, whole)
	} else {
		d.recent.forget(o, first, end)
	}
}

// punch notes that blocks [first, end) are about to become zeros, or may have.
func (d *dirty) punch(o journal.Object, first, end int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recent.forget(o, first, end)
}

// recall fills p with blocks of o, the first one of which is named and which are locked, as far as what they hold is known. It
// returns the runs that are not.
func (d *dirty) recall(o journal.Object, first int, p []byte) (unknown []blockRun) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for b := first; len(p) > 0; b, p = b+1, p[chunk.BlockSize:] {
		if d.recent.get(o, b, p[:chunk.BlockSize]) {
			continue
		}
		if k := len(unknown); k > 0 && unknown[k-1].end == b {
			unknown[k-1].end++
		} else {
			unknown = append(unknown, blockRun{first: b, end: b + 1})
		}
	}
	return unknown
}

// recorded notes that a flush has put what it captured where it belongs.
func (d *dirty) recorded() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recent.reset(smallFlush)
}

func (d *dirty) listLocked(s *objectState) {
	if !s.listed {
		s.listed = true
		d.written = append(d.written, s)
	}
}

// drop notes that objects left the map; they can be removed after the next cut.
func (d *dirty) drop(index uint64, serials []chunk.Serial) {
	if len(serials) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range serials {
		d.dropped = append(d.dropped, journal.Object{Chunk: index, Serial: s})
	}
}

// written is what a flush captured of one object: blocks to make durable.
type written struct {
	object journal.Object
	blocks chunk.Bitmap
}

// stale returns those of the captured blocks of an object that have older data in the journal.
func (d *dirty) stale(w written) chunk.Bitmap {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.objects[w.object]
	if s == nil || s.journaled == nil && s.before == nil {
		return nil
	}
	u := union(s.journaled, s.before)
	for i := range u {
		u[i] &= w.blocks[i]
	}
	return u
}

// capture asks for the last frame and then takes the written blocks, ordered by object; from now on they count as flushed. In this order: what a
// frame up to that one tells of is among the blocks.
func (d *dirty) capture(last func() uint64) (frame uint64, objects []written, fans []fan, count int) {
	frame = last()
	d.mu.Lock()
	defer d.mu.Unlock()
	objects = make([]written, 0, len(d.written))
	var fresh chunk.Bitmap
	for i, s := range d.written {
		s.listed = false
		w := written{object: s.object, blocks: s.written}
		for i := range s.cutting {
			w.blocks[i] |= s.cutting[i]
		}
		s.cutting = nil
		n := w.blocks.Count()
		if n == 0 {
			continue
		}
		count += n
		words := len(s.written)
		if fresh == nil {
			fresh = make(chunk.Bitmap, (len(d.written)-i)*words)
		}
		s.written, fresh = fresh[:words:words], fresh[words:]
		objects = append(objects, w)
	}
	clear(d.written)
	d.written = d.written[:0]
	slices.SortFunc(objects, func(a, b written) int { return compareObjects(a.object, b.object) })
	return frame, objects, d.fansLocked(), count
}

// union returns a new set of the blocks of two sets, of which one may be nil.
func union(a, b chunk.Bitmap) chunk.Bitmap {
	if a == nil {
		a, b = b, a
	}
	u := a.Clone()
	for i := range b {
		u[i] |= b[i]
	}
	return u
}

// restore takes back a capture whose flush did not happen.
func (d *dirty) restore(objects []written) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range objects {
		s := d.stateLocked(w.object)
		s.written = union(s.written, w.blocks)
		d.listLocked(s)
	}
}

func (d *dirty) fansLocked() []fan {
	fans := make([]fan, 0, len(d.fans))
	for g, n := range d.fans {
		fans = append(fans, fan{g, n})
	}
	return fans
}

// fansSynced notes that the creations in groups, as captured, are durable.
func (d *dirty) fansSynced(fans []fan) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range fans {
		if d.fans[f.group] == f.last {
			delete(d.fans, f.group)
		}
	}
}

// journal notes that the journal has data of the blocks.
func (d *dirty) journal(o journal.Object, blocks chunk.Bitmap) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stateLocked(o)
	if s.journaled == nil {
		s.journaled = chunk.NewBitmap(d.blocks)
	}
	for i := range blocks {
		s.journaled[i] |= blocks[i]
	}
}

// cutState is what a cut has to make durable, and may remove afterwards.
type cutState struct {
	objects []journal.Object
	fans    []fan
	dropped []journal.Object
	pages   []string // map pages that it has made
}

// cut begins a cut: what the journal names up to now. No change may be under way.
func (d *dirty) cut() cutState {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := cutState{dropped: d.dropped, fans: d.fansLocked()}
	d.dropped = nil
	for o, s := range d.objects {
		if s.touched {
			c.objects = append(c.objects, o)
			s.touched = false
		}
		s.before, s.journaled = s.journaled, nil
		s.cutting, s.written = s.written, chunk.NewBitmap(d.blocks)
	}
	slices.SortFunc(c.objects, compareObjects)
	return c
}

// cutDone ends a cut that was stored.
func (d *dirty) cutDone(c cutState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range c.dropped {
		if s := d.objects[o]; s != nil {
			clear(s.written) // it is listed still
			s.cutting = nil
			delete(d.objects, o)
		}
	}
	for o, s := range d.objects {
		s.before, s.cutting = nil, nil
		if !s.touched && s.journaled == nil && s.written.Empty() {
			delete(d.objects, o)
		}
	}
}

// cutFailed ends a cut that was not stored: all of it is still to be done. doubt says that all but the root was stored, and that it may
// be in force: the journal from there on does not name the objects.
func (d *dirty) cutFailed(c cutState, doubt bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropped = append(d.dropped, c.dropped...)
	if !doubt {
		for _, o := range c.objects {
			d.stateLocked(o).touched = true
		}
	}
	for _, s := range d.objects {
		if s.before != nil {
			s.journaled = union(s.before, s.journaled)
		}
		s.written = union(s.written, s.cutting)
		s.before, s.cutting = nil, nil
	}
}

func compareObjects(a, b journal.Object) int {
	return cmp.Or(cmp.Compare(a.Chunk, b.Chunk), cmp.Compare(a.Serial, b.Serial))
}
