package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/doctor"
	"skerry/cmd/internal/output"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor DIR",
		Short: "Examine what a directory promises to a pool",
		Long: `Examine whether a directory is fit for a pool: file system and mount options, exclusive create, atomic link and rename, sync and how long one
takes, locks between processes, sparse files, punching holes, preallocation, reflink, free space. Each is tried, in a directory that is made below
DIR and removed in the end; a pool that is there is not touched.

A check ends with ok, no (nothing depends on it), warn (it works, with the disadvantage that is named) or fail. Where none failed
the exit code is 0, else 1.`,
		Example: `  skerry doctor /var/lib/skerry
  skerry doctor /srv --json | jq .sync.median_ns`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := doctor.Examine(cmd.Context(), args[0], doctor.Options{Locked: lockedForOthers})
			if err != nil {
				return about("doctor", args[0], err)
			}
			return errors.Join(a.print.Result(r, func(w io.Writer) error { return doctorText(w, r) }), unfit(r))
		},
	}
}

func doctorText(w io.Writer, r doctor.Report) error {
	rows := [][2]string{
		{"Directory", r.Directory},
		{"Mounted", strings.TrimSpace(r.FileSystem + " on " + r.Device + " (" + r.Options + ")")},
		{"Free", output.Size(r.Free)},
	}
	if err := fields(w, rows); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	t := output.NewTable(output.Column{Title: "CHECK"}, output.Column{Title: "RESULT"}, output.Column{Title: "WHAT WAS SEEN"})
	for _, c := range r.Checks {
		t.Row(c.Name, string(c.Status), c.Text)
	}
	return t.Write(w, 0) // sentences are not cut: the terminal breaks them
}

// unfit is the error of a directory where something failed.
func unfit(r doctor.Report) error {
	if r.Fit {
		return nil
	}
	var failed []string
	for _, c := range r.Checks {
		if c.Status == doctor.Fail {
			failed = append(failed, c.Name)
		}
	}
	return advised{
		fmt.Errorf("%s is not fit for a pool: %s", r.Directory, strings.Join(failed, ", ")),
		"choose a directory on a local file system such as ext4, xfs or btrfs",
	}
}

// lockProbe is a command of the program's own: doctor runs it to look at a lock from another process.
const lockProbe = "__locked"

func (a *app) lockProbeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     lockProbe + " FILE",
		Hidden:  true,
		Short:   "Tell whether a file is locked",
		Long:    `Tell whether a file is locked by another process: doctor asks this.`,
		Example: `  skerry ` + lockProbe + ` FILE`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			locked, err := doctor.Locked(args[0])
			if err != nil {
				return about("lock", args[0], err)
			}
			_, err = fmt.Fprintln(a.print.Out, locked)
			return err
		},
	}
}

// lockedForOthers asks another process of this program whether a file is locked.
func lockedForOthers(ctx context.Context, path string) (bool, error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	out, err := exec.CommandContext(ctx, self, lockProbe, path).Output()
	if err != nil {
		return false, fmt.Errorf("ask another process: %w", err)
	}
	return strings.TrimSpace(string(out)) == "true", nil
}
