package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/attach"
	"skerry/drivers"
)

// detached is what detach prints with --json.
type detached struct {
	Device string   `json:"device"`
	Name   string   `json:"name"`
	Lost   string   `json:"lost,omitempty"`    // why what was written and not flushed may be lost
	UsedBy []string `json:"used_by,omitempty"` // what used the device when it was taken away
}

func (a *app) detachCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:     "detach NAME[@SNAP]|URI|/dev/nbdN",
		Aliases: []string{"unmap"},
		Short:   "Take a block device of a volume away",
		Long: `Take the block device of a volume or a snapshot away. All that was written is flushed, the keeper ends, and the server if it
belonged to the device; then the lease is released. A device that is mounted or open is left as it is, with exit code 13.

With --force the device goes in any case, also when its server does not answer: I/O that waits and I/O to come fail with EIO. What was
flushed before is safe; what was only written may be lost, and the message says so. A file system that is mounted on it has to be unmounted all the
same; until then the device stays in the list as ending.`,
		Example: `  skerry detach vm1
  skerry detach /dev/nbd0
  skerry detach vm1 --force`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return a.attachedNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.detach(cmd.Context(), args[0], force) },
	}
	c.Flags().BoolVar(&force, "force", false, "also when it is in use or its server is dead; pending I/O fails")
	return c
}

func (a *app) detach(ctx context.Context, arg string, force bool) error {
	return a.withHost(func(h *attach.Host) error {
		t, err := a.attachedTarget(ctx, h, arg)
		if err != nil {
			return err
		}
		d, err := h.Detach(ctx, t, force)
		if errors.Is(err, drivers.ErrUnavailable) {
			return advised{err, "skerry attach " + arg + " brings the server back; skerry detach " + arg + " --force gives up what is not flushed"}
		}
		if err != nil {
			return err
		}
		if d.Unflushed != "" {
			a.print.Note("what was written to %s and not flushed may be lost: %s", d.Name(), d.Unflushed)
		}
		if len(d.Uses) > 0 {
			a.print.Note("%s was taken away while it was in use: %s", d.Device, strings.Join(d.Uses, ", "))
		}
		name := d.Name()
		if name == "" {
			name = d.ID // the record is lost, and with it the name
		}
		return a.print.Result(detached{d.Device, name, d.Unflushed, d.Uses}, func(io.Writer) error {
			a.print.Note("detached %s", name)
			return nil
		})
	})
}

// attachedTarget returns what an argument means that should be attached. Records come first: they are there also when the pool is not.
func (a *app) attachedTarget(ctx context.Context, h *attach.Host, arg string) (attach.Target, error) {
	if strings.HasPrefix(arg, "/dev/") {
		return h.ByDevice(arg)
	}
	if !isURI(arg) {
		t, err := a.named(arg)
		if err != nil {
			return t, err
		}
		if known, ok := h.ByName(ctx, t.Pool, t.Name()); ok {
			return known, nil
		}
	}
	return a.target(ctx, h, arg)
}
