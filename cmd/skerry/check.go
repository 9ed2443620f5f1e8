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
	Volumes  int           `json:"volumes"` // looked at
	Objects  int64         `json:"objects"`
	Bytes    int64         `json:"bytes"` // that the objects take
	Leaked   int64         `json:"leaked_bytes"`
	Problems []problemView `json:"problems"`
	Skipped  []skipped     `json:"skipped"` // not looked at, or not for leaks
}

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check [NAME]",
		Aliases: []string{"fsck"},
		Short:   "Look for damage, leaks and what dead processes left",
		Long: `Look at all records of the pool, or of one volume, and at the objects that they name. Nothing is changed and no lease is
taken. Leaks (see gc) and what dead processes left are told with exit code 0, damage with 16.`,
		Example: `  skerry check
  skerry check vm1 --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volumeOrAll(args)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				return a.check(ctx, s, name)
			})
		},
	}
}

func (a *app) check(ctx context.Context, s *session, name string) error {
	what := name
	if what == "" {
		what = s.where.String()
	}
	if err := s.there(ctx, name); err != nil {
		return err
	}
	r, err := collect.Check(ctx, s.pool, collect.CheckOptions{Volume: name})
	if err != nil {
		return about("check", what, err)
	}
	result := checkResult{
		Volumes: r.Volumes, Objects: r.Objects, Bytes: r.Bytes, Leaked: r.LeakedBytes,
		Problems: viewProblems(r.Problems), Skipped: viewSkipped(r.Skipped),
	}
	err = a.print.Result(result, func(w io.Writer) error { return a.checkText(w, result) })
	if err == nil && r.Damaged() {
		err = advised{
			fmt.Errorf("check %s: %w: %s", what, volume.ErrDamaged, output.Count(count(result.Problems, collect.Damage), "problem")),
			"what is not named above is sound; a volume can go back to a sound snapshot with: skerry rollback",
		}
	}
	return err
}

func (a *app) checkText(w io.Writer, r checkResult) error {
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
