package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
)

func (a *app) restoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "restore NAME|ID [NEW]",
		Aliases: []string{"undelete"},
		Short:   "Take a volume out of the trash",
		Long: `Take a volume out of the trash, with its snapshots, under the name that it had, or under a new one if that is taken. Of several
volumes that had the name, it is the one that was removed last; ls --trash shows them all, and their ids.`,
		Example: `  skerry restore vm1
  skerry restore vm1 vm1-old
  skerry restore a9e66431b184f5c9bb569e14643214a1 vm1-old`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			which, err := a.volume(args[0])
			if err != nil {
				return err
			}
			name := ""
			if len(args) == 2 {
				if name, err = a.volume(args[1]); err != nil {
					return err
				}
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				i, err := s.pool.Restore(ctx, which, name)
				if err != nil {
					return err
				}
				return a.print.Result(viewVolume(i), func(io.Writer) error {
					a.print.Note("restored %s, %s", i.Name, output.Size(i.Size))
					return nil
				})
			})
		},
	}
}

// trashView is a volume in the trash as ls --trash shows it.
type trashView struct {
	Name      string    `json:"name"` // that it had
	ID        string    `json:"id"`
	Size      int64     `json:"size"`
	Snapshots int       `json:"snapshots"`
	Removed   time.Time `json:"removed"`
	Until     time.Time `json:"until"` // the zero time: until it is removed with --now
	Problem   string    `json:"problem,omitempty"`
}

func viewTrash(i catalog.TrashInfo) trashView {
	v := trashView{Name: i.Name, ID: i.ID.String(), Size: i.Size, Snapshots: i.Snapshots, Removed: i.Since, Until: i.Until}
	if i.Err != nil {
		v.Problem = i.Err.Error()
	}
	return v
}

func (a *app) listTrash(ctx context.Context, s *session) error {
	infos, err := s.pool.Trash(ctx)
	if err != nil {
		return about("ls", s.where.String(), err)
	}
	all := make([]trashView, 0, len(infos))
	for _, i := range infos {
		all = append(all, viewTrash(i))
		if i.Err != nil {
			a.print.Note("volume %v in the trash is damaged: %v", i.ID, i.Err)
		}
	}
	return a.print.Result(all, func(w io.Writer) error {
		t := output.NewTable(output.Column{Title: "NAME"}, output.Column{Title: "ID", Right: true}, output.Column{Title: "SIZE", Right: true},
			output.Column{Title: "REMOVED"}, output.Column{Title: "UNTIL"})
		for _, v := range all {
			t.Row(dash(v.Name), v.ID, output.Size(v.Size), timeText(v.Removed), timeText(v.Until))
		}
		return t.Write(w, output.Width(w))
	})
}
