package collect

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// Repaired is something that Repair made good.
type Repaired struct {
	Volume string // name, or id if it had none
	Text   string // what was done
}

// RepairReport says what Repair did.
type RepairReport struct {
	Repaired []Repaired
	Skipped  []Skipped // volumes that a living process holds
}

// Repair makes good what is damaged and whose right content other records prove: name records, lost names, registrations of clones, records of the
// trash. It discards no data. What it cannot prove it leaves, for Check to tell. The error is for what ended it.
func Repair(ctx context.Context, p *catalog.Pool) (RepairReport, error) {
	r := repairer{p: p}
	if err := p.WithReserve(ctx, func() error { return r.all(ctx) }); err != nil {
		return r.report, fmt.Errorf("repair: %w", err)
	}
	return r.report, nil
}

type repairer struct {
	p      *catalog.Pool
	report RepairReport
}

func (r *repairer) all(ctx context.Context) error {
	roots, err := r.p.Roots(ctx)
	if err != nil {
		return err
	}
	var names []string
	err = r.p.Names(ctx, func(name string, _ chunk.VolumeID, err error) error {
		if err != nil && !damaged(err) {
			return err
		}
		if err != nil {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := r.p.RepairName(ctx, name, roots)
		if err := r.went(name, text, err); err != nil {
			return err
		}
	}
	// The younger of two that have lost a name had it last.
	slices.SortStableFunc(roots.All, func(a, b *mapper.Root) int { return b.Created.Compare(a.Created) })
	for _, root := range roots.All {
		for _, mend := range []func(context.Context, *mapper.Root) (string, error){r.nameless, r.unregistered, r.unrecorded} {
			text, err := mend(ctx, root)
			if err := r.went(root.Name, text, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// left are the errors, beside damage, of what is left as it is.
var left = [...]error{catalog.ErrNotFound, catalog.ErrExists, drivers.ErrNotFound, drivers.ErrConflict, drivers.ErrInvalid}

// went notes how a repair went. It returns the errors that end all.
func (r *repairer) went(volume, text string, err error) error {
	var held *locking.HeldError
	switch {
	case errors.As(err, &held):
		r.report.Skipped = append(r.report.Skipped, Skipped{Volume: held.Volume, Why: held.Error(), Holder: &held.Holder})
	case err != nil && (damaged(err) || slices.ContainsFunc(left[:], func(target error) bool { return errors.Is(err, target) })):
		// What is wrong with it, or has changed meanwhile, is for the next check to tell.
	case err != nil:
		return fmt.Errorf("volume %s: %w", volume, err)
	case text != "":
		r.report.Repaired = append(r.report.Repaired, Repaired{volume, text})
	}
	return nil
}

// nameless gives a live volume a name that none stands for. One that has nothing is left to gc.
func (r *repairer) nameless(ctx context.Context, root *mapper.Root) (string, error) {
	if root.State != mapper.Live {
		return "", nil
	}
	if counts, err := r.p.Counts(ctx, root); err != nil || counts {
		return "", err
	}
	if bare, err := r.p.Bare(ctx, root); err != nil || bare {
		return "", err
	}
	name, err := r.p.NameAgain(ctx, root)
	switch {
	case err != nil || name == "":
		return "", err
	case name == root.Name:
		return fmt.Sprintf("gave volume %v its name back", root.Volume), nil
	}
	return fmt.Sprintf("gave volume %v the name %s, since no record led to it and another volume has the name", root.Volume, name), nil
}

// unregistered registers a clone anew.
func (r *repairer) unregistered(ctx context.Context, root *mapper.Root) (string, error) {
	if done, err := r.p.Reregister(ctx, root); err != nil || !done {
		return "", err
	}
	return fmt.Sprintf("registered it again as a clone of snapshot %v of volume %v", root.Parent.Snapshot, root.Parent.Volume), nil
}

// unrecorded writes a record of the trash anew.
func (r *repairer) unrecorded(ctx context.Context, root *mapper.Root) (string, error) {
	if done, err := r.p.Rerecord(ctx, root); err != nil || !done {
		return "", err
	}
	return fmt.Sprintf("wrote the record of volume %v in the trash anew", root.Volume), nil
}
