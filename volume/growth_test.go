package volume_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

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
