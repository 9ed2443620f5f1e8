package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"skerry/cmd/internal/control"
	"skerry/cmd/internal/exports"
	"skerry/cmd/internal/process"
	"skerry/cmd/internal/service"
	"skerry/fuse"
	"skerry/locking"
	"skerry/nbd"
	"skerry/volume/catalog"
)

// drainTime bounds the wait for requests in flight, for clients that do not read their replies, and for programs that have files open, at the
// end.
const drainTime = 10 * time.Second

// exporting is a command that shows volumes until it is told to end: as NBD devices, as files, or as both.
type exporting struct {
	app        *app
	verb       string
	nbd        []string
	dir        string // to mount; empty: none
	readOnly   bool
	allowOther bool
	group      string // that may connect to Unix sockets
	lock       bool
}

// readyResult is what such a command prints with --json once it is ready.
type readyResult struct {
	Mount string   `json:"mount,omitempty"`
	URIs  []string `json:"uris,omitempty"`
}

// flags adds the flags that serve and mount share.
func (s *exporting) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&s.nbd, "nbd", nil, "`ADDRESS` to serve NBD on; may be given several times")
	c.Flags().StringVar(&s.group, "group", "", "let members of `GROUP` connect to Unix sockets; hypervisors run as users of their own")
	c.Flags().BoolVar(&s.readOnly, "read-only", false, "refuse every change; the leases are taken all the same")
	addLockFlag(c.Flags(), &s.lock)
}

func (s *exporting) run(ctx context.Context, args []string) error {
	if len(s.nbd) == 0 && service.Passed() {
		s.nbd = []string{"systemd:"}
	}
	if len(s.nbd) == 0 && s.dir == "" {
		return usage("serve: say where with --nbd, for example --nbd unix:/run/vm1.sock")
	}
	group, err := groupID(s.group)
	if err != nil {
		return err
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
		ad.group = group
		addresses = append(addresses, ad)
	}
	names, err := s.names(args)
	if err != nil {
		return err
	}
	o := process.Options{Lock: s.lock, Kernel: s.dir != "", FUSE: s.dir != ""}
	return s.app.serving(ctx, o, func(ctx context.Context, open *session, unit *service.Unit) error {
		err := s.export(ctx, open, unit, names, addresses)
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // ended by a signal before it was ready
		}
		return err
	})
}

// names reads what is to be shown; each once.
func (s *exporting) names(args []string) ([]string, error) {
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

func (s *exporting) export(ctx context.Context, open *session, unit *service.Unit, names []string, addresses []address) (err error) {
	x := exports.New(open.pool, exports.Options{Names: names, ReadOnly: s.readOnly, Logger: s.app.log, Remove: open.removeFile, Space: open.space})
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
		err = fmt.Errorf("%s: %w", s.verb, err)
		if errors.Is(err, fs.ErrPermission) {
			err = advised{err, "choose an address where this user may listen: a Unix socket in a directory that is theirs, or a TCP port above 1023"}
		}
		return err
	}
	closeAll := func(err error) error {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	for _, l := range listeners {
		if ad := (address{network: l.Addr().Network(), where: l.Addr().String()}); ad.network == "tcp" && !ad.loopback() {
			s.app.print.Note("serving on %s without encryption or passwords: whoever reaches it may use the volumes", ad.where)
		}
	}
	shows := control.Shows{NBD: exportURIs(names, listeners), ReadOnly: s.readOnly}
	var mount *fuse.Server
	if s.dir != "" {
		if mount, err = s.mount(open, x, len(names) > 0); err != nil {
			return closeAll(err)
		}
		s.dir = mount.Dir()
		shows.Mounts = []string{s.dir}
	}
	open.shows.set(shows)
	defer open.shows.set(control.Shows{})
	if err := s.ready(shows.NBD); err != nil {
		if mount != nil {
			err = errors.Join(err, s.unmount(context.WithoutCancel(ctx), mount))
		}
		return closeAll(err)
	}
	unit.Ready(servingStatus(names))
	g, serving := errgroup.WithContext(ctx)
	if len(listeners) > 0 {
		s.serveNBD(ctx, serving, g, x, listeners)
	}
	if mount != nil {
		g.Go(func() error {
			select {
			case <-mount.Ended():
				return errUnmounted
			case <-serving.Done():
				return s.unmount(context.WithoutCancel(ctx), mount)
			}
		})
	}
	if err := g.Wait(); err != nil && !errors.Is(err, errUnmounted) {
		return fmt.Errorf("%s: %w", s.verb, err)
	}
	return nil
}

// errUnmounted says that somebody has unmounted the directory, which ends the command.
var errUnmounted = errors.New("unmounted")

// serveNBD serves NBD until serving ends.
func (s *exporting) serveNBD(ctx, serving context.Context, g *errgroup.Group, x *exports.Table, listeners []net.Listener) {
	server := nbd.NewServer(x.NBD(), nbd.Options{Logger: s.app.log, Errno: leaseErrno})
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
}

// mount shows the exports as files.
func (s *exporting) mount(open *session, x *exports.Table, fixed bool) (*fuse.Server, error) {
	m, err := fuse.Mount(s.dir, x.FUSE(), fuse.Options{
		Logger: s.app.log, Source: open.where.String(), ReadOnly: s.readOnly, Fixed: fixed, AllowOther: s.allowOther,
	})
	switch {
	case errors.Is(err, syscall.EBUSY):
		err = advised{err, "end that mount with: skerry umount " + s.dir}
	case err != nil && os.Geteuid() != 0:
		err = advised{err, "users other than root need fusermount3 (Debian: fuse3), the right to open /dev/fuse, and a directory that is theirs"}
	}
	return m, err
}

// unmountStep is the time between two tries to unmount what programs use: the kernel does not tell when they have ended.
const unmountStep = 200 * time.Millisecond

// unmount ends a mount: when no program uses it any more, or else after drainTime, when files that are still open begin to fail.
func (s *exporting) unmount(ctx context.Context, m *fuse.Server) error {
	draining, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	told := false
	for {
		err := m.Unmount(ctx)
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		if !told {
			s.app.log.Warn("programs use the mount; it is cut off from them if they do not end", "mount", m.Dir(), "users", fuse.Users(m.Dir()), "after", drainTime)
			told = true
		}
		select {
		case <-time.After(unmountStep):
		case <-m.Ended():
			return nil
		case <-draining.Done():
			s.app.log.Warn("mount was cut off from programs that use it; what they had written is kept", "mount", m.Dir())
			return m.Cut(ctx)
		}
	}
}

// removeFile does what rm without options does.
func (s *session) removeFile(ctx context.Context, r catalog.Ref) error {
	var err error
	if r.Snapshot == "" {
		_, err = s.removeVolume(ctx, r, removeOptions{})
	} else {
		_, err = s.removeSnapshotAnywhere(ctx, r)
	}
	return err
}

// space returns what the storage of the pool has.
func (s *session) space(context.Context) (fuse.Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.where.Path, &st); err != nil {
		return fuse.Space{}, err
	}
	block := st.Frsize
	return fuse.Space{Total: int64(st.Blocks) * block, Free: int64(st.Bfree) * block, Available: int64(st.Bavail) * block}, nil
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
func (s *exporting) ready(uris []string) error {
	return s.app.print.Result(readyResult{Mount: s.dir, URIs: uris}, func(w io.Writer) error {
		lines := uris
		if s.dir != "" {
			lines = append([]string{s.dir}, uris...)
		}
		_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
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
