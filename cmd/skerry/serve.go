package main

import (
	"github.com/spf13/cobra"
)

func (a *app) serveCommand() *cobra.Command {
	s := &exporting{app: a, verb: "serve"}
	c := &cobra.Command{
		Use:   "serve [NAME[@SNAP]...] --nbd ADDRESS",
		Short: "Show volumes to hypervisors as NBD devices",
		Long: `Show volumes and snapshots as NBD devices, in the foreground, until SIGTERM or SIGINT: then requests in
flight end, all is flushed, the leases are released, and the exit code is 0. A second signal ends the process at once.

The leases of the named volumes are taken first; when clients can connect, the URIs are printed, one a line.
Without names every volume of the pool and every snapshot is served, and each volume is leased from its first
connection to its last. Snapshots are read-only. With --read-only volumes are leased too: only the holder knows what was written
last. What is to be read beside the process that writes it is served as a snapshot.

An address is unix:/path, tcp:host:port (tcp:port is on 127.0.0.1), or an NBD URI: nbd+unix:///NAME?socket=/path
or nbd://host:port/NAME. Sockets have mode 0600, or 0660 with --group; one that a dead process left is replaced. NBD over TCP has neither
encryption nor passwords here: whoever reaches the port may write. systemd: stands for the sockets on which systemd listens
for this process, systemd:NAME for those of that name (FileDescriptorName); without --nbd they are taken if there are any.
They go on listening when this process ends, so that clients which connect again only wait for the next one.

The process tells systemd when clients can connect (Type=notify). If it may, it marks itself as one that devices of this host depend on,
and its memory is bounded; --mlock keeps it from being swapped out.`,
		Example: `  skerry serve vm1 --nbd unix:/run/vm1.sock
  skerry serve --nbd tcp:10809 --read-only
  systemd-socket-activate -E SKERRY_POOL -l /run/vm1.sock skerry serve vm1
  skerry serve 'golden@v1' vm1 --nbd 'nbd+unix:///?socket=/run/vms.sock'`,
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd.Context(), args) },
	}
	s.flags(c)
	return c
}
