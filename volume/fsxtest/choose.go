package fsxtest

import "slices"

const (
	sector = 512
	block  = 4096
	// maxBeside bounds the operations that are made at once.
	maxBeside = 8
	// maxRecent bounds the ranges that are remembered to be touched again.
	maxRecent = 16
)

// one reports true one time in n; never if n is 0.
func (e *Exerciser) one(n int) bool { return n > 0 && e.rand.IntN(n) == 0 }

// pick returns one of some values.
func (e *Exerciser) pick(of ...int64) int64 { return of[e.rand.IntN(len(of))] }

// edge returns a place from 0 to end that lies at or around an edge.
func (e *Exerciser) edge(end int64) int64 {
	at := int64(0)
	switch unit := e.pick(0, 1, sector, block, block, e.options.Chunk, e.options.Chunk, end); unit {
	case 0:
	case 1:
		at = e.rand.Int64N(end + 1)
	case end:
		at = end
	default:
		at = e.rand.Int64N(end/unit+1) * unit
	}
	switch e.rand.IntN(6) {
	case 0:
		at += e.pick(-1, 1)
	case 1:
		at += e.pick(-1, 1) * (e.pick(sector, block) + e.pick(-1, 0, 1))
	case 2:
		at += e.rand.Int64N(4*block) - 2*block
	}
	return max(0, min(at, end))
}

// length returns the length of a range, from 1 on.
func (e *Exerciser) length() int64 {
	switch e.rand.IntN(16) {
	case 0:
		return 1 + e.rand.Int64N(16)
	case 1, 2:
		return sector*(1+e.rand.Int64N(8)) + e.pick(-1, 0, 0, 1)
	case 3, 4, 5:
		return block
	case 6, 7, 8:
		return block*(1+e.rand.Int64N(8)) + e.pick(-sector, -1, 0, 0, 0, 1, sector)
	case 9, 10, 11:
		return 1 + e.rand.Int64N(3*block)
	case 12, 13:
		return 1 + e.rand.Int64N(e.options.Chunk)
	case 14:
		return 1 + e.rand.Int64N(e.options.Longest)
	}
	return min(e.options.Chunk+e.pick(-block, -1, 0, 0, 1, block), e.options.Longest)
}

// span returns a range of the disk that is not empty, often one that overlaps with what was touched lately.
func (e *Exerciser) span() (off, n int64) {
	size := int64(len(e.model))
	if len(e.recent) > 0 && e.one(4) {
		r := e.recent[e.rand.IntN(len(e.recent))]
		off, n = r[0], r[1]
		if e.one(2) {
			off, n = off+e.pick(-block, -sector, -1, 0, 1, sector, block), n+e.pick(-sector, -1, 0, 1, sector, block)
		}
	} else {
		off, n = e.edge(size), e.length()
		switch e.rand.IntN(4) {
		case 0:
			off -= n
		case 1:
			off -= e.rand.Int64N(n)
		}
	}
	n = max(1, min(n, size, e.options.Longest))
	off = max(0, min(off, size-n))
	if u := e.options.Unit; u > 1 {
		off, n = off/u*u, max(u, n/u*u)
		n = min(n, size-off)
	}
	if e.recent = append(e.recent, [2]int64{off, n}); len(e.recent) > maxRecent {
		e.recent = e.recent[1:]
	}
	return off, n
}

// change gives an operation on a range its kind.
func (e *Exerciser) change(o *op) {
	switch k := e.rand.IntN(20); {
	case k < 8:
		o.kind = opRead
	case k < 16:
		o.kind, o.durable = opWrite, e.one(12)
	case k < 18:
		o.kind = opZero
	default:
		o.kind = opPunch
	}
}

// beside returns operations on ranges that lie beside each other, or almost.
func (e *Exerciser) beside() []op {
	off, n := e.span()
	if n < block {
		off = off / block * block
		n = min(block*e.pick(1, 1, 2, 3), int64(len(e.model))-off)
	}
	u := max(1, e.options.Unit)
	cuts := []int64{off, off + n}
	for range 1 + e.rand.IntN(maxBeside-1) {
		at := off + e.rand.Int64N(n)
		if e.one(2) {
			at = at / sector * sector
		}
		if at = at / u * u; at > off {
			cuts = append(cuts, at)
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var ops []op
	for i, from := range cuts[:len(cuts)-1] {
		if len(cuts) > 2 && e.one(6) {
			continue // a gap
		}
		o := op{number: e.number + len(ops), beside: len(ops) > 0, off: from, n: cuts[i+1] - from}
		e.change(&o)
		ops = append(ops, o)
	}
	e.rand.Shuffle(len(ops), func(i, j int) {
		ops[i].off, ops[j].off, ops[i].n, ops[j].n = ops[j].off, ops[i].off, ops[j].n, ops[i].n
	})
	return ops
}

// newSize returns a size for the disk.
func (e *Exerciser) newSize() int64 {
	size := e.edge(e.options.MaxSize)
	if e.one(3) {
		size = int64(len(e.model)) + e.pick(-1, 1)*e.pick(sector, block, e.options.Chunk, sector*(1+e.rand.Int64N(300)))
	}
	return max(sector, min(size, e.options.MaxSize)) / sector * sector
}

// next returns the operations that come next: one, or several that are made at once.
func (e *Exerciser) next() []op {
	o := op{number: e.number}
	for _, a := range e.options.Actions {
		if e.one(a.Every) {
			o.kind, o.name = opAction, a.Name
			return []op{o}
		}
	}
	if e.volume != nil && e.chooseVolume(&o) {
		return []op{o}
	}
	switch k := e.rand.IntN(100); {
	case e.one(100):
		o.kind = opVerify
	case k < 4:
		o.kind = opSync
	case k < 9:
		o.kind = opExtents
		o.off, o.n = e.span()
	case k < 17 && e.options.Beside:
		return e.beside()
	default:
		o.off, o.n = e.span()
		e.change(&o)
	}
	return []op{o}
}

// chooseVolume makes o, at times, an operation on a volume.
func (e *Exerciser) chooseVolume(o *op) bool {
	old := ""
	if len(e.names) > 0 {
		old = e.names[e.rand.IntN(len(e.names))]
	}
	switch {
	case e.one(e.options.Resize):
		o.kind, o.off, o.n = opResize, int64(len(e.model)), e.newSize()
	case e.one(e.options.Snapshot) && len(e.names) < maxSnapshots:
		o.kind, o.name = opSnapshot, e.freeName()
	case old == "":
		return false
	case e.one(e.options.Snapshot):
		o.kind, o.name = opReadSnapshot, old
	case e.one(e.options.Snapshot):
		o.kind, o.name = opRemoveSnapshot, old
	case e.one(e.options.Rollback):
		o.kind, o.name, o.off, o.n = opRollback, old, int64(len(e.model)), int64(len(e.snapshots[old]))
	default:
		return false
	}
	return true
}
