package journal

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAppendersShareAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemStore()
		w := create(t, s, 1<<20)
		start := w.Head()
		held := make(chan struct{})
		s.onWrite = func([]byte, int64) error { <-held; return nil }
		before := s.writes
		var wg sync.WaitGroup
		seqs := make([]uint64, 50)
		appendOne := func(i int) {
			var b Batch
			b.Touch(Object{Chunk: uint64(i)})
			var err error
			if seqs[i], err = w.Append(t.Context(), &b); err != nil {
				t.Error(err)
			}
		}
		wg.Go(func() { appendOne(0) })
		synctest.Wait()
		if w.Last() != 0 || w.Head() != start {
			t.Errorf("a frame that is being written counts: last %d", w.Last())
		}
		for i := 1; i < len(seqs); i++ {
			wg.Go(func() { appendOne(i) })
		}
		synctest.Wait()
		close(held)
		wg.Wait()
		if n := s.writes - before; n != 2 {
			t.Errorf("%d writes, want 2", n)
		}
		for i, seq := range seqs {
			if want := uint64(min(i, 1) + 1); seq != want {
				t.Errorf("batch %d is in frame %d, want %d", i, seq, want)
			}
		}
		frames, _, err := readAll(t, s, start)
		if err != nil || len(frames) != 2 || len(frames[1].entries) != len(seqs)-1 {
			t.Errorf("%d frames: %v", len(frames), err)
		}
	})
}

// TestAppendReturnsOnceAllEarlierFramesAreWritten runs appenders, syncs and cuts on a store whose writes
// take random time.
func TestAppendReturnsOnceAllEarlierFramesAreWritten(t *testing.T) {
	r := random(t)
	synctest.Test(t, func(t *testing.T) {
		s := newMemStore()
		w := create(t, s, 64<<10)
		var mu sync.Mutex // guards r and cut
		delay := func() {
			mu.Lock()
			d := time.Duration(r.IntN(1000))
			mu.Unlock()
			time.Sleep(d)
		}
		s.onWrite = func([]byte, int64) error { delay(); return nil }
		s.onSync = func() error { delay(); return nil }
		cut := w.Head()
		var wg sync.WaitGroup
		for g := range 16 {
			mu.Lock()
			own := rand.New(rand.NewPCG(r.Uint64(), 0))
			mu.Unlock()
			wg.Go(func() {
				var b Batch
				for i := range 60 {
					b.Reset()
					for range own.IntN(40) {
						b.Touch(Object{Chunk: uint64(g), Serial: 1})
					}
					seq, err := w.Append(t.Context(), &b)
					if errors.Is(err, ErrFull) {
						mu.Lock()
						cut = w.Head()
						w.Release(cut)
						mu.Unlock()
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					last := cut.Seq - 1
					end, err := Read(t.Context(), s, testVolume, testGeneration, cut, func(f Frame) error {
						last = f.Seq
						return nil
					})
					mu.Unlock()
					if err != nil || last < seq || end.Seq != last+1 {
						t.Errorf("append of frame %d returned, %d can be read: %v", seq, last, err)
						return
					}
					if i%7 == 0 {
						if err := w.Sync(t.Context(), seq); err != nil {
							t.Error(err)
						}
					}
					if w.Live() > w.Size() || w.Last() < seq || w.Err() != nil {
						t.Errorf("live %d, last %d, err %v", w.Live(), w.Last(), w.Err())
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestLargeBatchesAreNotMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemStore()
		w := create(t, s, 8<<20)
		start := w.Head()
		held := make(chan struct{})
		s.onWrite = func([]byte, int64) error { <-held; return nil }
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				var b Batch
				b.Data(someObject, 0, fill(1, 40))
				add(t, w, &b)
			})
		}
		synctest.Wait()
		close(held)
		wg.Wait()
		frames, _, err := readAll(t, s, start)
		if err != nil || len(frames) != 8 {
			t.Errorf("%d frames: %v", len(frames), err)
		}
	})
}

func TestFullForOneIsNotFullForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemStore()
		w := create(t, s, MinSize)
		held := make(chan struct{})
		s.onWrite = func([]byte, int64) error { <-held; return nil }
		var wg sync.WaitGroup
		try := func(touches int, want error) {
			wg.Go(func() {
				var b Batch
				for range touches {
					b.Touch(someObject)
				}
				if _, err := w.Append(t.Context(), &b); !errors.Is(err, want) {
					t.Errorf("%d touches: %v, want %v", touches, err, want)
				}
			})
			synctest.Wait()
		}
		try(90, nil)     // 5 sectors of 8
		try(90, ErrFull) // waits, then does not fit
		try(1, nil)
		try(70, ErrFull) // 4 sectors
		try(10, nil)
		close(held)
		wg.Wait()
		if w.Last() != 3 || w.Live() != 7*Align {
			t.Errorf("last %d, live %d", w.Last(), w.Live())
		}
	})
}

func TestOverlappingSyncsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemStore()
		w := create(t, s, MinSize)
		before := s.syncs
		step := make(chan struct{})
		s.onSync = func() error { <-step; return nil }
		var b Batch
		var wg sync.WaitGroup
		syncUpTo := func(seq uint64, n int) {
			for range n {
				wg.Go(func() {
					if err := w.Sync(t.Context(), seq); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
		}
		first := add(t, w, &b)
		syncUpTo(first, 5)
		second := add(t, w, &b)
		syncUpTo(second, 5)
		syncUpTo(first, 5)
		step <- struct{}{} // the first sync ends; those that wait for the second frame begin one
		synctest.Wait()
		if n := s.syncs - before; n != 1 {
			t.Errorf("%d syncs ended, want 1", n)
		}
		step <- struct{}{}
		wg.Wait()
		syncUpTo(second, 3) // nothing to do
		if n := s.syncs - before; n != 2 {
			t.Errorf("%d syncs, want 2", n)
		}
	})
}

func TestSyncOfAFrameThatIsNotThereIsRefused(t *testing.T) {
	w := create(t, newMemStore(), MinSize)
	if err := w.Sync(t.Context(), 1); !errors.Is(err, ErrInvalid) || w.Err() != nil {
		t.Fatal(err)
	}
}

func TestContextEndsOnlyTheWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemStore()
		ctx, cancel := context.WithCancel(t.Context())
		w, err := Create(ctx, Config{Store: s, Volume: testVolume, Generation: testGeneration, Object: testObject, Size: MinSize})
		if err != nil {
			t.Fatal(err)
		}
		var b Batch
		seq := add(t, w, &b)
		held := make(chan struct{})
		s.onSync = func() error { <-held; return nil }
		var wg sync.WaitGroup
		wg.Go(func() { // its sync goes on
			if err := w.Sync(ctx, seq); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		wg.Go(func() { // only waits
			if err := w.Sync(ctx, seq); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(held)
		wg.Wait()
		if seq, err := w.Append(ctx, &b); !errors.Is(err, context.Canceled) || seq != 0 || w.Last() != 1 {
			t.Errorf("append: %v", err)
		}
		if w.Err() != nil {
			t.Errorf("a cancelled caller is final: %v", w.Err())
		}
		add(t, w, &b)
	})
}

func TestFailedWriteIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemStore()
		w := create(t, s, MinSize)
		var b Batch
		good := add(t, w, &b)
		cause := errors.New("disk on fire")
		held := make(chan struct{})
		s.onWrite = func([]byte, int64) error { <-held; return cause }
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				var b Batch
				if seq, err := w.Append(t.Context(), &b); !errors.Is(err, cause) || seq != 0 {
					t.Errorf("frame %d: %v", seq, err)
				}
			})
			synctest.Wait()
		}
		writes := s.writes
		close(held)
		wg.Wait()
		s.onWrite = nil
		if _, err := w.Append(t.Context(), &b); !errors.Is(err, cause) {
			t.Errorf("append after it: %v", err)
		}
		if err := w.Sync(t.Context(), good); !errors.Is(err, cause) {
			t.Errorf("sync after it: %v", err)
		}
		w.Close()
		if !errors.Is(w.Err(), cause) || w.Last() != good || s.writes != writes {
			t.Errorf("err %v, last %d", w.Err(), w.Last())
		}
	})
}

func TestFailedSyncIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemStore()
		w := create(t, s, MinSize)
		var b Batch
		seq := add(t, w, &b)
		cause := errors.New("disk on fire")
		held := make(chan struct{})
		s.onSync = func() error { <-held; return cause }
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if err := w.Sync(t.Context(), seq); !errors.Is(err, cause) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(held)
		wg.Wait()
		s.onSync = nil
		if err := w.Sync(t.Context(), seq); !errors.Is(err, cause) {
			t.Errorf("sync after it: %v", err)
		}
		if _, err := w.Append(t.Context(), &b); !errors.Is(err, cause) || !errors.Is(w.Err(), cause) {
			t.Errorf("append after it: %v", err)
		}
	})
}

func TestCloseEndsTheWriter(t *testing.T) {
	s := newMemStore()
	w := create(t, s, MinSize)
	var b Batch
	seq := add(t, w, &b)
	writes, syncs := s.writes, s.syncs
	w.Close()
	w.Close()
	if _, err := w.Append(t.Context(), &b); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := w.Sync(t.Context(), seq); !errors.Is(err, ErrClosed) || !errors.Is(w.Err(), ErrClosed) {
		t.Error(err)
	}
	if s.writes != writes || s.syncs != syncs || s.content[testName] == nil {
		t.Error("close did I/O")
	}
}
