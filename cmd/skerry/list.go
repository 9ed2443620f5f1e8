package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
)

func (a *app) listCommand() *cobra.Command {
	var trash bool
	c := &cobra.Command{
		Use:     "ls [NAME]",
		Aliases: []string{"list"},
		Short:   "List the volumes of the pool, or the snapshots of a volume",
		Long: `List the volumes of the pool, or with a name the snapshots of that volume, or with --trash the removed volumes that can be
restored. HOLDER is the
process that its lease was granted to and that has not released it; lease ls tells whether it lives.`,
		Example: `  skerry ls
  skerry ls vm1
  skerry ls --json | jq -r .[].name`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if trash && len(args) > 0 {
				return usage("ls --trash: it takes no name")
			}
			if trash {
				return a.with(cmd.Context(), a.listTrash)
			}
			if len(args) == 0 {
				return a.with(cmd.Context(), a.listVolumes)
			}
			name, err := a.volume(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				v, err := s.describe(ctx, name)
				if err != nil {
					return err
				}
				return a.print.Result(v.Snapshots, func(w io.Writer) error { return snapshotTable(w, v.Snapshots) })
			})
		},
	}
	c.Flags().BoolVar(&trash, "trash", false, "volumes in the trash")
	return c
}

func (a *app) listVolumes(ctx context.Context, s *session) error {
	infos, err := s.pool.List(ctx)
	if err != nil {
		return about("ls", s.where.String(), err)
	}
	volumes := make([]control.Volume, 0, len(infos))
	for _, i := range infos {
		volumes = append(volumes, viewVolume(i))
		if i.Err != nil {
			a.print.Note("volume %s is damaged: %v", i.Name, i.Err)
		}
	}
	return a.print.Result(volumes, func(w io.Writer) error {
		t := output.NewTable(output.Column{Title: "NAME"}, output.Column{Title: "SIZE", Right: true},
			output.Column{Title: "STATE"}, output.Column{Title: "PARENT"},
			output.Column{Title: "CREATED"}, output.Column{Title: "HOLDER"})
		for _, v := range volumes {
			t.Row(v.Name, output.Size(v.Size), v.State, dash(v.Parent), timeText(v.Created), holderName(v.Holder))
		}
		return t.Write(w, output.Width(w))
	})
}

func snapshotTable(w io.Writer, snapshots []control.Snapshot) error {
	t := output.NewTable(output.Column{Title: "SNAPSHOT"}, output.Column{Title: "SIZE", Right: true}, output.Column{Title: "CREATED"},
		output.Column{Title: "CLONES", Right: true})
	for _, s := range snapshots {
		t.Row(s.Name, output.Size(s.Size), timeText(s.Created), strconv.Itoa(len(s.Clones)))
	}
	return t.Write(w, output.Width(w))
}

func holderName(h *control.Holder) string {
	if h == nil {
		return "-"
	}
	return h.Host + ":" + strconv.Itoa(h.PID)
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
