package collect_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/volume/collect"
)

// TestLooksBesideARemoval: a collection removes a snapshot and its objects between any two calls of a check or of a
// measurement, under one grant and one root. That is no damage.
func TestLooksBesideARemoval(t *testing.T) {
	for what, look := range map[string]func(context.Context, *process) string{
		"check": func(ctx context.Context, q *process) string {
			r, err := collect.Check(ctx, q.Pool, collect.CheckOptions{})
			q.ok(err)
			var all []string
			for _, p := range r.Problems {
				if p.Kind == collect.Damage {
					all = append(all, p.Text)
				}
			}
			return strings.Join(all, "; ")
		},
		"usage": func(ctx context.Context, q *process) string {
			u, err := collect.MeasurePool(ctx, q.Pool)
			q.ok(err)
			var all []string
			for _, v := range u.Volumes {
				if v.Err != nil {
					all = append(all, v.Err.Error())
				}
			}
			return strings.Join(all, "; ")
		},
	} {
		t.Run(what, func(t *testing.T) {
			for k, more := int64(1), true; more; k++ {
				b := newStorage(t)
				p, q := start(t, b, 1), start(t, b, 1)
				p.create("vm1", mib)
				p.write("vm1", 0, mib, 1)
				_, err := p.SnapshotHidden(t.Context(), "vm1") // needed by nobody
				p.ok(err)
				p.write("vm1", 0, mib, 2)
				p.collecting(func(goOn func()) {
					first := q.faults.Calls()
					more = false
					q.faults.SetHook(func(c faulty.Call) faulty.Action {
						if c.N == first+k {
							more = true
							goOn()
						}
						return faulty.Pass()
					})
					if damage := look(t.Context(), q); damage != "" {
						t.Errorf("call %d: %s", k, damage)
					}
					q.faults.SetHook(nil)
				})
				p.stop()
				q.stop()
				if t.Failed() {
					return
				}
			}
		})
	}
}

// collecting collects vm1, and calls fn while that waits after it was granted the volume. It removes all it has to when fn calls goOn, which waits for that, and
// gives the volume back when fn has returned.
func (p *process) collecting(fn func(goOn func())) {
	p.t.Helper()
	granted, goes, removed, returned := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	roots := 0
	p.faults.SetHook(func(c faulty.Call) faulty.Action {
		if _, g, ok := chunk.ParseVolume(c.Name); c.Kind == drivers.OpReplace && ok && g == chunk.Roots {
			if roots++; roots == 2 {
				close(removed)
				<-returned
			}
		} else if roots == 1 {
			select {
			case <-granted:
			default:
				close(granted)
				<-goes
			}
		}
		return faulty.Pass()
	})
	var done sync.WaitGroup
	done.Go(func() {
		_, err := collect.Collect(p.t.Context(), p.Pool, collect.Options{Volume: "vm1"})
		if err != nil {
			p.t.Error(err)
		}
	})
	<-granted
	var once sync.Once
	goOn := func() { once.Do(func() { close(goes); <-removed }) }
	fn(goOn)
	close(returned)
	goOn()
	done.Wait()
	p.faults.SetHook(nil)
}
