package mapper

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"skerry/chunk"
)

// walk is one random life of a map, its volume's snapshots and clones.
type walk struct {
	t     *testing.T
	rng   *rand.Rand
	store *memStore
	geom  chunk.Geometry
	size  int64
	limit int64
	hot   []uint64 // the chunks that are changed

	m      *Map
	model  *modelMap
	serial chunk.Serial

	capture  *Capture
	captured *modelMap // the model when capture began
}

func newWalk(t *testing.T, rng *rand.Rand, chunkSize, limit int64) *walk {
	w := &walk{t: t, rng: rng, store: newMemStore(), geom: geometry(t, chunkSize), limit: limit}
	w.size = chunkSize*(3*PageChunks+17) - 512
	w.hot = []uint64{0, 1, PageChunks - 1, PageChunks, 2*PageChunks + 5, w.geom.Count(w.size) - 1}
	w.serial = chunk.MakeSerial(1, 0)
	w.model = &modelMap{own: someID(rng), blocks: w.geom.Blocks(), chunks: make(map[uint64][]modelLayer)}
	w.m = New(w.store, w.model.own, w.geom, w.size, []chunk.VolumeID{w.model.own}, nil, 0, limit)
	return w
}

// next returns a serial above all others. Some have numbers that a compact entry cannot hold.
func (w *walk) next() (chunk.Serial, error) {
	switch w.rng.IntN(200) {
	case 0:
		w.serial = chunk.MakeSerial(w.serial.Generation()+1, 0)
	case 1:
		w.serial = chunk.MakeSerial(w.serial.Generation()+1, compactLimit-2)
	}
	w.serial++
	return w.serial, nil
}

// publish does one change as a device would.
func (w *walk) publish() {
	index := w.hot[w.rng.IntN(len(w.hot))]
	first, end := 0, w.geom.Blocks()
	if w.rng.IntN(4) > 0 {
		first = w.rng.IntN(end)
		end = first + 1 + w.rng.IntN(end-first)
	}
	zero := w.rng.IntN(3) == 0
	plan := w.model.plan(index, first, end)
	serial := plan.Serial
	if !plan.Own || !zero && !plan.Writable || w.rng.IntN(5) == 0 {
		if plan.Depth > 30 {
			first, end = 0, w.geom.Blocks()
		}
		serial, _ = w.next()
	}
	seven := []chunk.Serial{7}
	dropped, err := w.m.Publish(w.t.Context(), index, serial, first, end, zero, seven)
	if err != nil {
		w.t.Fatal(err)
	}
	want := w.model.publish(index, serial, first, end, zero)
	if dropped[0] != 7 {
		w.t.Fatalf("dropped %v: what was there is gone", dropped)
	}
	dropped = slices.Sorted(slices.Values(dropped[1:]))
	if !slices.Equal(dropped, want) {
		w.t.Fatalf("chunk %d, %v of blocks [%d, %d), zero %v: dropped %v, want %v", index, serial, first, end, zero, dropped, want)
	}
	for _, s := range want {
		if w.m.Shows(index, s) {
			w.t.Fatalf("chunk %d shows %v, which was dropped", index, s)
		}
	}
	for s := range w.model.objects(index) {
		if !w.m.Shows(index, s) {
			w.t.Fatalf("chunk %d does not show %v", index, s)
		}
	}
	checkChunk(w.t, w.m, w.model, index, [][2]int64{{int64(first) * chunk.BlockSize, int64(end-first) * chunk.BlockSize}})
}

// fill writes a whole chunk.
func (w *walk) fill(index uint64) {
	s, _ := w.next()
	if _, err := w.m.Publish(w.t.Context(), index, s, 0, w.geom.Blocks(), false, nil); err != nil {
		w.t.Fatal(err)
	}
	w.model.publish(index, s, 0, w.geom.Blocks(), false)
}

func (w *walk) begin() {
	w.capture, w.captured = w.m.Capture(), w.model.clone()
}

// store stores the capture and compares what was stored with the moment in which it began.
func (w *walk) storeCapture() ([]chunk.VolumeID, []PageRef) {
	if err := w.capture.Store(w.next, w.store.write); err != nil {
		w.t.Fatal(err)
	}
	owners, refs := w.capture.Refs()
	stored := New(w.store, w.model.own, w.geom, w.size, owners, refs, w.captured.mark, w.limit)
	checkMap(w.t, stored, w.captured, 7)
	return owners, refs
}

func (w *walk) end() {
	w.storeCapture()
	if w.rng.IntN(4) == 0 {
		w.capture.Abort()
	} else {
		w.capture.Commit()
	}
	w.capture = nil
}

// save stores all that there is and returns it.
func (w *walk) save() ([]chunk.VolumeID, []PageRef) {
	if w.capture != nil {
		w.end()
	}
	w.begin()
	owners, refs := w.storeCapture()
	w.capture.Commit()
	w.capture = nil
	if n := w.m.Changed(); n != 0 {
		w.t.Fatalf("%d pages are changed after all was stored", n)
	}
	return owners, refs
}

// reload goes on with a map that is read from storage.
func (w *walk) reload() {
	owners, refs := w.save()
	w.m = New(w.store, w.model.own, w.geom, w.size, owners, refs, w.model.mark, w.limit)
}

// become goes on with a clone.
func (w *walk) become() {
	owners, refs := w.save()
	id := someID(w.rng)
	for i := range refs {
		refs[i].Owner++
	}
	w.serial = chunk.MakeSerial(1+w.rng.Uint32N(3), 0) // a clone's generations begin anew
	w.model.own, w.model.mark = id, w.serial
	w.m = New(w.store, id, w.geom, w.size, append([]chunk.VolumeID{id}, owners...), refs, w.model.mark, w.limit)
	for index, layers := range w.model.chunks {
		if p := w.model.plan(index, 0, 1); p.Own || p.Writable || p.Depth != len(layers) {
			w.t.Fatalf("the model of a clone may write %+v", p)
		}
	}
}

// flatten puts data of the volume's own over all that is inherited.
func (w *walk) flatten() {
	checkInherited(w.t, w.m, w.model)
	for _, c := range w.model.inherited() {
		serial, _ := w.next()
		if err := w.m.Ready(w.t.Context(), c.Index); err != nil {
			w.t.Fatal(err)
		}
		segs, _ := w.m.PlanRead(c.Index, 0, w.geom.Size(), nil)
		for _, s := range segs {
			first, end := chunk.Piece{Off: s.Off, Length: s.Length}.Blocks()
			zero := w.rng.IntN(3) == 0
			if s.Zero || s.Owner == w.model.own {
				continue
			}
			if _, err := w.m.Publish(w.t.Context(), c.Index, serial, first, end, zero, nil); err != nil {
				w.t.Fatal(err)
			}
			w.model.publish(c.Index, serial, first, end, zero)
		}
	}
	owners, refs := w.save()
	w.m.Sole()
	checkMap(w.t, w.m, w.model)
	w.m = New(w.store, w.model.own, w.geom, w.size, owners[:1], refs, w.model.mark, w.limit)
	checkMap(w.t, w.m, w.model)
	checkInherited(w.t, w.m, w.model)
	if n := len(*w.m.owners.Load()); n != 1 {
		w.t.Fatalf("%d owners when all is the volume's own", n)
	}
}

// truncate ends the map after some chunks and lets it grow again.
func (w *walk) truncate() {
	if w.capture != nil {
		w.end()
	}
	count := w.hot[w.rng.IntN(len(w.hot))] + w.rng.Uint64N(2)
	count = max(1, min(count, w.geom.Count(w.size)))
	if err := w.m.Mend(w.t.Context(), count-1); err != nil {
		w.t.Fatal(err)
	}
	rest := w.model.clone()
	maps.DeleteFunc(rest.chunks, func(index uint64, _ []modelLayer) bool { return index >= count })
	w.capture, w.captured = w.m.CaptureTo(count), rest
	w.fill(0) // a change while it is stored
	owners, refs := w.storeCapture()
	if size := int64(count) * w.geom.Size(); validRefs(owners, refs, PageCount(w.geom, size)) != nil {
		w.t.Fatalf("%d chunks have pages %v", count, refs)
	}
	if w.rng.IntN(3) == 0 {
		w.capture.Abort()
	} else {
		w.capture.Commit()
		maps.DeleteFunc(w.model.chunks, func(index uint64, _ []modelLayer) bool { return index >= count })
	}
	w.capture = nil
	checkMap(w.t, w.m, w.model, w.hot...)
}

func (w *walk) step() {
	switch op := w.rng.IntN(100); {
	case op < 80:
		w.publish()
	case op < 84:
		s, _ := w.next()
		w.m.SetMark(s)
		w.model.mark = s
		if w.m.Mark() != s {
			w.t.Fatalf("mark %v, want %v", w.m.Mark(), s)
		}
	case op < 92:
		if w.capture == nil {
			w.begin()
		} else {
			w.end()
		}
	case op < 94:
		w.reload()
	case op < 95:
		w.become()
	case op < 96 && w.rng.IntN(4) == 0:
		w.flatten()
	case op < 97:
		w.truncate()
	default:
		checkMap(w.t, w.m, w.model, 7, 2*PageChunks)
	}
}

// TestMapAgreesWithAModel does random changes, captures, snapshots, clones and reloads, with all pages in memory and with few.
func TestMapAgreesWithAModel(t *testing.T) {
	for _, limit := range []int64{1, 1 << 30} {
		for chunkSize, steps := range map[int64]int{chunk.MinSize: 3000, chunk.DefaultSize: 400, chunk.MaxSize: 60} {
			t.Run(fmt.Sprintf("%dK chunks, %d bytes", chunkSize>>10, limit), func(t *testing.T) {
				t.Parallel()
				w := newWalk(t, random(t), chunkSize, limit)
				for range steps {
					w.step()
				}
				w.reload()
				checkMap(t, w.m, w.model)
			})
		}
	}
}

// TestMapGrows: chunks that are added are zeros and can be changed, also while others use the map.
func TestMapGrows(t *testing.T) {
	w := newWalk(t, random(t), chunk.MinSize, 1)
	w.m = New(w.store, w.model.own, w.geom, w.geom.Size(), []chunk.VolumeID{w.model.own}, nil, 0, 1)
	w.fill(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := int64(1); n <= 3*PageChunks; n += 100 {
			w.m.Grow(n * w.geom.Size())
		}
	}()
	for range 100 {
		checkMap(t, w.m, w.model)
		if err := w.m.Mend(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	w.m.Grow(w.size)
	w.m.Grow(w.geom.Size()) // no smaller
	checkMap(t, w.m, w.model, w.hot...)
	for _, index := range w.hot {
		w.fill(index)
	}
	w.reload()
	checkMap(t, w.m, w.model)
}

func TestLateLayersLieBelowNewerOnes(t *testing.T) {
	id, g := chunk.NewVolumeID(), geometry(t, chunk.MinSize)
	m := New(newMemStore(), id, g, g.Size(), []chunk.VolumeID{id}, nil, 0, 1<<20)
	publish := func(counter uint32, first, end int) {
		t.Helper()
		if _, err := m.Publish(t.Context(), 0, chunk.MakeSerial(1, counter), first, end, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	publish(3, 4, 8)
	publish(1, 2, 6)
	publish(2, 3, 5)
	segs, ok := m.PlanRead(0, 0, g.Size(), nil)
	var got []string
	for _, s := range segs {
		got = append(got, fmt.Sprintf("%v %d+%d", s.Serial, s.Off/chunk.BlockSize, s.Length/chunk.BlockSize))
	}
	want := []string{"0.0 0+2", "1.1 2+1", "1.2 3+1", "1.3 4+4", "0.0 8+8"}
	if !ok || !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestDroppedObjectCanComeBack publishes a block of an object after all others became zeros, as a write beside a discard does.
func TestDroppedObjectCanComeBack(t *testing.T) {
	w := newWalk(t, random(t), chunk.MinSize, 1)
	w.fill(0)
	object := w.serial
	publish := func(first, end int, zero bool, want ...chunk.Serial) {
		t.Helper()
		dropped, err := w.m.Publish(t.Context(), 0, object, first, end, zero, nil)
		if err != nil || !slices.Equal(dropped, want) || w.m.Shows(0, object) != (want == nil) {
			t.Errorf("dropped %v, want %v: shown %v, %v", dropped, want, w.m.Shows(0, object), err)
		}
		w.model.publish(0, object, first, end, zero)
		checkMap(t, w.m, w.model)
	}
	publish(0, 16, true, object)
	publish(3, 4, false)
	publish(3, 4, true, object)
	publish(0, 16, false)
	if w.m.Shows(0, object+1) || w.m.Shows(1, object) {
		t.Error("what was never there is shown")
	}
	w.reload()
	if !w.m.Shows(1, object) {
		t.Error("a page that is not in memory is sure to show nothing")
	}
}

// TestManyOwners makes each chunk of a page another volume's, more than a compact entry can number.
func TestManyOwners(t *testing.T) {
	rng := random(t)
	w := newWalk(t, rng, chunk.MinSize, 1<<30)
	for i := range uint64(300) {
		w.become()
		w.fill(i)
	}
	w.reload()
	checkMap(t, w.m, w.model)
	_, refs := w.save()
	seen := make(map[chunk.VolumeID]bool)
	b, err := w.store.Load(t.Context(), chunk.SerialName(w.model.own, chunk.Pages, refs[0].Serial))
	if err != nil || len(refs) != 1 {
		t.Fatalf("%d pages: %v", len(refs), err)
	}
	err = EachLayer(b, w.model.own, refs[0], w.geom, func(l LayerRef) error {
		seen[l.Owner] = true
		layer := w.model.chunks[l.Chunk][0]
		if l.Owner != layer.owner || l.Serial != layer.serial || l.Data != w.geom.Blocks() {
			t.Errorf("layer %+v, want %v of %v", l, layer.serial, layer.owner)
		}
		return nil
	})
	if err != nil || len(seen) != 300 {
		t.Errorf("%d owners: %v", len(seen), err)
	}
}

func TestOwnersAreBounded(t *testing.T) {
	id, g := chunk.NewVolumeID(), geometry(t, chunk.MinSize)
	owners := make([]chunk.VolumeID, MaxOwners)
	for i := range owners {
		owners[i] = chunk.VolumeID{byte(i), byte(i >> 8), 1}
	}
	store := newMemStore()
	stranger := New(store, id, g, g.Size(), []chunk.VolumeID{id}, nil, 0, 1<<20)
	if _, err := stranger.Publish(t.Context(), 0, chunk.MakeSerial(1, 1), 0, 16, false, nil); err != nil {
		t.Fatal(err)
	}
	c := stranger.Capture()
	if err := c.Store(func() (chunk.Serial, error) { return chunk.MakeSerial(1, 2), nil }, store.write); err != nil {
		t.Fatal(err)
	}
	_, refs := c.Refs()
	c.Commit()
	owners[1] = id
	m := New(store, owners[0], g, g.Size(), owners, []PageRef{{Owner: 1, Serial: refs[0].Serial}}, 0, 1<<20)
	if err := m.Ready(t.Context(), 0); err != nil {
		t.Errorf("a page of the last owner there is room for: %v", err)
	}
	b := store.pages[chunk.SerialName(id, chunk.Pages, refs[0].Serial)]
	want := pageIdentity{volume: id, serial: refs[0].Serial, geom: g}
	owners[1] = chunk.VolumeID{2: 9}
	m = New(store, owners[0], g, g.Size(), owners, nil, 0, 1<<20)
	if _, err := decodePage(b, want, m.ownerIndex); err == nil {
		t.Errorf("%d owners are exceeded", MaxOwners)
	}
}

// TestR13NoObjectIsWritableTwice lets a parent and its clone change the same chunks.
func TestR13NoObjectIsWritableTwice(t *testing.T) {
	rng := random(t)
	w := newWalk(t, rng, chunk.MinSize, 1)
	for range 300 {
		w.publish()
	}
	owners, refs := w.save()
	s, _ := w.next()
	w.m.SetMark(s) // the snapshot
	w.model.mark = s
	parent := *w
	w.model = w.model.clone()
	id := someID(rng)
	for i := range refs {
		refs[i].Owner++
	}
	w.model.own, w.model.mark, w.serial = id, chunk.MakeSerial(1, 0), chunk.MakeSerial(1, 0)
	w.m = New(w.store, id, w.geom, w.size, append([]chunk.VolumeID{id}, owners...), refs, w.model.mark, w.limit)
	for range 300 {
		w.publish()
		parent.publish()
		writable := make(map[string]bool)
		for _, v := range []*walk{&parent, w} {
			for _, index := range v.hot {
				if err := v.m.Ready(t.Context(), index); err != nil {
					t.Fatal(err)
				}
				plan, ok := v.m.Plan(index, 0, 1)
				segs, _ := v.m.PlanRead(index, 0, v.geom.Size(), nil)
				if plan.Own {
					name := chunk.DataName(v.model.own, index, plan.Serial)
					if !ok || writable[name] {
						t.Fatalf("%s is writable in both", name)
					}
					writable[name] = true
				}
				for _, seg := range segs {
					if !seg.Zero && !seg.Shared && seg.Owner != v.model.own {
						t.Fatalf("chunk %d of %v: %+v is not shared", index, v.model.own, seg)
					}
				}
			}
		}
	}
	checkMap(t, w.m, w.model)
	checkMap(t, parent.m, parent.model)
}

// TestPageAtTheEndOfAPebibyte changes the last chunks of a 1 PiB volume.
func TestPageAtTheEndOfAPebibyte(t *testing.T) {
	rng := random(t)
	w := newWalk(t, rng, chunk.DefaultSize, 1<<20)
	w.size = 1 << 50
	last := w.geom.Count(w.size) - 1
	w.hot = []uint64{0, last - PageChunks, last - 1, last}
	w.m = New(w.store, w.model.own, w.geom, w.size, []chunk.VolumeID{w.model.own}, nil, 0, w.limit)
	for range 100 {
		w.publish()
	}
	w.fill(last) // else all of the page may be zeros, and there is none
	_, refs := w.save()
	if n := refs[len(refs)-1].Number; len(refs) > 3 || n != PageCount(w.geom, w.size)-1 || n != 262143 {
		t.Errorf("pages %+v", refs)
	}
	w.reload()
	checkMap(t, w.m, w.model, last-2)
	for _, name := range slices.Sorted(maps.Keys(w.store.pages)) {
		if len(name) > 100 {
			t.Errorf("name %s", name)
		}
	}
}

// TestAbsent: only what has no page, stored or in memory, is absent.
func TestAbsent(t *testing.T) {
	const page = PageChunks
	g := geometry(t, chunk.DefaultSize)
	s := &fullStore{volume: chunk.NewVolumeID(), geom: g}
	refs := []PageRef{{Number: 3, Serial: chunk.MakeSerial(1, 4)}}
	m := New(s, s.volume, g, 9*page*g.Size(), []chunk.VolumeID{s.volume}, refs, 0, 1<<20)
	if _, err := m.Publish(t.Context(), 5*page+7, chunk.MakeSerial(1, 100), 0, 1, false, nil); err != nil {
		t.Fatal(err)
	}
	for index, want := range map[uint64]uint64{0: 3 * page, page + 1: 2*page - 1, 3*page - 1: 1, 3 * page: 0, 4*page - 1: 0, 4 * page: page, 5 * page: 0, 6 * page: 3 * page, 9*page - 1: 1} {
		if got := m.Absent(index); got != want {
			t.Errorf("from chunk %d on %d are absent, want %d", index, got, want)
		}
	}
	if s.loads != 0 {
		t.Errorf("%d pages were loaded", s.loads)
	}
}
