package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/output"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

type gcResult struct {
	DryRun    bool          `json:"dry_run"`
	Objects   int64         `json:"objects"`
	Bytes     int64         `json:"bytes"`
	Snapshots int           `json:"snapshots"` // hidden ones, and those whose removal was interrupted
	Unnamed   int           `json:"unnamed"`   // volumes and names whose creation or removal was interrupted
	Skipped   []skipped     `json:"skipped"`
	Problems  []problemView `json:"problems"` // volumes of which nothing was removed since they are damaged
}

// skipped is a volume that was left out.
type skipped struct {
	Volume string `json:"volume"`
	Why    string `json:"why"`
}

// problemView is something that is wrong with a volume.
type problemView struct {
	Kind   string `json:"kind"`             // "damage", "leak" or "stale"
	Volume string `json:"volume,omitempty"` // empty: the pool
	Text   string `json:"text"`
}

func (a *app) gcCommand() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:     "gc [NAME]",
		Aliases: []string{"prune"},
		Short:   "Give back the space of what was removed",
		Long: `Remove the objects that no volume and no snapshot reaches: of removed volumes, snapshots and interrupted imports, in the
whole pool or of one volume. Age does not matter: what a volume can still need is known to its holder, so volumes that another
process holds are left out. Damaged ones are too, since nobody knows what they reach: then the exit code is 16, when all else is done.`,
		Example: `  skerry gc --dry-run
  skerry gc vm1`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volumeOrAll(args)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				r, err := s.collect(ctx, name, dryRun)
				if err != nil {
					return err
				}
				err = a.print.Result(r, func(io.Writer) error {
					a.collected(r)
					return nil
				})
				if err == nil && len(r.Problems) > 0 {
					err = advised{
						fmt.Errorf("gc %s: %w: nothing was removed of what is damaged", s.where, volume.ErrDamaged),
						"see what can be done with: skerry check",
					}
				}
				return err
			})
		},
	}
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "only say what would be removed")
	return c
}

// volumeOrAll reads an argument that may be missing. The empty name stands for all volumes.
func (a *app) volumeOrAll(args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	return a.volume(args[0])
}

func (s *session) collect(ctx context.Context, name string, dryRun bool) (gcResult, error) {
	if err := s.there(ctx, name); err != nil {
		return gcResult{}, err
	}
	r, err := collect.Collect(ctx, s.pool, collect.Options{DryRun: dryRun, Volume: name})
	if err != nil {
		return gcResult{}, about("gc", s.where.String(), err)
	}
	if name == "" && !dryRun {
		if err := s.clean(ctx); err != nil {
			return gcResult{}, about("gc", s.where.String(), err)
		}
	}
	return gcResult{
		DryRun: dryRun, Objects: r.Objects, Bytes: r.Bytes, Snapshots: r.Snapshots, Unnamed: r.Unnamed,
		Skipped: viewSkipped(r.Skipped), Problems: viewProblems(r.Problems),
	}, nil
}

// there fails if there is no volume of that name. Any other error, of damage for example, is left to what comes next.
func (s *session) there(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	_, err := s.pool.Lookup(ctx, name)
	if errors.Is(err, catalog.ErrNotFound) {
		return err
	}
	return nil
}

func (a *app) collected(r gcResult) {
	verb := "removed"
	if r.DryRun {
		verb = "would remove"
	}
	a.print.Note("%s %s, %s", verb, output.Count(r.Objects, "object"), output.Size(r.Bytes))
	for _, s := range r.Skipped {
		a.print.Note("left out %s: %s", s.Volume, s.Why)
	}
	for _, p := range r.Problems {
		a.print.Note("left out since it is damaged: %s", p.line())
	}
}

func (p problemView) line() string {
	if p.Volume == "" {
		return p.Text
	}
	return p.Volume + ": " + p.Text
}

func viewSkipped(all []collect.Skipped) []skipped {
	views := make([]skipped, 0, len(all))
	for _, s := range all {
		why := s.Why
		if s.Holder != nil {
			why = "in use by " + holderText(viewHolder(s.Holder))
		}
		views = append(views, skipped{s.Volume, why})
	}
	return views
}

func viewProblems(all []collect.Problem) []problemView {
	views := make([]problemView, 0, len(all))
	for _, p := range all {
		if v := (problemView{string(p.Kind), p.Volume, p.Text}); !slices.Contains(views, v) {
			views = append(views, v)
		}
	}
	return views
}
