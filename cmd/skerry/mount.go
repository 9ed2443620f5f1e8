package main

import (
	"github.com/spf13/cobra"
)

func (a *app) mountCommand() *cobra.Command {
	s := &exporting{app: a, verb: "mount"}
	c := &cobra.Command{
		Use:   "mount DIR [NAME[@SNAP]...]",
		Short: "Show volumes as files in a directory",
		Long: `Show volumes and snapshots as files in a directory, in the foreground, until SIGTERM or SIGINT or until somebody unmounts
it: then all is flushed, the leases are released, and the exit code is 0. When the directory has the files it is printed.

A volume is NAME.raw, a snapshot NAME@SNAP.raw, which is read-only. A volume is leased while its file is open, also for reading: only the
holder knows what was written last. It can then be used neither by another process nor by another host. With names only these are shown, and
they are leased all the time.

What is written to a new file makes a volume; truncate sets the size of one, rm removes it, mv renames it. fsync makes durable what was
written. A volume that is open is not removed, renamed or emptied.

With --nbd the same volumes are served as NBD devices too, by the same process: see skerry serve.

At a signal the mount ends when no program uses it any more. After ten seconds it is taken away from those that still do: their files
fail from then on, and what they had written is kept. A second signal ends the process at once. A mount that a killed process left at DIR
is replaced.`,
		Example: `  skerry mount /mnt/vms
  skerry mount /mnt/vms golden@v1 vm1 --nbd unix:/run/vms.sock
  cp debian.raw /mnt/vms/vm2.raw`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.dir = args[0]; s.dir == "" {
				return usage("mount: the name of the directory is empty")
			}
			return s.run(cmd.Context(), args[1:])
		},
	}
	s.flags(c)
	c.Flags().BoolVar(&s.allowOther, "allow-other", false, "let other users in, as owner and mode of DIR say")
	return c
}
