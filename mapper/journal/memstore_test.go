package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"skerry/chunk"
)

// memStore is a Store in memory that remembers what was synced.
type memStore struct {
	mu      sync.Mutex
	content map[string][]byte
	durable map[string][]byte // as of the last Sync
	written map[string][]span // since the last Sync
	groups  []string
	writes  int
	syncs   int

	// Called, if set, before the operation is done and without mu.
	onWrite func(p []byte, off int64) error
	onSync  func() error
}

// span is what was written at an offset.
type span struct {
	off  int64
	data []byte
}

func newMemStore() *memStore {
	return &memStore{content: map[string][]byte{}, durable: map[string][]byte{}, written: map[string][]span{}}
}

func (s *memStore) Create(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.content[name]; ok {
		return fmt.Errorf("create %s: taken", name)
	}
	s.content[name] = nil
	return nil
}

func (s *memStore) Allocate(_ context.Context, name string, off, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content[name] = extend(s.content[name], off+n)
	return nil
}

func (s *memStore) ReadAt(_ context.Context, name string, p []byte, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.content[name]
	if !ok {
		return fmt.Errorf("read %s: %w", name, errMissing)
	}
	clear(p)
	if off < int64(len(c)) {
		copy(p, c[off:])
	}
	return nil
}

func (s *memStore) WriteAt(_ context.Context, name string, p []byte, off int64) error {
	if s.onWrite != nil {
		if err := s.onWrite(p, off); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	s.content[name] = extend(s.content[name], off+int64(len(p)))
	copy(s.content[name][off:], p)
	s.written[name] = append(s.written[name], span{off, slices.Clone(p)})
	return nil
}

func (s *memStore) Sync(_ context.Context, name string) error {
	s.mu.Lock()
	written := s.written[name]
	s.written[name] = nil
	s.mu.Unlock()
	if s.onSync != nil {
		if err := s.onSync(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.syncs++
	s.durable[name] = extend(s.durable[name], int64(len(s.content[name])))
	for _, w := range written {
		copy(s.durable[name][w.off:], w.data)
	}
	return nil
}

func (s *memStore) SyncGroup(_ context.Context, group string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = append(s.groups, group)
	return nil
}

// extend returns c with zeros up to length n.
func extend(c []byte, n int64) []byte {
	return append(c, make([]byte, max(n-int64(len(c)), 0))...)
}

var errMissing = errors.New("no such object")

const testGeneration = 7

var (
	testVolume = chunk.VolumeID{1, 2, 3}
	testBoot   = [16]byte{9, 9}
	testObject = chunk.MakeSerial(testGeneration, 3)
	testName   = chunk.SerialName(testVolume, chunk.Journals, testObject)
)

// create makes a journal of size bytes.
func create(t testing.TB, s Store, size int64) *Writer {
	t.Helper()
	w, err := Create(t.Context(), Config{
		Store: s, Volume: testVolume, Generation: testGeneration, Boot: testBoot, Object: testObject, Size: size,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// add appends b and returns its sequence.
func add(t testing.TB, w *Writer, b *Batch) uint64 {
	t.Helper()
	seq, err := w.Append(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// seen is a frame that was read, with copies of its entries.
type seen struct {
	Frame
	entries []Entry
}

// readAll reads the journal from start.
func readAll(t testing.TB, s Store, start Position) ([]seen, Position, error) {
	t.Helper()
	var all []seen
	end, err := Read(t.Context(), s, testVolume, testGeneration, start, func(f Frame) error {
		fr := seen{Frame: f}
		for e := range f.Entries() {
			e.Data = append([]byte(nil), e.Data...)
			fr.entries = append(fr.entries, e)
		}
		all = append(all, fr)
		return nil
	})
	return all, end, err
}

// fill returns n blocks that hold a pattern of seed.
func fill(seed byte, n int) []byte {
	p := make([]byte, n*chunk.BlockSize)
	for i := range p {
		p[i] = seed + byte(i/chunk.BlockSize) + byte(i%251)
	}
	return p
}
