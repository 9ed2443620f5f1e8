package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
)

// infoSnapshot is what info prints of a snapshot with --json.
type infoSnapshot struct {
	Volume string `json:"volume"`
	Sealed string `json:"sealed,omitempty"` // hash of the content when it was sealed
	control.Snapshot
}

func (a *app) infoCommand() *cobra.Command {
	var libvirt libvirtFlags
	c := &cobra.Command{
		Use:     "info NAME[@SNAP]",
		Aliases: []string{"show"},
		Short:   "Show what there is to know about a volume or a snapshot",
		Long: `Show what there is to know about a volume or a snapshot. If a living process of this
host holds the volume, that one is asked.

With --libvirt, print what gives it to a libvirt domain: a <disk> element with the NBD address or the file that a process of this
host shows it at now, or with --nbd or --fuse where one will. Snapshots are read-only. At an I/O error the guest stops, and goes on
where it was by virsh resume.`,
		Example: `  skerry info vm1
  skerry info golden@v1 --json
  skerry info vm1 --libvirt --target vdb > disk.xml && virsh attach-device guest disk.xml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.ref(args[0])
			if err != nil {
				return err
			}
			if err := libvirt.check(cmd); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				if libvirt.wanted {
					return libvirt.print(ctx, s, a, r)
				}
				v, err := s.describe(ctx, r.Volume)
				if err != nil {
					return err
				}
				if r.Snapshot == "" {
					return a.print.Result(v, func(w io.Writer) error { return volumeText(w, v) })
				}
				return a.snapshotInfo(ctx, s, r, v)
			})
		},
	}
	libvirt.add(c)
	return c
}

// infoTime is how long the holder of a volume has to describe it.
const infoTime = 2 * time.Second

// describe returns what there is to know about a volume.
func (s *session) describe(ctx context.Context, name string) (control.Volume, error) {
	i, err := s.pool.Info(ctx, name)
	if err != nil || i.Holder == nil {
		return viewFull(i), err
	}
	if c, ok := s.client(*i.Holder, infoTime); ok {
		v, err := c.Info(ctx, name)
		if !errors.Is(err, control.ErrGone) {
			return v, err
		}
	}
	return viewFull(i), nil // what the storage says
}

func (a *app) snapshotInfo(ctx context.Context, s *session, r catalog.Ref, v control.Volume) error {
	for _, snap := range v.Snapshots {
		if snap.Name == r.Snapshot {
			sum, sealed, err := s.pool.SealOf(ctx, r)
			if err != nil {
				return err
			}
			text := ""
			if sealed {
				text = sum.String()
			}
			return a.print.Result(infoSnapshot{r.Volume, text, snap}, func(w io.Writer) error {
				return fields(w, [][2]string{
					{"Snapshot", r.String()},
					{"Size", output.Size(snap.Size)},
					{"Created", timeText(snap.Created)},
					{"Clones", dash(strings.Join(snap.Clones, ", "))},
					{"Sealed", dash(text)},
				})
			})
		}
	}
	return noSnapshot(r)
}

func noSnapshot(r catalog.Ref) error {
	return fmt.Errorf("snapshot %s: %w; skerry ls %s shows its snapshots", r, catalog.ErrNotFound, r.Volume)
}

func volumeText(w io.Writer, v control.Volume) error {
	rows := [][2]string{
		{"Volume", v.Name},
		{"Id", v.ID},
		{"Size", output.Size(v.Size)},
		{"Chunks", output.Size(v.ChunkSize)},
		{"Created", timeText(v.Created)},
		{"State", v.State},
		{"Generation", strconv.FormatUint(uint64(v.Generation), 10)},
		{"Parent", dash(v.Parent)},
		{"Holder", holderText(v.Holder)},
		{"Snapshots", strconv.Itoa(len(v.Snapshots))},
	}
	if v.Source != nil {
		rows = append(rows, [2]string{"Image", sourceText(v.Source)})
	}
	if err := fields(w, rows); err != nil || len(v.Snapshots) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return snapshotTable(w, v.Snapshots)
}

func holderText(h *control.Holder) string {
	if h == nil {
		return "-"
	}
	return fmt.Sprintf("process %d on %s since %s", h.PID, h.Host, timeText(h.Since))
}

// fields writes names and values, one pair a line.
func fields(w io.Writer, rows [][2]string) error {
	for _, r := range rows {
		if _, err := fmt.Fprintf(w, "%-11s %s\n", r[0]+":", r[1]); err != nil {
			return err
		}
	}
	return nil
}
