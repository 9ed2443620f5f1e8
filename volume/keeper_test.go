package volume_test

import (
	"bytes"
	"sync/atomic"
	"testing"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/volume"
)

// keeper is a waiter whose data is lent until Submit returns.
type keeper struct {
	waiter
	kept *int
}

func (k keeper) Keep(r *volume.Request) {
	*k.kept++
	r.Data = bytes.Clone(r.Data)
}

// TestLentDataIsKeptOrWrittenAtOnce: a submitter that overwrites its data when Submit returns has written what it submitted, whichever way
// the write goes, and is asked to keep the data only if it does not end at once.
func TestLentDataIsKeptOrWrittenAtOnce(t *testing.T) {
	const n = 8192
	for name, c := range map[string]struct {
		inline bool // the storage takes writes that do not block
		first  faulty.Action
		kept   int
	}{
		"inline":                  {true, faulty.Pass(), 0},
		"queued":                  {false, faulty.Pass(), 1},
		"inline, unknown outcome": {true, faulty.FailAfter(faulty.ErrUnknown), 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1<<20, 64<<10)
			must(t, w.dev.WriteAt(t.Context(), pattern(n, 1), 0))
			release := make(chan struct{})
			var writes atomic.Int64
			w.faults.SetInline(c.inline)
			w.faults.SetHook(func(call faulty.Call) faulty.Action {
				if call.Kind != drivers.OpWrite {
					return faulty.Pass()
				}
				if writes.Add(1) == 1 && c.inline {
					return c.first
				}
				return faulty.Delay(release) // until the submitter has overwritten its data
			})
			kept := 0
			k := keeper{waiter{answered: make(chan error, 1), released: make(chan struct{}, 1)}, &kept}
			lent := pattern(n, 2)
			r := &volume.Request{Kind: volume.Write, Length: n, Data: lent, Done: k}
			done := w.dev.Submit(r)
			clear(lent)
			close(release)
			if done {
				must(t, r.Err)
			} else {
				must(t, <-k.answered)
				<-k.released
			}
			w.faults.SetHook(nil)
			if done != (c.kept == 0) || kept != c.kept {
				t.Errorf("done %v, asked %d times to keep the data", done, kept)
			}
			if got := content(t, w.dev); !bytes.Equal(got[:n], pattern(n, 2)) {
				t.Error("the volume has not what was submitted")
			}
			must(t, w.close())
		})
	}
}
