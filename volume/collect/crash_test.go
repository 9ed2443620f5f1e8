package collect_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"skerry/drivers/faulty"
	"skerry/drivers/mem"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// operation is something done to a pool that may be cut off before any call of the storage, and is then repeated.
type operation struct {
	name    string
	prepare func(*process)
	do      func(*process) error
	before  string         // what a list shows if it was not done
	after   string         // what a list shows once it was done
	done    error          // what repeating it may say if it was done before
	content func(*process) // what must hold before and after, as far as the volumes are there
	finish  func(*process) // what must be possible in the end
}

func operations(t *testing.T) []operation {
	return append(plainOperations(t), trashOperations(t)...)
}

func plainOperations(t *testing.T) []operation {
	remove := func(name string, o catalog.RemoveOptions) func(*process) error {
		return func(p *process) error {
			_, err := p.Remove(t.Context(), ref(t, name), o)
			return err
		}
	}
	written := func(p *process) {
		p.create("vm1", mib)
		p.write("vm1", 0, mib/2, 1)
	}
	return []operation{
		{
			name: "create", prepare: func(*process) {}, before: "", after: "vm1 ", done: catalog.ErrExists,
			do: func(p *process) error {
				_, err := p.Create(t.Context(), "vm1", catalog.CreateOptions{Size: mib, ChunkSize: chunkSize})
				return err
			},
		}, {
			name: "import", prepare: func(*process) {}, before: "", after: "vm1 ", done: catalog.ErrExists,
			do: func(p *process) error {
				c, err := p.Begin(t.Context(), "vm1", catalog.CreateOptions{Size: mib, ChunkSize: chunkSize})
				if err != nil {
					return err
				}
				err = c.Device().WriteAt(t.Context(), []byte(strings.Repeat("\001", mib/2)), 0)
				if err == nil {
					_, err = c.Commit(t.Context())
				}
				if err != nil {
					c.Abort(t.Context()) // the process may be dead
				}
				return err
			},
			content: func(p *process) { p.wants("vm1", 0, mib/2, 1) },
		}, {
			name: "clone of a snapshot", before: "vm1@s1 ", after: "vm1@s1 vm2 ", done: catalog.ErrExists,
			prepare: func(p *process) {
				written(p)
				p.snapshot("vm1@s1")
			},
			do: func(p *process) error {
				_, err := p.Clone(t.Context(), ref(t, "vm1@s1"), "vm2", catalog.CloneOptions{})
				return err
			},
			content: func(p *process) {
				p.wants("vm1@s1", 0, mib/2, 1)
				if strings.Contains(p.volumes(), "vm2") {
					p.wants("vm2", 0, mib/2, 1)
				}
			},
		}, {
			name: "clone of a volume", before: "vm1 ", after: "vm1 vm2 ", done: catalog.ErrExists, prepare: written,
			do: func(p *process) error {
				_, err := p.Clone(t.Context(), ref(t, "vm1"), "vm2", catalog.CloneOptions{})
				return err
			},
			content: func(p *process) {
				p.wants("vm1", 0, mib/2, 1)
				if strings.Contains(p.volumes(), "vm2") {
					p.wants("vm2", 0, mib/2, 1)
				}
			},
		}, {
			name: "rename", before: "vm1 ", after: "vm2 ", done: catalog.ErrNotFound, prepare: written,
			do: func(p *process) error { return p.Rename(t.Context(), "vm1", "vm2") },
			content: func(p *process) {
				p.wants(strings.TrimSpace(p.volumes()), 0, mib/2, 1)
			},
		}, {
			name: "snapshot", before: "vm1 ", after: "vm1@s1 ", done: catalog.ErrExists, prepare: written,
			do: func(p *process) error {
				_, err := p.Snapshot(t.Context(), ref(t, "vm1@s1"))
				return err
			},
			content: func(p *process) {
				p.wants("vm1", 0, mib/2, 1)
				if strings.Contains(p.volumes(), "s1") {
					p.wants("vm1@s1", 0, mib/2, 1)
				}
			},
		}, {
			name: "rollback", before: "vm1@s1 ", after: "vm1@s1 ",
			prepare: func(p *process) {
				written(p)
				p.snapshot("vm1@s1")
				p.write("vm1", 0, mib, 2)
			},
			do:      func(p *process) error { return p.Rollback(t.Context(), ref(t, "vm1@s1")) },
			content: func(p *process) { p.wants("vm1@s1", 0, mib/2, 1) },
		}, {
			name: "flatten", before: "vm1@s1 vm2@s2 ", after: "vm1@s1 vm2@s2 ",
			prepare: func(p *process) {
				p.create("vm1", mib)
				p.write("vm1", chunkSize/2, chunkSize/2, 1)
				p.snapshot("vm1@s1")
				p.clone("vm1@s1", "vm2")
				p.write("vm2", 0, chunkSize-4096, 2)
				p.snapshot("vm2@s2")
			},
			do: func(p *process) error {
				if err := p.Flatten(t.Context(), "vm2", nil); err != nil {
					return err
				}
				_, err := collect.Part(t.Context(), p.Pool, "vm2")
				return err
			},
			content: func(p *process) {
				p.wants("vm2", 0, chunkSize-4096, 2)
				p.wants("vm2", chunkSize-4096, 4096, 1)
				p.wants("vm2@s2", chunkSize-4096, 4096, 1)
			},
			finish: func(p *process) {
				if _, err := p.Remove(t.Context(), ref(t, "vm1@s1"), catalog.RemoveOptions{}); !errors.Is(err, catalog.ErrInUse) {
					t.Fatalf("the snapshot that vm2@s2 needs was removed: %v", err)
				}
				p.remove("vm2@s2")
				p.collect()
				p.remove("vm1@s1")
				p.remove("vm1")
				p.clean()
				p.wants("vm2", chunkSize-4096, 4096, 1)
			},
		}, {
			name: "growth", before: "vm1 ", after: "vm1 ", prepare: written,
			do: func(p *process) error {
				_, err := p.Resize(t.Context(), "vm1", catalog.ResizeOptions{Size: 100 * mib})
				return err
			},
			content: func(p *process) { p.wants("vm1", 0, mib/2, 1) },
			finish:  func(p *process) { p.wants("vm1", mib/2, 2*mib, 0) },
		}, {
			name: "shrinkage", before: "vm1@s1 ", after: "vm1@s1 ",
			prepare: func(p *process) {
				written(p)
				p.snapshot("vm1@s1")
				p.write("vm1", mib/4, mib/2, 2)
			},
			do: func(p *process) error {
				_, err := p.Resize(t.Context(), "vm1", catalog.ResizeOptions{Size: mib/4 + 512, Shrink: true})
				return err
			},
			content: func(p *process) {
				p.wants("vm1", mib/4, 512, 2)
				p.wants("vm1@s1", 0, mib/2, 1)
			},
			finish: func(p *process) {
				_, err := p.Resize(t.Context(), "vm1", catalog.ResizeOptions{Size: mib})
				p.ok(err)
				p.wants("vm1", mib/4+512, mib/2, 0)
				p.wants("vm1@s1", 0, mib/2, 1)
			},
		}, {
			name: "removal of a volume", before: "vm1 ", after: "", done: catalog.ErrNotFound, prepare: written,
			do:      remove("vm1", catalog.RemoveOptions{}),
			content: func(p *process) { p.wants("vm1", 0, mib/2, 1) },
		}, {
			name: "removal with snapshots", before: "vm1@s1 ", after: "", done: catalog.ErrNotFound,
			prepare: func(p *process) {
				written(p)
				p.snapshot("vm1@s1")
				p.write("vm1", 0, mib/4, 1)
			},
			do:      remove("vm1", catalog.RemoveOptions{Snapshots: true}),
			content: func(p *process) { p.wants("vm1", 0, mib/2, 1) },
		}, {
			name: "removal of a clone", before: "vm1 vm2 ", after: "vm1 ", done: catalog.ErrNotFound,
			prepare: func(p *process) {
				written(p)
				p.clone("vm1", "vm2")
				p.write("vm2", 0, mib/4, 1)
			},
			do:      remove("vm2", catalog.RemoveOptions{}),
			content: func(p *process) { p.wants("vm1", 0, mib/2, 1) },
		}, {
			name: "removal of a snapshot", before: "vm1@s1 ", after: "vm1 ", done: catalog.ErrNotFound,
			prepare: func(p *process) {
				written(p)
				p.snapshot("vm1@s1")
				p.write("vm1", 0, mib/2, 1)
			},
			do:      remove("vm1@s1", catalog.RemoveOptions{}),
			content: func(p *process) { p.wants("vm1", 0, mib/2, 1) },
		}, {
			name: "collection", before: "vm1 vm3@s1 ", after: "vm1 vm3@s1 ",
			prepare: func(p *process) {
				written(p)
				p.snapshot("vm1@s1")
				p.write("vm1", 0, mib/2, 1)
				p.remove("vm1@s1")
				p.clone("vm1", "vm3")
				p.write("vm3", 0, mib/2, 1)
				p.snapshot("vm3@s1")
			},
			do: func(p *process) error {
				r, err := collect.Collect(t.Context(), p.Pool, collect.Options{})
				if err == nil && len(r.Problems) > 0 {
					err = fmt.Errorf("problems: %+v", r.Problems)
				}
				return err
			},
			content: func(p *process) {
				p.wants("vm1", 0, mib/2, 1)
				p.wants("vm3", 0, mib/2, 1)
				p.wants("vm3@s1", 0, mib/2, 1)
			},
		},
	}
}

// TestB04CrashBeforeEveryCallOfTheStorage cuts operations off before their call k, with the process or with the power, and finishes them
// in a new process. With the race detector only every stride-th call is taken.
func TestB04CrashBeforeEveryCallOfTheStorage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, op := range operations(t) {
		t.Run(strings.ReplaceAll(op.name, " ", "-"), func(t *testing.T) {
			storage := newStorage(t)
			p := start(t, storage, 1)
			op.prepare(p)
			p.stop()
			k := 1 - stride + rng.Int64N(stride)
			for finished := false; !finished; {
				k += stride
				for _, keep := range []mem.Keep{nil, mem.KeepAll, mem.KeepNone, mem.KeepRandom(rng)} {
					finished = cutOff(t, storage, op, k, keep)
				}
			}
		})
	}
}

// cutOff does the operation on a copy of the storage until call k, crashes, and has a new process finish it. It reports whether the
// operation had no call k. Without keep only the process dies.
func cutOff(t *testing.T, storage *mem.Backend, op operation, k int64, keep mem.Keep) (finished bool) {
	t.Helper()
	b := storage.Kill()
	p := start(t, b, 1)
	var mu sync.Mutex
	var at *mem.Backend
	var what string
	first := p.faults.Calls()
	p.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.N-first < k {
			return faulty.Pass()
		}
		mu.Lock()
		defer mu.Unlock()
		if at == nil {
			what = c.String()
			if keep == nil {
				at = b.Kill()
			} else {
				at = b.Crash(keep)
			}
		}
		return faulty.Fail(errDead)
	})
	err := op.do(p)
	mu.Lock()
	after := at
	mu.Unlock()
	if after == nil {
		if err != nil {
			t.Fatalf("%s: %v", op.name, err)
		}
		after, finished = b.Kill(), true
	}
	p.die()

	boot := byte(1)
	if keep != nil {
		boot = 2
	}
	q := start(t, after, boot)
	defer q.die()
	defer func() {
		if t.Failed() {
			t.Logf("%s cut off before call %d, %s", op.name, k, what)
		}
	}()
	q.check()
	list := q.volumes()
	if list != op.before && list != op.after {
		t.Fatalf("the pool has %q", list)
	}
	if op.content != nil && list != "" {
		op.content(q)
	}
	if err := op.do(q); err != nil && !(op.done != nil && list == op.after && errors.Is(err, op.done)) {
		t.Fatalf("repeated: %v", err)
	}
	if list := q.volumes(); list != op.after {
		t.Fatalf("the pool has %q in the end", list)
	}
	q.collect()
	q.clean()
	if op.content != nil && op.after != "" {
		op.content(q)
	}
	if op.finish != nil {
		op.finish(q)
	}
	if left := append(objects(t, after, "v"), objects(t, after, "trash")...); op.after == "" && len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
	q.stop()
	for _, name := range objects(t, after, "instances") {
		t.Fatalf("left: %s", name)
	}
	return finished
}
