package volume_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
)

// TestGrowthThatIsGivenUpTwice: neither a larger journal that was made and not used, nor what is made after it, keeps
// the volume from being opened.
func TestGrowthThatIsGivenUpTwice(t *testing.T) {
	for name, end := range map[string]func(*world){
		"process died": func(w *world) { w.kill() },
		"power lost":   func(w *world) { w.crash(mem.KeepNone) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 256<<10, 64<<10)
			want := pattern(256<<10, 1)
			must(t, w.dev.WriteAt(t.Context(), want, 0))
			must(t, w.dev.Flush(t.Context()))
			hold, held := make(chan struct{}), make(chan struct{})
			w.faults.SetHook(func(c faulty.Call) faulty.Action {
				if c.Kind == drivers.OpWrite && strings.Contains(c.Name, "/data/") {
					close(held)
					<-hold
				}
				return faulty.Pass()
			})
			ended := make(chan error)
			go func() { ended <- w.dev.WriteAt(context.Background(), want[:4096], 0) }()
			<-held
			for range 2 {
				ctx, cancel := context.WithCancel(t.Context())
				grown := make(chan error)
				go func() { grown <- w.dev.Grow(ctx) }()
				w.dev.AwaitClosedGate()
				cancel()
				if err := <-grown; err == nil {
					t.Error("it grew with a change under way")
				}
			}
			close(hold)
			must(t, <-ended)
			w.faults.SetHook(nil)
			end(w)
			if !bytes.Equal(content(t, w.dev), want) {
				t.Error("what was flushed is lost")
			}
			must(t, w.close())
		})
	}
}

// TestChangesThatWaitForRoomGoOnWhenTheJournalHasGrown: they wait for no cut.
func TestChangesThatWaitForRoomGoOnWhenTheJournalHasGrown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := smallJournal(t)
		release := make(chan struct{})
		w.faults.SetHook(func(c faulty.Call) faulty.Action {
			if c.Kind == drivers.OpCreate && strings.Contains(c.Name, "/journal/") && w.dev.Stats().Flushes > 0 {
				return faulty.Delay(release)
			}
			return faulty.Pass()
		})
		want := pattern(4096, 1)
		ended := make(chan error, 1)
		go func() {
			for range 16 { // more than the first journal holds
				if err := w.dev.WriteAt(context.Background(), want, 0); err != nil {
					ended <- err
					return
				}
				if err := w.dev.Flush(context.Background()); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
		synctest.Wait()
		if len(ended) > 0 {
			t.Fatal("nothing waited for room")
		}
		close(release)
		synctest.Wait()
		select {
		case err := <-ended:
			must(t, err)
		default:
			t.Error("a change still waits for room in a journal that has grown")
			w.dev.Cut(t.Context())
			<-ended
		}
		must(t, w.close())
	})
}

// TestJournalsAreFew: what an opening has to read is bounded.
func TestJournalsAreFew(t *testing.T) {
	w, _ := smallJournal(t)
	must(t, w.close())
	w.options.JournalLimit = 64 << 20
	w.start()
	must(t, w.open())
	var counts []int
	for range 5 {
		must(t, w.dev.WriteAt(t.Context(), pattern(4096, 1), 0))
		counts = append(counts, len(w.dev.Root().Journals))
		must(t, w.dev.Grow(t.Context()))
	}
	if want := []int{1, 2, 3, 1, 2}; !slices.Equal(counts, want) {
		t.Errorf("%v journals, want %v", counts, want)
	}
	must(t, w.close())
}
