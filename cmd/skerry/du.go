package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

// usageView is the space that a volume takes, in bytes.
type usageView struct {
	Volume      string      `json:"volume"`
	State       string      `json:"state"`
	Size        int64       `json:"size"`
	Own         int64       `json:"own"`         // only it and its snapshots reach this
	Shared      int64       `json:"shared"`      // other volumes reach this too
	Reclaimable int64       `json:"reclaimable"` // nothing reaches this
	Problem     string      `json:"problem,omitempty"`
	States      []stateView `json:"states,omitzero"` // with du NAME: its present state, then its snapshots by age
}

// stateView is the space that the present state of a volume, or a snapshot, takes.
type stateView struct {
	Snapshot string `json:"snapshot,omitempty"` // name; empty for the present state and for hidden snapshots
	Hidden   bool   `json:"hidden"`
	Size     int64  `json:"size"`
	Own      int64  `json:"own"`    // only this one reaches it
	Shared   int64  `json:"shared"` // other states of the volume, or other volumes, reach it too
}

// poolUsage is the space that a pool takes, in bytes: stored is pool, shared, removed, and of all volumes own and reclaimable.
type poolUsage struct {
	Volumes []usageView `json:"volumes"`
	Pool    int64       `json:"pool"`    // of the pool itself, its reserve above all
	Shared  int64       `json:"shared"`  // that several volumes reach, each object counted once
	Removed int64       `json:"removed"` // what removed volumes have left: gc gives it back
	Stored  int64       `json:"stored"`
}

func (a *app) duCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "du [NAME]",
		Aliases: []string{"df"},
		Short:   "Show the space that volumes take",
		Long: `Show the space that the volumes of the pool take, as the file system counts it, or that of one volume and each of its snapshots.

OWN is what comes back when the volume is removed with its snapshots, SHARED what other volumes reach too, RECLAIMABLE what nothing
reaches: gc gives it back, of a volume in use once it is no longer. In the total each shared object counts once, so that OWN, SHARED and
RECLAIMABLE of the total add up to what the pool stores. With NAME, OWN of a snapshot is what comes back when it alone is removed.`,
		Example: `  skerry du
  skerry du vm1 --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volumeOrAll(args)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				if name == "" {
					return a.poolUsage(ctx, s)
				}
				return a.volumeUsage(ctx, s, name)
			})
		},
	}
}

func (a *app) poolUsage(ctx context.Context, s *session) error {
	u, err := collect.MeasurePool(ctx, s.pool)
	if err != nil {
		return about("du", s.where.String(), err)
	}
	view := poolUsage{Volumes: make([]usageView, 0, len(u.Volumes)), Pool: u.Pool, Shared: u.Shared, Removed: u.Removed, Stored: u.Stored}
	var damaged error
	for _, v := range u.Volumes {
		view.Volumes = append(view.Volumes, viewUsage(v))
		if damaged == nil && v.Err != nil { // of the others there is something to say
			damaged = about("volume", v.Name, v.Err)
		}
	}
	return errors.Join(a.print.Result(view, func(w io.Writer) error { return usageTable(w, view) }), damaged)
}

func (a *app) volumeUsage(ctx context.Context, s *session, name string) error {
	u, err := collect.MeasureVolume(ctx, s.pool, name)
	if err == nil && u.Err != nil {
		err = u.Err
	}
	if err != nil {
		return aboutRef(catalog.Ref{Volume: name}, err)
	}
	view := viewUsage(u)
	view.States = make([]stateView, 0, len(u.States))
	for _, s := range u.States {
		view.States = append(view.States, stateView{Snapshot: s.Name, Hidden: s.Hidden, Size: s.Size, Own: s.Own, Shared: s.Shared})
	}
	return a.print.Result(view, func(w io.Writer) error { return statesTable(w, view) })
}

func viewUsage(u collect.VolumeUsage) usageView {
	v := usageView{Volume: u.Name, State: u.State, Size: u.Size, Own: u.Own, Shared: u.Shared, Reclaimable: u.Reclaimable}
	if u.Err != nil {
		v.Problem = u.Err.Error()
	}
	return v
}

func newUsageTable() *output.Table {
	return output.NewTable(output.Column{Title: "NAME"}, output.Column{Title: "SIZE", Right: true}, output.Column{Title: "OWN", Right: true},
		output.Column{Title: "SHARED", Right: true}, output.Column{Title: "RECLAIMABLE", Right: true})
}

func usageTable(w io.Writer, u poolUsage) error {
	t := newUsageTable()
	total := usageView{Own: u.Pool, Reclaimable: u.Removed}
	for _, v := range u.Volumes {
		name := v.Volume
		if v.State != "live" {
			name += " (" + v.State + ")"
		}
		t.Row(name, output.Size(v.Size), output.Size(v.Own), output.Size(v.Shared), output.Size(v.Reclaimable))
		total.Size += v.Size
		total.Own += v.Own
		total.Reclaimable += v.Reclaimable
	}
	if u.Removed > 0 {
		t.Row("(removed)", "-", "-", "-", output.Size(u.Removed))
	}
	t.Row("(pool)", "-", output.Size(u.Pool), "-", "-")
	t.Row("total", output.Size(total.Size), output.Size(total.Own), output.Size(u.Shared), output.Size(total.Reclaimable))
	if err := t.Write(w, output.Width(w)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "stored: %s\n", output.Size(u.Stored))
	return err
}

// statesTable shows a volume with its states.
func statesTable(w io.Writer, u usageView) error {
	t := newUsageTable()
	for _, s := range u.States {
		name := u.Volume
		switch {
		case s.Hidden:
			name += "@ (hidden)"
		case s.Snapshot != "":
			name += "@" + s.Snapshot
		}
		t.Row(name, output.Size(s.Size), output.Size(s.Own), output.Size(s.Shared), "-")
	}
	t.Row("total", "-", output.Size(u.Own), output.Size(u.Shared), output.Size(u.Reclaimable))
	return t.Write(w, output.Width(w))
}
