package mapper

import (
	"errors"
	"slices"
	"testing"

	"skerry/chunk"
)

var errStore = errors.New("the storage does not want to")

// TestStoreGoesOnAfterAnError stores no page twice.
func TestStoreGoesOnAfterAnError(t *testing.T) {
	w := newWalk(t, random(t), chunk.MinSize, 1<<20)
	for _, index := range w.hot {
		w.fill(index)
	}
	w.begin()
	writes := 0
	err := w.capture.Store(w.next, func(name string, b []byte) error {
		if writes++; writes == 2 {
			return errStore
		}
		return w.store.write(name, b)
	})
	if !errors.Is(err, errStore) || len(w.store.pages) != 1 {
		t.Fatalf("%v, %d pages", err, len(w.store.pages))
	}
	w.publish()
	_, refs := w.storeCapture()
	if len(refs) != len(w.store.pages) {
		t.Errorf("%d pages are stored, %d are needed", len(w.store.pages), len(refs))
	}
	w.capture.Commit()
}

// TestAbortedCaptureIsDoneAgain loses none of its changes.
func TestAbortedCaptureIsDoneAgain(t *testing.T) {
	w := newWalk(t, random(t), chunk.MinSize, 1)
	for range 20 {
		w.publish()
	}
	changed := w.m.Changed()
	w.begin()
	if w.m.Changed() != 0 || w.capture.Empty() {
		t.Errorf("%d pages are changed, empty %v", w.m.Changed(), w.capture.Empty())
	}
	if err := w.capture.Store(func() (chunk.Serial, error) { return 0, errStore }, w.store.write); !errors.Is(err, errStore) {
		t.Errorf("no serial: %v", err)
	}
	w.capture.Abort()
	w.capture = nil
	if w.m.Changed() != changed {
		t.Errorf("%d pages are changed, want %d", w.m.Changed(), changed)
	}
	w.reload()
	checkMap(t, w.m, w.model)
}

func TestCaptureOfNothingIsEmpty(t *testing.T) {
	w := newWalk(t, random(t), chunk.MinSize, 1<<20)
	w.fill(5)
	w.save()
	if err := w.m.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	w.begin()
	if !w.capture.Empty() {
		t.Error("it is not empty")
	}
	owners, refs := w.storeCapture()
	if len(owners) != 1 || len(refs) != 1 || len(w.store.pages) != 1 {
		t.Errorf("owners %v, pages %v, %d stored", owners, refs, len(w.store.pages))
	}
	if replaced := w.capture.Commit(); len(replaced) != 0 {
		t.Errorf("replaced %v", replaced)
	}
}

// TestPagesThatBecomeZerosVanish stores nothing of them and says what they replace.
func TestPagesThatBecomeZerosVanish(t *testing.T) {
	id, g := chunk.NewVolumeID(), geometry(t, chunk.MinSize)
	store := newMemStore()
	m := New(store, id, g, 3*PageChunks*g.Size(), []chunk.VolumeID{id}, nil, 0, 1)
	counter := uint32(0)
	next := func() (chunk.Serial, error) {
		counter++
		return chunk.MakeSerial(1, counter), nil
	}
	save := func() (refs []PageRef, replaced []chunk.Serial) {
		t.Helper()
		c := m.Capture()
		if err := c.Store(next, store.write); err != nil {
			t.Fatal(err)
		}
		_, refs = c.Refs()
		return refs, c.Commit()
	}
	publish := func(index uint64, s chunk.Serial, zero bool) {
		t.Helper()
		if _, err := m.Publish(t.Context(), index, s, 0, g.Blocks(), zero, nil); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := next()
	publish(0, first, false)
	publish(PageChunks, first, false)
	refs, replaced := save()
	if len(refs) != 2 || len(replaced) != 0 {
		t.Fatalf("pages %v, replaced %v", refs, replaced)
	}
	publish(0, first, true)
	again, replaced := save()
	if len(again) != 1 || again[0] != refs[1] || !slices.Equal(replaced, []chunk.Serial{refs[0].Serial}) || len(store.pages) != 2 {
		t.Fatalf("pages %v, replaced %v, %d stored", again, replaced, len(store.pages))
	}
	publish(PageChunks+7, first, false)
	last, replaced := save()
	if len(last) != 1 || !slices.Equal(replaced, []chunk.Serial{refs[1].Serial}) {
		t.Fatalf("pages %v, replaced %v", last, replaced)
	}
}

// TestReplacedPagesOfOthersAreNotNamed changes a page that the clone's parent stored.
func TestReplacedPagesOfOthersAreNotNamed(t *testing.T) {
	w := newWalk(t, random(t), chunk.MinSize, 1<<20)
	for _, index := range w.hot {
		w.fill(index)
	}
	w.become()
	for range 20 {
		w.publish()
	}
	w.begin()
	w.storeCapture()
	if replaced := w.capture.Commit(); len(replaced) != 0 {
		t.Errorf("replaced %v, which the parent owns", replaced)
	}
}

// TestMapSaysWhatCannotBeLoaded and changes nothing.
func TestMapSaysWhatCannotBeLoaded(t *testing.T) {
	w := newWalk(t, random(t), chunk.MinSize, 1<<20)
	w.fill(0)
	w.reload()
	var name string
	var whole []byte
	for name, whole = range w.store.pages {
	}
	for what, b := range map[string][]byte{"damaged": whole[:len(whole)-1], "another": sealed(append([]byte("SKRT"), whole[4:len(whole)-4]...))} {
		w.store.pages[name] = b
		if err := w.m.Ready(t.Context(), 0); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	delete(w.store.pages, name)
	if err := w.m.Ready(t.Context(), 0); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("missing: %v", err)
	}
	if dropped, err := w.m.Publish(t.Context(), 0, chunk.MakeSerial(9, 9), 0, 1, false, []chunk.Serial{3}); err == nil || !slices.Equal(dropped, []chunk.Serial{3}) {
		t.Errorf("publish: %v, %v", dropped, err)
	}
	if _, ok := w.m.PlanRead(0, 0, 512, nil); ok {
		t.Error("a page that is not there is read")
	}
	if _, ok := w.m.Plan(0, 0, 1); ok {
		t.Error("a page that is not there has a plan")
	}
	w.store.pages[name] = whole
	checkMap(t, w.m, w.model)
}
