package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"skerry/cmd/internal/control"
	"skerry/cmd/internal/exports"
	"skerry/cmd/internal/process"
	"skerry/cmd/internal/service"
	"skerry/locking"
	"skerry/nbd"
)

// drainTime bounds the wait for requests in flight and for clients that do not read their replies, at the end.
const drainTime = 10 * time.Second

type serveCommand struct {
	app      *app
	nbd      []string
	readOnly bool
	lock     bool
}

// serveResult is what serve prints with --json once it is ready.
type serveResult struct {
	URIs []string `json:"uris"`
}

func (a *app) serveCommand() *cobra.Command {
	s := &serveCommand{app: a}
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
or nbd://host:port/NAME. Sockets have mode 0600; one that a dead process left is replaced. NBD over TCP has neither
encryption nor passwords here: whoever reaches the port may write. systemd: stands for the sockets on which systemd listens
for this process, systemd:NAME for those of that name (FileDescriptorName); without --nbd they are taken if there are any.
They go on listening when this process ends, so that clients which connect again only wait for the next one.

The process tells systemd when clients can connect (Type=notify). If it may, it marks itself as one that devices of this host depend on,
and its memory is bounded; --mlock keeps it from being swapped out.`,
		Example: `  skerry serve vm1 --nbd unix:/run/vm1.sock
  skerry serve --nbd tcp:10809 --read-only
  systemd-socket-activate -l /run/vm1.sock skerry serve vm1
  skerry serve 'golden@v1' vm1 --nbd 'nbd+unix:///?socket=/run/vms.sock'`,
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd.Context(), args) },
	}
	c.Flags().StringArrayVar(&s.nbd, "nbd", nil, "`ADDRESS` to serve NBD on; may be given several times")
	c.Flags().BoolVar(&s.readOnly, "read-only", false, "refuse every change; the leases are taken all the same")
	addLockFlag(c.Flags(), &s.lock)
	return c
}

func (s *serveCommand) run(ctx context.Context, args []string) error {
	if len(s.nbd) == 0 && service.Passed() {
		s.nbd = []string{"systemd:"}
	}
	if len(s.nbd) == 0 {
		return usage("serve: say where with --nbd, for example --nbd unix:/run/vm1.sock")
	}
	addresses := make([]address, 0, len(s.nbd))
	for _, text := range s.nbd {
		ad, err := parseAddress(text)
		if err != nil {
			return err
		}
		if ad.export != "" {
			args = append(args, ad.export)
		}
		addresses = append(addresses, ad)
	}
	names, err := s.names(args)
	if err != nil {
		return err
	}
	o := process.Options{Lock: s.lock}
	return s.app.serving(ctx, o, func(ctx context.Context, open *session, unit *service.Unit) error {
		err := s.serve(ctx, open, unit, names, addresses)
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // ended by a signal before it was ready
		}
		return err
	})
}

// names reads what is to be served; each once.
func (s *serveCommand) names(args []string) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for _, arg := range args {
		r, err := s.app.ref(arg)
		if err != nil {
			return nil, err
		}
		if name := r.String(); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names, nil
}

func (s *serveCommand) serve(ctx context.Context, open *session, unit *service.Unit, names []string, addresses []address) (err error) {
	x := exports.New(open.pool, exports.Options{Names: names, ReadOnly: s.readOnly, Logger: s.app.log})
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		err = errors.Join(err, x.Close(closing))
	}()
	if err := x.OpenNamed(ctx); err != nil {
		return err
	}
	passed := service.TakeSockets()
	if passed.Len() > 0 && !slices.ContainsFunc(addresses, func(ad address) bool { return ad.network == "systemd" }) {
		s.app.log.Warn("systemd listens for this process in vain: --nbd systemd: is missing", "sockets", passed.Len())
	}
	listeners, err := listenAll(ctx, addresses, passed)
	err = errors.Join(err, passed.Close())
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	for _, l := range listeners {
		if ad := (address{network: l.Addr().Network(), where: l.Addr().String()}); ad.network == "tcp" && !ad.loopback() {
			s.app.print.Note("serving on %s without encryption or passwords: whoever reaches it may use the volumes", ad.where)
		}
	}
	server := nbd.NewServer(x.NBD(), nbd.Options{Logger: s.app.log, Errno: leaseErrno})
	uris := exportURIs(names, listeners)
	open.shows.set(control.Shows{NBD: uris, ReadOnly: s.readOnly})
	defer open.shows.set(control.Shows{})
	if err := s.ready(uris); err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	unit.Ready(servingStatus(names))
	g, serving := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error {
			err := server.Serve(context.WithoutCancel(ctx), l)
			if errors.Is(err, nbd.ErrServerClosed) {
				return nil // the signal came first
			}
			return err
		})
	}
	g.Go(func() error {
		<-serving.Done()
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		err := server.Shutdown(closing)
		if errors.Is(err, context.DeadlineExceeded) {
			s.app.log.Warn("connections whose replies nobody read, or whose requests did not end, were cut", "after", drainTime)
			return nil // what they had written is flushed like all else
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// exportURIs returns the URIs of the exports behind the listeners; without names one URI a listener.
func exportURIs(names []string, listeners []net.Listener) []string {
	if len(names) == 0 {
		names = []string{""}
	}
	var uris []string
	for _, l := range listeners {
		for _, n := range names {
			uris = append(uris, exportURI(l.Addr(), n))
		}
	}
	return uris
}

// ready tells that clients can connect.
func (s *serveCommand) ready(uris []string) error {
	return s.app.print.Result(serveResult{URIs: uris}, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, strings.Join(uris, "\n"))
		return err
	})
}

// servingStatus says in a line what is served.
func servingStatus(names []string) string {
	if len(names) == 0 {
		return "serving all volumes and snapshots of the pool"
	}
	return "serving " + strings.Join(names, ", ")
}

// leaseErrno says how the end of a lease looks to an NBD client: first as an I/O error, then as the end of the service.
func leaseErrno(err error) (uint32, bool) {
	switch {
	case errors.Is(err, locking.ErrReleased), errors.Is(err, locking.ErrClosed):
		return nbd.ESHUTDOWN, true
	case errors.Is(err, locking.ErrLost):
		return nbd.EIO, true
	}
	return 0, false
}
