package volume_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/faulty"
)

// TestRootsWithoutRoomLeaveNothingBehind: where the storage is full but for what the root needs, each try to make a journal or a
// cut would take more of it.
func TestRootsWithoutRoomLeaveNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := smallJournal(t)
		count := func(k chunk.Group) (n int) {
			t.Helper()
			synctest.Wait() // for what is removed in the background
			must(t, w.storage.List(t.Context(), chunk.GroupName(w.id, k), func(drivers.Info) error { n++; return nil }))
			return n
		}
		check := func(journals, pages int) {
			t.Helper()
			if j, p := count(chunk.Journals), count(chunk.Pages); j != journals || p != pages {
				t.Errorf("%d journals and %d map pages, want %d and %d", j, p, journals, pages)
			}
		}
		full := faulty.On(func(c faulty.Call) bool {
			return c.Kind == drivers.OpReplace && strings.Contains(c.Name, "/root/")
		}, faulty.Fail(drivers.ErrNoSpace))
		refused := func(what string, do func() error) {
			t.Helper()
			w.faults.SetHook(full)
			for range 3 {
				if do() == nil {
					t.Errorf("%s: no error", what)
				}
			}
			w.faults.SetHook(nil)
		}

		refused("first write", func() error { return w.dev.WriteAt(t.Context(), make([]byte, 4096), 0) })
		check(0, 0)
		must(t, w.dev.WriteAt(t.Context(), pattern(4096, 1), 0))
		check(1, 0)
		refused("larger journal, and cut", func() error { return w.dev.Grow(t.Context()) })
		check(1, 0)
		must(t, w.dev.Flush(t.Context()))
		w.kill()
		must(t, w.dev.WriteAt(t.Context(), pattern(4096, 2), 0))
		must(t, w.close())
		check(0, 1)
	})
}
