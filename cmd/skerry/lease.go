package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
)

// leaseView is what there is to say about a lease.
type leaseView struct {
	Volume     string          `json:"volume"`
	Generation uint32          `json:"generation"`
	State      string          `json:"state"`   // "free", "held", or "stale": its holder is dead
	Holder     *control.Holder `json:"holder"`  // null: free
	Fencing    string          `json:"fencing"` // what keeps a dead or cut-off holder from writing: "os" or "none"
}

func (a *app) leaseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "lease",
		Short: "See who holds volumes",
		Long:  `A lease is the right of one process to write a volume. Every open for writing is a new grant, with a number of its own.`,
		Example: `  skerry lease ls
  skerry lease show vm1`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("lease: unknown command %q, want ls or show", args[0])
			}
			return cmd.Help()
		},
	}
	c.AddCommand(a.leaseListCommand(), a.leaseShowCommand())
	return c
}

func (a *app) leaseListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the leases of all volumes",
		Long: `List the leases of all volumes, and who holds them. A lease is free, held, or stale: then its holder is dead, and the next
open takes over.`,
		Example: `  skerry lease ls`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				infos, err := s.pool.Leases(ctx)
				if err != nil {
					return about("lease ls", s.where.String(), err)
				}
				leases := make([]leaseView, 0, len(infos))
				for _, i := range infos {
					leases = append(leases, viewLease(i))
				}
				return a.print.Result(leases, func(w io.Writer) error { return leaseTable(w, leases) })
			})
		},
	}
}

func leaseTable(w io.Writer, leases []leaseView) error {
	t := output.NewTable(output.Column{Title: "VOLUME"}, output.Column{Title: "STATE"}, output.Column{Title: "HOST"},
		output.Column{Title: "PID", Right: true}, output.Column{Title: "GENERATION", Right: true}, output.Column{Title: "SINCE"})
	for _, l := range leases {
		host, pid, since := "-", "-", time.Time{}
		if l.Holder != nil {
			host, pid, since = l.Holder.Host, strconv.Itoa(l.Holder.PID), l.Holder.Since
		}
		t.Row(l.Volume, l.State, host, pid, strconv.FormatUint(uint64(l.Generation), 10), timeText(since))
	}
	return t.Write(w, output.Width(w))
}

func (a *app) leaseShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show the lease of a volume",
		Long:    `Show who holds a volume, since when, what keeps a dead holder from writing, and where its control socket is.`,
		Example: `  skerry lease show vm1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volume(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				i, err := s.pool.Lease(ctx, name)
				if err != nil {
					return err
				}
				l := viewLease(i)
				return a.print.Result(l, func(w io.Writer) error { return leaseText(w, l) })
			})
		},
	}
}

func leaseText(w io.Writer, l leaseView) error {
	rows := [][2]string{
		{"Volume", l.Volume},
		{"Generation", strconv.FormatUint(uint64(l.Generation), 10)},
		{"State", l.State},
		{"Holder", holderText(l.Holder)},
		{"Fencing", l.Fencing},
	}
	if l.Holder != nil {
		rows = append(rows, [2]string{"Control", dash(l.Holder.Socket)})
	}
	return fields(w, rows)
}

func viewLease(i catalog.LeaseInfo) leaseView {
	l := leaseView{Volume: i.Volume, Generation: i.Generation, State: "free", Fencing: i.Fencing}
	if i.Held {
		l.Holder = viewHolder(&i.Holder)
		l.State = "stale"
		if i.Alive {
			l.State = "held"
		}
	}
	return l
}
