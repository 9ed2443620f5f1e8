package volume

import (
	"errors"
	"sync"
	"sync/atomic"

	"skerry/drivers"
	"skerry/mapper"
	"skerry/mapper/journal"
)

// retired are the objects of which an operation ended without the storage's verdict: it may
// still be done, at any time, so nothing new is put there. What it may change is hidden by a newer layer before anyone can rely on it.
type retired struct {
	count   atomic.Int64
	exposed atomic.Int64 // requests with something that a newer layer does not hide yet
	objects sync.Map     // journal.Object to struct{}
}

func (r *retired) has(o journal.Object) bool {
	if r.count.Load() == 0 {
		return false
	}
	_, ok := r.objects.Load(o)
	return ok
}

func (r *retired) add(o journal.Object) {
	if _, loaded := r.objects.LoadOrStore(o, struct{}{}); !loaded {
		r.count.Add(1)
	}
}

// planChange is Map.Plan for a device that does not write to the objects that it retired.
func (d *Device) planChange(index uint64, first, end int) (mapper.Plan, bool) {
	plan, ok := d.m.Plan(index, first, end)
	if plan.Own && d.retired.has(journal.Object{Chunk: index, Serial: plan.Serial}) {
		plan.Own, plan.Writable, plan.InPlace, plan.First, plan.Last = false, false, false, false, false
	}
	return plan, ok
}

func isUnknown(err error) bool { return errors.Is(err, drivers.ErrUnknownOutcome) }
