package collect_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// TestWhatMeetsAClosingVolume: a collection, a snapshot, a clone and a removal that come while the volume's device is being closed in the
// same process wait for that, and then do what they are for.
func TestWhatMeetsAClosingVolume(t *testing.T) {
	for name, do := range map[string]func(*process) error{
		"collect": func(p *process) error {
			_, err := collect.Collect(p.t.Context(), p.Pool, collect.Options{})
			return err
		},
		"snapshot": func(p *process) error {
			_, err := p.Snapshot(p.t.Context(), catalog.Ref{Volume: "vm1", Snapshot: "late"})
			return err
		},
		"clone": func(p *process) error {
			_, err := p.Clone(p.t.Context(), catalog.Ref{Volume: "vm1"}, "late", catalog.CloneOptions{})
			return err
		},
		"remove": func(p *process) error {
			_, err := p.Remove(p.t.Context(), catalog.Ref{Volume: "vm1", Snapshot: "s"}, catalog.RemoveOptions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { meetClosing(t, do) })
		})
	}
}

func meetClosing(t *testing.T, do func(*process) error) {
	b := newStorage(t)
	p := start(t, b, 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	p.snapshot("vm1@s")
	d, err := p.OpenVolume(t.Context(), "vm1")
	p.ok(err)
	p.ok(d.WriteAt(t.Context(), make([]byte, 4096), 0))
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.Kind == drivers.OpUnlink && strings.Contains(c.Name, "/journal/") {
			action := faulty.Pass()
			once.Do(func() {
				close(reached)
				action = faulty.Delay(goOn)
			})
			return action
		}
		return faulty.Pass()
	})
	var wg sync.WaitGroup
	wg.Go(func() { p.ok(d.Close(t.Context())) })
	<-reached // the last cut was done
	var late error
	wg.Go(func() { late = do(p) })
	synctest.Wait() // it has failed, or waits
	close(goOn)
	wg.Wait()
	p.faults.SetHook(nil)
	if late != nil {
		t.Error(late)
	}
	p.wants("vm1", 4096, mib-4096, 1)
	p.wants("vm1", 0, 4096, 0)
	p.collect()
	p.clean()
	p.stop()
}
