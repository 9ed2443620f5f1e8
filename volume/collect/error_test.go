package collect_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
)

// fault is what happens to one call of the storage.
type fault struct {
	name   string
	action faulty.Action
	late   bool // what was held back is delivered once the operation was repeated
}

// TestErrorAtEveryCallOfTheStorage fails call k of each operation, which must say so or have succeeded all the same. The
// same process then repeats it.
func TestErrorAtEveryCallOfTheStorage(t *testing.T) {
	unavailable := fmt.Errorf("%w: no answer", drivers.ErrUnavailable)
	faults := []fault{
		{name: "not done", action: faulty.Fail(unavailable)},
		{name: "no space", action: faulty.Fail(drivers.ErrNoSpace)},
		{name: "done but unknown", action: faulty.FailAfter(faulty.ErrUnknown)},
		{name: "late", action: faulty.Late(), late: true},
		{name: "twice", action: faulty.Twice()},
	}
	for _, op := range operations(t) {
		t.Run(strings.ReplaceAll(op.name, " ", "-"), func(t *testing.T) {
			storage := newStorage(t)
			p := start(t, storage, 1)
			op.prepare(p)
			p.stop()
			for _, f := range faults {
				k := int64(0)
				for finished := false; !finished; {
					k += stride
					finished = withFault(t, storage, op, k, f)
				}
			}
		})
	}
}

// withFault does the operation with a fault at call k and then again without. It reports whether there was no call k.
func withFault(t *testing.T, storage *mem.Backend, op operation, k int64, f fault) (finished bool) {
	t.Helper()
	b := storage.Kill()
	p := start(t, b, 1)
	defer p.die()
	what := ""
	first := p.faults.Calls()
	p.faults.SetHook(func(c faulty.Call) faulty.Action {
		if c.N-first != k {
			return faulty.Pass()
		}
		what = c.String()
		return f.action
	})
	defer func() {
		if t.Failed() {
			t.Logf("%s with a fault (%s) at call %d, %s", op.name, f.name, k, what)
		}
	}()
	err := op.do(p)
	p.faults.SetHook(nil)
	if what == "" {
		finished = true
	}
	if err != nil && finished {
		t.Fatal(err)
	}
	p.check()
	list := p.volumes()
	if list != op.before && list != op.after || err == nil && list != op.after {
		t.Fatalf("the pool has %q after %v", list, err)
	}
	if op.content != nil && list != "" {
		op.content(p)
	}
	if again := op.do(p); again != nil && !(op.done != nil && list == op.after && errors.Is(again, op.done)) {
		t.Fatalf("repeated after %v: %v", err, again)
	}
	if f.late {
		p.faults.Deliver(t.Context()) // most come too late to have an effect
	}
	if list := p.volumes(); list != op.after {
		t.Fatalf("the pool has %q in the end", list)
	}
	if op.content != nil && op.after != "" {
		op.content(p)
	}
	p.collect()
	p.clean()
	if op.content != nil && op.after != "" {
		op.content(p)
	}
	p.stop()
	return finished
}
