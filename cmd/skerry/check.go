package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/output"
	"skerry/volume"
	"skerry/volume/collect"
)

type checkResult struct {
	Repaired []repairView  `json:"repaired"`
	Volumes  int           `json:"volumes"` // looked at
	Objects  int64         `json:"objects"`
	Bytes    int64         `json:"bytes"` // that the objects take
	Leaked   int64         `json:"leaked_bytes"`
	Problems []problemView `json:"problems"`
	Skipped  []skipped     `json:"skipped"` // not looked at, or not for leaks
}

// repairView is something that was mended.
type repairView struct {
	Volume string `json:"volume,omitempty"` // empty: the pool
	Text   string `json:"text"`
}

func (a *app) checkCommand() *cobra.Command {
	var repair bool
	c := &cobra.Command{
		Use:     "check [NAME]",
		Aliases: []string{"fsck"},
		Short:   "Look for damage, leaks and what dead processes left",
		Long: `Look at all records of the pool, or of one volume, and at the objects that they name. Nothing is changed and no lease is
taken. Leaks (see gc) and what dead processes left are told with exit code 0, damage with 16.

With --repair, damaged records are first written anew whose right content others prove: the pool record, names, registrations of
clones, records of the trash; a volume that lost its name gets it back, or another. No data is discarded. What is still damaged
then is told as without it; skerry rm --damaged gives up what cannot be mended.`,
		Example: `  skerry check
  skerry check vm1 --json
  skerry check --repair`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volumeOrAll(args)
			if err != nil {
				return err
			}
			if repair && name != "" {
				return usage("check %s --repair: only a whole pool can be repaired; leave the name out", name)
			}
			a.mend = repair
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				return a.check(ctx, s, name)
			})
		},
	}
	c.Flags().BoolVar(&repair, "repair", false, "mend what other records prove")
	return c
}

// repair mends what can be, if it was asked for, and tells of it.
func (a *app) repair(ctx context.Context, s *session) ([]repairView, error) {
	all := []repairView{}
	if !a.mend {
		return all, nil
	}
	if s.mended {
		all = append(all, repairView{Text: "wrote the record of the pool anew"})
	}
	r, err := collect.Repair(ctx, s.pool)
	for _, d := range r.Repaired {
		all = append(all, repairView{d.Volume, d.Text})
	}
	for _, v := range viewSkipped(r.Skipped) {
		a.print.Note("not repaired: %s: %s", v.Volume, v.Why)
	}
	if err != nil {
		return all, about("check", s.where.String(), err)
	}
	return all, nil
}

func (a *app) check(ctx context.Context, s *session, name string) error {
	what := name
	if what == "" {
		what = s.where.String()
	}
	if err := s.there(ctx, name); err != nil {
		return err
	}
	repaired, err := a.repair(ctx, s)
	if err != nil {
		return err
	}
	r, err := collect.Check(ctx, s.pool, collect.CheckOptions{Volume: name})
	if err != nil {
		return about("check", what, err)
	}
	result := checkResult{
		Repaired: repaired,
		Volumes:  r.Volumes, Objects: r.Objects, Bytes: r.Bytes, Leaked: r.LeakedBytes,
		Problems: viewProblems(r.Problems), Skipped: viewSkipped(r.Skipped),
	}
	err = a.print.Result(result, func(w io.Writer) error { return a.checkText(w, result) })
	if err == nil && r.Damaged() {
		err = advised{
			fmt.Errorf("check %s: %w: %s", what, volume.ErrDamaged, output.Count(count(result.Problems, collect.Damage), "problem")),
			"what is not named above is sound; skerry check --repair mends records that others prove, skerry rollback goes back to a sound snapshot",
		}
	}
	return err
}

func (a *app) checkText(w io.Writer, r checkResult) error {
	for _, d := range r.Repaired {
		if _, err := fmt.Fprintf(w, "repaired: %s\n", problemView{Volume: d.Volume, Text: d.Text}.line()); err != nil {
			return err
		}
	}
	for _, p := range r.Problems {
		if _, err := fmt.Fprintf(w, "%s: %s\n", p.Kind, p.line()); err != nil {
			return err
		}
	}
	for _, s := range r.Skipped {
		a.print.Note("not all of %s was looked at: %s", s.Volume, s.Why)
	}
	a.print.Note("checked %s, %s, %s: %s", output.Count(int64(r.Volumes), "volume"), output.Count(r.Objects, "object"),
		output.Size(r.Bytes), output.Count(int64(len(r.Problems))-count(r.Problems, collect.Pending), "problem"))
	return nil
}

// count returns how many problems are of a kind.
func count(all []problemView, kind collect.Kind) (n int64) {
	for _, p := range all {
		if p.Kind == string(kind) {
			n++
		}
	}
	return n
}
