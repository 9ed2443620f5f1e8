package mapper

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"skerry/chunk"
)

// memStore holds pages by name.
type memStore struct {
	mu    sync.Mutex
	pages map[string][]byte
	loads int
}

func newMemStore() *memStore { return &memStore{pages: make(map[string][]byte)} }

func (s *memStore) Load(_ context.Context, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	b, ok := s.pages[name]
	if !ok {
		return nil, fmt.Errorf("load %s: not found", name)
	}
	return bytes.Clone(b), nil
}

// write is what [Capture.Store] calls.
func (s *memStore) write(name string, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.pages[name]; taken {
		return fmt.Errorf("create %s: exists", name)
	}
	s.pages[name] = bytes.Clone(b)
	return nil
}

// What a layer of the model says about a block.
const (
	absent = iota
	data
	zeros
)

// modelLayer says for each block what a layer has.
type modelLayer struct {
	owner  chunk.VolumeID
	serial chunk.Serial
	blocks []byte
}

// modelMap is what a [Map] must be like: for each chunk its layers, newest first, block by block.
type modelMap struct {
	own    chunk.VolumeID
	mark   chunk.Serial
	blocks int
	chunks map[uint64][]modelLayer
}

func (m *modelMap) clone() *modelMap {
	c := *m
	c.chunks = make(map[uint64][]modelLayer)
	for i, layers := range m.chunks {
		for _, l := range layers {
			l.blocks = bytes.Clone(l.blocks)
			c.chunks[i] = append(c.chunks[i], l)
		}
	}
	return &c
}

// top returns which layer a block comes from and what that has, -1 for none.
func (m *modelMap) top(index uint64, block int) (layer int, kind byte) {
	for i, l := range m.chunks[index] {
		if l.blocks[block] != absent {
			return i, l.blocks[block]
		}
	}
	return -1, zeros
}

// seen returns for each layer of a chunk how many blocks of each kind can be seen.
func (m *modelMap) seen(index uint64) [][3]int {
	seen := make([][3]int, len(m.chunks[index]))
	for b := range m.blocks {
		if l, kind := m.top(index, b); l >= 0 {
			seen[l][kind]++
		}
	}
	return seen
}

// objects returns the volume's own objects newer than the mark that a chunk shows.
func (m *modelMap) objects(index uint64) map[chunk.Serial]bool {
	found := make(map[chunk.Serial]bool)
	for i, n := range m.seen(index) {
		if l := m.chunks[index][i]; n[data] > 0 && l.owner == m.own && l.serial > m.mark {
			found[l.serial] = true
		}
	}
	return found
}

// publish changes the newest layer, which has this serial or is made, and returns the objects that can no longer be seen.
func (m *modelMap) publish(index uint64, serial chunk.Serial, first, end int, zero bool) (dropped []chunk.Serial) {
	before := m.objects(index)
	layers := m.chunks[index]
	if len(layers) == 0 || layers[0].owner != m.own || layers[0].serial != serial {
		layers = slices.Insert(layers, 0, modelLayer{owner: m.own, serial: serial, blocks: make([]byte, m.blocks)})
	}
	for b := first; b < end; b++ {
		layers[0].blocks[b] = data
		if zero {
			layers[0].blocks[b] = zeros
		}
	}
	m.chunks[index] = layers
	seen := m.seen(index)
	kept := layers[:0:0]
	for i, l := range layers {
		if seen[i][data]+seen[i][zeros] > 0 {
			kept = append(kept, l)
		}
	}
	for len(kept) > 0 {
		m.chunks[index] = kept
		if m.seen(index)[len(kept)-1][data] > 0 {
			break
		}
		kept = kept[:len(kept)-1] // zeros lie below all layers anyway
	}
	m.chunks[index] = kept
	after := m.objects(index)
	for s := range before {
		if !after[s] {
			dropped = append(dropped, s)
		}
	}
	slices.Sort(dropped)
	return dropped
}

// plan is [Map.Plan], block by block.
func (m *modelMap) plan(index uint64, first, end int) Plan {
	layers := m.chunks[index]
	p := Plan{Depth: len(layers), Zero: true}
	for b := first; b < end; b++ {
		if _, kind := m.top(index, b); kind != zeros {
			p.Zero = false
		}
	}
	if len(layers) == 0 || layers[0].owner != m.own || layers[0].serial <= m.mark {
		return p
	}
	top := layers[0]
	p.Serial, p.Own, p.Writable = top.serial, true, bytes.IndexByte(top.blocks, data) >= 0
	p.First, p.Last = top.blocks[first] == data, top.blocks[end-1] == data
	p.InPlace = bytes.Count(top.blocks[first:end], []byte{data}) == end-first
	return p
}

// checkChunk compares what a map says of a chunk.
func checkChunk(t *testing.T, m *Map, want *modelMap, index uint64, ranges [][2]int64) {
	t.Helper()
	size := int64(want.blocks) * chunk.BlockSize
	for _, r := range ranges {
		off, n := r[0], r[1]
		var segs []Segment
		for ok := false; !ok; {
			if err := m.Ready(t.Context(), index); err != nil {
				t.Fatal(err)
			}
			segs, ok = m.PlanRead(index, off, n, segs[:0])
		}
		at := off
		for i, s := range segs {
			if s.Off != at || s.Length <= 0 || s.Off+s.Length > min(off+n, size) {
				t.Fatalf("chunk %d, %d+%d: segment %+v at %d", index, off, n, s, at)
			}
			if i > 0 && s.Zero && segs[i-1].Zero {
				t.Fatalf("chunk %d: zeros in two segments %+v, %+v", index, segs[i-1], s)
			}
			for b := int(s.Off / chunk.BlockSize); int64(b)*chunk.BlockSize < s.Off+s.Length; b++ {
				l, kind := want.top(index, b)
				if s.Zero != (kind == zeros) {
					t.Fatalf("chunk %d, block %d: zero is %v, want kind %d", index, b, s.Zero, kind)
				}
				if s.Zero {
					continue
				}
				layer := want.chunks[index][l]
				if s.Owner != layer.owner || s.Serial != layer.serial || s.Shared == (layer.owner == want.own && layer.serial > want.mark) {
					t.Fatalf("chunk %d, block %d: %+v, want %v of %v, mark %v", index, b, s, layer.serial, layer.owner, want.mark)
				}
			}
			at += s.Length
		}
		if at != off+n {
			t.Fatalf("chunk %d, %d+%d: segments end at %d", index, off, n, at)
		}
		first, end := chunk.Piece{Index: index, Off: off, Length: n}.Blocks()
		got, ok := m.Plan(index, first, end)
		for !ok {
			if err := m.Ready(t.Context(), index); err != nil {
				t.Fatal(err)
			}
			got, ok = m.Plan(index, first, end)
		}
		if wantPlan := want.plan(index, first, end); got != wantPlan {
			t.Fatalf("chunk %d, blocks [%d, %d): plan %+v, want %+v", index, first, end, got, wantPlan)
		}
	}
}

// checkMap compares all chunks of the model and some others.
func checkMap(t *testing.T, m *Map, want *modelMap, others ...uint64) {
	t.Helper()
	size := int64(want.blocks) * chunk.BlockSize
	for _, index := range append(slices.Sorted(maps.Keys(want.chunks)), others...) {
		checkChunk(t, m, want, index, [][2]int64{{0, size}, {size / 2, size / 4}, {1, 5000}, {size - 513, 513}})
	}
}

// checkInherited compares what is not the volume's own.
func checkInherited(t *testing.T, m *Map, want *modelMap) {
	t.Helper()
	var got []Inherited
	for n := range m.PageCount() {
		var err error
		if got, err = m.Inherited(t.Context(), n, got); err != nil {
			t.Fatal(err)
		}
	}
	if list := want.inherited(); !slices.Equal(got, list) {
		t.Fatalf("inherited %v, want %v", got, list)
	}
}

// inherited returns the chunks with data that is not the volume's own.
func (m *modelMap) inherited() (list []Inherited) {
	for _, index := range slices.Sorted(maps.Keys(m.chunks)) {
		n := 0
		for i, seen := range m.seen(index) {
			if m.chunks[index][i].owner != m.own {
				n += seen[data]
			}
		}
		if n > 0 {
			list = append(list, Inherited{Index: index, Blocks: n})
		}
	}
	return list
}
