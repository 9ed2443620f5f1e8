package main

import (
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/failure"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
)

// usageView is the space that a volume takes, in bytes.
type usageView struct {
	Volume string `json:"volume"`
	Size   int64  `json:"size"`
	Own    int64  `json:"own"`    // data that only the volume as it is now has
	Shared int64  `json:"shared"` // data that snapshots, clones or the parent have too, or had
	Stored int64  `json:"stored"` // storage in use for all that the volume owns, also for its snapshots
}

func (a *app) duCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "du [NAME]",
		Aliases: []string{"df"},
		Short:   "Show the space that volumes take",
		Long: `Show the space that the volumes of the pool take, or one of them. OWN is data that only the volume as it is now has, SHARED what
its snapshots, clones or parent have too, STORED the storage in use for everything that the volume owns, its
snapshots and what gc would remove included. What was written last to a volume in use may not count yet.`,
		Example: `  skerry du
  skerry du vm1 --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volumeOrAll(args)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				usages, err := s.usages(ctx, name)
				if usages == nil {
					return err
				}
				return errors.Join(a.print.Result(usages, func(w io.Writer) error { return usageTable(w, usages) }), err)
			})
		},
	}
}

// usages returns the space that the volumes of the pool take, or one of them. If it is not nil there is
// a result, and the error is of one that is damaged.
func (s *session) usages(ctx context.Context, name string) ([]usageView, error) {
	var infos []catalog.Info
	var err error
	if name == "" {
		infos, err = s.pool.List(ctx)
	} else {
		infos = make([]catalog.Info, 1)
		infos[0], err = s.pool.Info(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	usages := make([]usageView, 0, len(infos))
	var damaged error
	for _, i := range infos {
		u, err := catalog.Usage{}, aboutRef(catalog.Ref{Volume: i.Name}, i.Err)
		if err == nil {
			u, err = s.pool.Usage(ctx, i.Name)
		}
		switch {
		case err == nil:
			usages = append(usages, usageView{i.Name, i.Size, u.Own, u.Shared, u.Stored})
		case name == "" && errors.Is(err, catalog.ErrNotFound): // removed meanwhile
		case name == "" && failure.Of(err).Exit == failure.ExitDamaged:
			damaged = cmp.Or(damaged, err) // of the others there is something to say
		default:
			return nil, err
		}
	}
	return usages, damaged
}

func usageTable(w io.Writer, usages []usageView) error {
	t := output.NewTable(output.Column{Title: "NAME"}, output.Column{Title: "SIZE", Right: true}, output.Column{Title: "OWN", Right: true},
		output.Column{Title: "SHARED", Right: true}, output.Column{Title: "STORED", Right: true})
	for _, u := range usages {
		t.Row(u.Volume, output.Size(u.Size), output.Size(u.Own), output.Size(u.Shared), output.Size(u.Stored))
	}
	return t.Write(w, output.Width(w))
}
