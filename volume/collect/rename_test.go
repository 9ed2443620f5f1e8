package collect_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"skerry/drivers/faulty"
	"skerry/drivers/mem"
)

// TestB06RenameLeavesOneVolume: wherever a rename is ended, by the death of the process or a power loss, the volume has one name, the old or
// the new one, and is the only one with its chunks.
func TestB06RenameLeavesOneVolume(t *testing.T) {
	for k := int64(1); ; k++ {
		b := newStorage(t)
		p := start(t, b, 1)
		p.create("old", 2*chunkSize)
		p.write("old", 0, chunkSize, 1)
		var mu sync.Mutex // of ended
		var ended *mem.Backend
		from := p.faults.Calls()
		p.faults.SetHook(func(c faulty.Call) faulty.Action {
			mu.Lock()
			defer mu.Unlock()
			if ended == nil && c.N-from < k {
				return faulty.Pass()
			}
			if ended == nil {
				if ended = b.Kill(); k%2 == 0 {
					ended = b.Crash(mem.KeepRandom(rand.New(rand.NewPCG(uint64(k), 1))))
				}
			}
			return faulty.Fail(errDead)
		})
		_ = p.Rename(t.Context(), "old", "new") // it fails, or has been done before the end
		mu.Lock()
		after := ended
		mu.Unlock()
		p.die()
		if after == nil {
			if k == 1 {
				t.Fatal("a rename calls nothing")
			}
			return
		}
		p = start(t, after, 2)
		names := p.volumes()
		if names != "old " && names != "new " {
			t.Fatalf("ended before call %d: volumes %q", k, names)
		}
		p.check()
		p.wants(names[:len(names)-1], 0, chunkSize, 1)
		p.collect()
		p.clean()
		if again := p.volumes(); again != names {
			t.Fatalf("ended before call %d: volumes %q after a collection, were %q", k, again, names)
		}
		if left := objects(t, after, "names"); len(left) != 1 {
			t.Fatalf("ended before call %d: %s", k, fmt.Sprint(left))
		}
		p.stop()
	}
}
