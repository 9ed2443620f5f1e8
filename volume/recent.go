package volume

import (
	"skerry/chunk"
	"skerry/mapper/journal"
)

// recent holds the content of blocks that were written since the last flush, as long as they are few, so that the
// next one need not read them back. Whoever changes a block, under its lock, says so before the lock is released; who
// holds the lock finds in it what the object holds. Before the first flush it takes nothing.
type recent struct {
	room int // blocks that it may take until the next flush
	at   map[recentKey]int
	data [][]byte // blocks; those from used on are free
	used int
}

type recentKey struct {
	object journal.Object
	block  int
}

// put notes what blocks hold from now on, the first one of which is named.
func (r *recent) put(o journal.Object, first int, blocks []byte) {
	n := len(blocks) / chunk.BlockSize
	if r.used+n > r.room {
		r.forget(o, first, first+n)
		return
	}
	for i := range n {
		key := recentKey{o, first + i}
		slot, ok := r.at[key]
		if !ok {
			slot = r.used
			r.used++
			r.at[key] = slot
		}
		if slot == len(r.data) {
			r.data = append(r.data, make([]byte, chunk.BlockSize))
		}
		copy(r.data[slot], blocks[i*chunk.BlockSize:])
	}
}

// forget notes that the blocks [first, end) may hold anything.
func (r *recent) forget(o journal.Object, first, end int) {
	if end-first < len(r.at) {
		for b := first; b < end; b++ {
			delete(r.at, recentKey{o, b})
		}
		return
	}
	for key := range r.at {
		if key.object == o && key.block >= first && key.block < end {
			delete(r.at, key)
		}
	}
}

// get copies a block to p if its content is known.
func (r *recent) get(o journal.Object, block int, p []byte) bool {
	slot, ok := r.at[recentKey{o, block}]
	if ok {
		copy(p, r.data[slot])
	}
	return ok
}

// reset forgets all, after a flush, and makes room for so many blocks.
func (r *recent) reset(room int) {
	if r.at == nil {
		r.at = make(map[recentKey]int, room)
	}
	clear(r.at)
	r.room, r.used = room, 0
}
