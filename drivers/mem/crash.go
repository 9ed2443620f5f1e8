package mem

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"

	"skerry/drivers"
)

// SectorSize is the unit in bytes that a torn write leaves whole.
const SectorSize = 512

// Mutation is a change that was not synced.
type Mutation struct {
	Kind        drivers.Kind // OpWrite, OpPunch, OpAllocate, OpCreate or OpUnlink
	Name        string
	Off, Length int64 // bytes
}

// Sectors returns how many sectors the range of a write or punch touches.
func (m Mutation) Sectors() int {
	if m.Length == 0 {
		return 0
	}
	return int((m.Off+m.Length-1)/SectorSize - m.Off/SectorSize + 1)
}

// Kept says what the storage kept of one mutation. The zero value is nothing.
type Kept struct {
	all     bool
	sectors func(i int) bool
}

// Nothing of the mutation was kept.
func Nothing() Kept { return Kept{} }

// Everything of the mutation was kept.
func Everything() Kept { return Kept{all: true} }

// Sectors keeps those sectors of a write or punch for which keep is true, counted from the first that it touches. Of
// other mutations it keeps nothing.
func Sectors(keep func(i int) bool) Kept { return Kept{sectors: keep} }

// Keep decides what a crash keeps of each mutation that was not synced. It is called once for
// each, in the order in which they were made.
type Keep func(Mutation) Kept

// KeepNone keeps only what was synced.
func KeepNone(Mutation) Kept { return Nothing() }

// KeepAll keeps everything.
func KeepAll(Mutation) Kept { return Everything() }

// KeepRandom keeps a third of the mutations, loses a third and tears a third.
func KeepRandom(rng *rand.Rand) Keep {
	return func(Mutation) Kept {
		switch rng.IntN(3) {
		case 0:
			return Nothing()
		case 1:
			return Everything()
		}
		return Sectors(func(int) bool { return rng.IntN(2) == 0 })
	}
}

// change is an unsynced change of a content.
type change struct {
	seq    uint64
	kind   drivers.Kind
	off, n int64
	data   []byte // OpWrite
}

// image returns the change as storage sees it, that writes whole sectors: those that a write or punch covers in part carry
// what they held before it, so that no crash can show the second of two changes of a sector without the first. A punch of
// parts of sectors has data too, that of all its range.
func (m change) image(before *content, seq uint64) change {
	m.seq = seq
	start := m.off - m.off%SectorSize
	end := m.off + m.n
	if rest := end % SectorSize; rest != 0 {
		end = min(end-rest+SectorSize, max(end, before.size)) // no longer than the object becomes
	}
	whole := start == m.off && end == m.off+m.n
	if m.kind == drivers.OpAllocate || m.kind == drivers.OpPunch && whole {
		return m
	}
	data := make([]byte, end-start)
	before.read(data, start)
	if m.kind == drivers.OpWrite {
		copy(data[m.off-start:], m.data)
	} else {
		clear(data[m.off-start:][:m.n])
	}
	m.off, m.n, m.data = start, end-start, data
	return m
}

// naming is an unsynced change of a name.
type naming struct {
	seq  uint64
	kind drivers.Kind // OpCreate or OpUnlink
	name string
	obj  *object // OpCreate
}

// apply does to c what kept keeps of m.
func (m change) apply(c *content, kept Kept) {
	if kept.all {
		m.part(c, 0, m.n)
		return
	}
	if kept.sectors == nil || m.kind == drivers.OpAllocate {
		return
	}
	for i, from := 0, int64(0); from < m.n; i++ {
		to := min(m.n, from+SectorSize-(m.off+from)%SectorSize)
		if kept.sectors(i) {
			m.part(c, from, to)
		}
		from = to
	}
}

func (m change) part(c *content, from, to int64) {
	switch m.kind {
	case drivers.OpWrite:
		c.write(m.data[from:to], m.off+from)
	case drivers.OpPunch:
		to = min(to, c.size-m.off) // it never changes the size, and beyond is nothing
		if from >= to {
			return
		}
		c.punch(m.off+from, to-from)
		if edge := min(to, SectorSize); m.data != nil && from < edge {
			c.write(m.data[from:edge], m.off+from)
		}
		if edge := max(from, m.n-(m.off+m.n-1)%SectorSize-1); m.data != nil && edge < to {
			c.write(m.data[edge:to], m.off+edge)
		}
	case drivers.OpAllocate:
		c.allocate(m.off+from, to-from)
	}
}

// pending is one unsynced mutation with what it belongs to.
type pending struct {
	seq    uint64
	m      Mutation
	obj    *object // of a change
	change change
	naming naming
}

// pendingLocked returns all unsynced mutations in order. The world is locked. Objects are found by the
// names that are or were theirs.
func (b *Backend) pendingLocked() []pending {
	var list []pending
	seen := map[*object]bool{}
	add := func(name string, o *object) {
		if seen[o] {
			return
		}
		seen[o] = true
		for _, c := range o.log {
			list = append(list, pending{seq: c.seq, obj: o, change: c,
				m: Mutation{Kind: c.kind, Name: name, Off: c.off, Length: c.n}})
		}
	}
	for name, o := range b.names {
		add(name, o)
	}
	for name, o := range b.durable {
		add(name, o)
	}
	for _, log := range b.namings {
		for _, n := range log {
			if n.obj != nil {
				add(n.name, n.obj)
			}
			list = append(list, pending{seq: n.seq, naming: n, m: Mutation{Kind: n.kind, Name: n.name}})
		}
	}
	slices.SortFunc(list, func(a, b pending) int { return cmp.Compare(a.seq, b.seq) })
	return list
}

// Pending returns the mutations that a crash now may lose, in the order in which they were made.
func (b *Backend) Pending() []Mutation {
	b.world.Lock()
	defer b.world.Unlock()
	var list []Mutation
	for _, p := range b.pendingLocked() {
		list = append(list, p.m)
	}
	return list
}

// Crash returns the storage after a loss of power: what was synced, and what keep says of the rest. Nobody holds locks.
// The old backend goes on as it is, for those who still use it.
func (b *Backend) Crash(keep Keep) *Backend {
	b.world.Lock()
	defer b.world.Unlock()
	n := b.emptyLocked()
	objects := map[*object]*object{}
	copyOf := func(o *object) *object {
		c := objects[o]
		if c == nil {
			base := &o.content
			if o.synced != nil {
				base = o.synced
			}
			c = &object{content: base.snapshot()}
			objects[o] = c
		}
		return c
	}
	names := maps.Clone(b.durable)
	for _, p := range b.pendingLocked() {
		kept := keep(p.m)
		switch {
		case p.obj != nil:
			p.change.apply(&copyOf(p.obj).content, kept)
		case !kept.all:
		case p.naming.kind == drivers.OpCreate:
			names[p.naming.name] = p.naming.obj
		default:
			delete(names, p.naming.name)
		}
	}
	for name, o := range names {
		n.putDurable(name, copyOf(o))
	}
	return n
}

// Kill returns the storage after the death of all processes: everything is as it was, synced or not, and nobody holds locks.
func (b *Backend) Kill() *Backend {
	b.world.Lock()
	defer b.world.Unlock()
	n := b.emptyLocked()
	n.seq.Store(b.seq.Load())
	objects := map[*object]*object{}
	copyOf := func(o *object) *object {
		c := objects[o]
		if c == nil {
			c = &object{content: o.content.snapshot(), log: slices.Clone(o.log)}
			if o.synced != nil {
				s := o.synced.snapshot()
				c.synced = &s
			}
			objects[o] = c
		}
		return c
	}
	for name, o := range b.names {
		n.names[name] = copyOf(o)
		n.used.Add(n.names[name].content.pages)
	}
	for name, o := range b.durable {
		n.durable[name] = copyOf(o)
	}
	for group, log := range b.namings {
		for _, m := range log {
			if m.obj != nil {
				m.obj = copyOf(m.obj)
			}
			n.namings[group] = append(n.namings[group], m)
		}
	}
	return n
}
