package collect_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// meetings returns what a process does with vm1 while the device of that is being closed.
func meetings() map[string]func(*process) error {
	return map[string]func(*process) error{
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
		"resize": func(p *process) error {
			info, err := p.Resize(p.t.Context(), "vm1", catalog.ResizeOptions{Size: mib, By: true})
			if err == nil && info.Size != 2*mib {
				err = fmt.Errorf("it has %d bytes", info.Size)
			}
			return err
		},
		"remove": func(p *process) error {
			_, err := p.Remove(p.t.Context(), catalog.Ref{Volume: "vm1", Snapshot: "s"}, catalog.RemoveOptions{})
			return err
		},
	}
}

// closing starts a process that has vm1 open, with the snapshot s, and content that was changed after it.
func closing(t *testing.T) (*process, *volume.Device) {
	p := start(t, newStorage(t), 1)
	p.create("vm1", mib)
	p.write("vm1", 0, mib, 1)
	p.snapshot("vm1@s")
	d, err := p.OpenVolume(t.Context(), "vm1")
	p.ok(err)
	p.ok(d.WriteAt(t.Context(), make([]byte, 4096), 0))
	return p, d
}

// closed ends the process, whose vm1 is closed and has that content, and nothing is left behind.
func (p *process) closed() {
	p.t.Helper()
	p.faults.SetHook(nil)
	p.wants("vm1", 4096, mib-4096, 1)
	p.wants("vm1", 0, 4096, 0)
	p.collect()
	p.clean()
	p.stop()
}

// TestWhatMeetsAClosingVolume: a collection, a snapshot, a clone, another size and a removal that come while the volume's device is being closed in the
// same process wait for that, and then do what they are for.
func TestWhatMeetsAClosingVolume(t *testing.T) {
	for name, do := range meetings() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { meetClosing(t, do) })
		})
	}
}

func meetClosing(t *testing.T, do func(*process) error) {
	p, d := closing(t)
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
	if late != nil {
		t.Error(late)
	}
	p.closed()
}

// TestClosingVolumeMeetsWhatIsUnderWay is the other way round: the device is closed at each call of the storage that something makes which is under way.
func TestClosingVolumeMeetsWhatIsUnderWay(t *testing.T) {
	for name, do := range meetings() {
		t.Run(name, func(t *testing.T) {
			for k := 1; ; k++ {
				reached := false
				synctest.Test(t, func(t *testing.T) { reached = closeAtCall(t, k, do) })
				if !reached || t.Failed() {
					t.Logf("closed at %d calls", k-1)
					break
				}
			}
		})
	}
}

// closeAtCall closes the device of vm1 before call k, and reports whether there was one.
func closeAtCall(t *testing.T, k int, do func(*process) error) bool {
	p, d := closing(t)
	var mu sync.Mutex
	calls := 0
	goOn, at := make(chan struct{}), ""
	p.faults.SetHook(func(c faulty.Call) faulty.Action {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls == k {
			at = c.String()
			return faulty.Delay(goOn)
		}
		return faulty.Pass()
	})
	var done error
	var wg sync.WaitGroup
	wg.Go(func() { done = do(p) })
	synctest.Wait() // it waits for the call, or has ended
	mu.Lock()
	reached := calls >= k
	calls = k // those of the close are not held up
	mu.Unlock()
	wg.Go(func() { p.ok(d.Close(t.Context())) })
	synctest.Wait()
	close(goOn)
	wg.Wait()
	if done != nil {
		t.Errorf("closed at call %d, %s: %v", k, at, done)
	}
	p.closed()
	return reached
}
