package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"skerry/cmd/internal/attach"
	"skerry/cmd/internal/control"
	"skerry/cmd/internal/process"
	"skerry/cmd/internal/service"
	"skerry/nbd/kernel"
	"skerry/volume/catalog"
)

type attachCommand struct {
	app        *app
	options    attach.Options
	foreground bool
}

func (a *app) attachCommand() *cobra.Command {
	c := &attachCommand{app: a}
	cmd := &cobra.Command{
		Use:     "attach NAME[@SNAP]|URI [--device /dev/nbdN]",
		Aliases: []string{"map"},
		Short:   "Make a volume a block device of this host",
		Long: `Make a volume or a snapshot a block device of this host, with the kernel's NBD client, and print its path. Needs root, Linux 5.14 or
later, and the kernel's module nbd (modprobe nbd).

If a process of this host serves the volume by NBD, the device is connected to that one. If none does, a server process is started that is
the device's own and ends with it. With a URI, nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH, the server is somebody else's.

A keeper process stays behind. It starts a server of its own anew that has died, and connects the device to a server that is
back: meanwhile I/O waits, at most for --timeout, and then fails. It makes the device larger when the volume is resized. If the keeper itself has
died the device works on; attach it again, which finds the device, prints the same path, and gives it a new keeper.

With --foreground this process is the keeper. SIGTERM or SIGINT ends it and detaches the device, if nothing uses it.`,
		Example: `  skerry attach vm1
  skerry attach golden@v1 --device /dev/nbd3
  mount $(skerry attach vm1) /mnt
  skerry attach 'nbd+unix:///vm1?socket=/run/vm1.sock'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&c.options.Device, "device", "", "the device: `/dev/nbdN`; without it one that is free")
	f.BoolVar(&c.options.ReadOnly, "read-only", false, "a device that cannot be written; snapshots always are")
	f.IntVar(&c.options.Connections, "connections", defaultConnections, "connections to the server, if that allows several")
	f.DurationVar(&c.options.Dead, "timeout", kernel.DefaultDeadTimeout, "how long I/O waits for a server that has died, before it fails")
	f.DurationVar(&c.options.Request, "request-timeout", kernel.DefaultRequestTimeout, "after which a request that was not answered is sent again; longer than storage may hang")
	f.BoolVar(&c.foreground, "foreground", false, "keep the device in this process, until a signal")
	return cmd
}

// defaultConnections is 2 since kernels before 5.16 fail what is under way on the only connection when it breaks.
const defaultConnections = 2

func (c *attachCommand) run(ctx context.Context, arg string) error {
	o := &c.options
	switch {
	case o.Connections < 1 || o.Connections > attach.MaxConnections:
		return usage("--connections %d: want 1 to %d", o.Connections, attach.MaxConnections)
	case o.Dead < time.Second || o.Request < time.Second:
		return usage("--timeout and --request-timeout are at least 1s")
	}
	if o.Device != "" {
		if _, err := kernel.ParsePath(o.Device); err != nil || !filepath.IsAbs(o.Device) {
			return usage("--device %q: want /dev/nbdN", o.Device)
		}
	}
	if c.foreground {
		return c.keep(ctx, arg)
	}
	if err := process.KeepFiles(); err != nil {
		return err
	}
	return c.app.withHost(func(h *attach.Host) error {
		t, err := c.app.target(ctx, h, arg)
		if err != nil {
			return err
		}
		done, err := h.Attach(ctx, t, *o, nil)
		if err != nil {
			return attachError(err)
		}
		return c.tell(done)
	})
}

// keep attaches and is the keeper, until a signal.
func (c *attachCommand) keep(ctx context.Context, arg string) error {
	if err := process.Prepare(ctx, c.app.signals, process.Options{Kernel: true, Logger: c.app.log}); err != nil {
		return err
	}
	if err := process.KeepFiles(); err != nil {
		return err
	}
	return c.app.withHost(func(h *attach.Host) error {
		unit := service.Start(ctx, func(context.Context) error { return nil }, c.app.log)
		defer unit.Stop()
		t, err := c.app.target(ctx, h, arg)
		if err != nil {
			return err
		}
		_, err = h.Attach(ctx, t, c.options, func(d attach.Attached) error {
			unit.Ready(d.Name() + " is " + d.Device)
			return c.tell(d)
		})
		if err != nil {
			return attachError(err)
		}
		return c.letGo(ctx, h, t)
	})
}

// letGo detaches the device at the end of a keeper in the foreground.
func (c *attachCommand) letGo(ctx context.Context, h *attach.Host, t attach.Target) error {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*closeTime)
	defer cancel()
	_, err := h.Detach(closing, t, false)
	switch {
	case err == nil, errors.Is(err, catalog.ErrNotFound): // detached by somebody else
		return nil
	case errors.Is(err, catalog.ErrInUse):
		c.app.print.Note("left attached: %v; skerry attach keeps it again", err)
		return nil
	}
	return err
}

// attachedNow is what attach prints with --json.
type attachedNow struct {
	Device      string `json:"device"`
	Name        string `json:"name"`
	Size        int64  `json:"size"` // bytes
	ReadOnly    bool   `json:"read_only"`
	Connections int    `json:"connections"`
	Server      string `json:"server"`               // its URI
	ServerPID   int    `json:"server_pid,omitempty"` // 0: not of this host
	Own         bool   `json:"own"`                  // the server belongs to the device and ends with it
	Before      bool   `json:"before"`               // it was attached already
}

func (c *attachCommand) tell(d attach.Attached) error {
	p := &c.app.print
	switch {
	case d.Before && !d.Connected:
		p.Note("%s is attached and waits for its server; skerry attached shows when it is back", d.Name())
	case d.Before:
		p.Note("%s is attached already", d.Name())
	case d.Server.Own:
		p.Note("started a server for %s, process %d; it ends with: skerry detach %s", d.Name(), d.Server.Process.PID, d.Name())
	default:
		p.Note("connected to the server of %s at %s", d.Name(), d.Server.URI)
	}
	now := attachedNow{d.Device, d.Name(), d.Size, d.ReadOnly, d.Connections, d.Server.URI, d.Server.Process.PID, d.Server.Own, d.Before}
	return p.Result(now, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, d.Device)
		return err
	})
}

// attachError gives an error of a keeper the next step that it came with.
func attachError(err error) error {
	var server *attach.ServerError
	var keeper *attach.Failed
	switch {
	case errors.As(err, &server) && server.Next != "":
		return advised{err, server.Next}
	case errors.As(err, &keeper) && keeper.Next != "":
		return advised{err, keeper.Next}
	}
	return err
}

// withHost calls do with what attaches devices to this host.
func (a *app) withHost(do func(*attach.Host) error) error {
	k, err := attach.OpenKernel()
	if err != nil {
		return err
	}
	err = do(&attach.Host{
		Dir:    a.attachDirectory(),
		Kernel: k,
		Lookup: a.lookup,
		Serve:  a.serverProcess,
		Keep:   func(key string) (*exec.Cmd, error) { return a.self("--verbose", keepCommand, key) },
		Log:    a.log,
		Tick:   attach.DefaultTick,
	})
	return errors.Join(err, k.Close())
}

// attachDirectory returns where the records of devices are. Root has it where control sockets are without XDG_RUNTIME_DIR: that of a login is removed at
// its end, which devices outlive, and services have none.
func (a *app) attachDirectory() string {
	getenv := a.env.Getenv
	if a.env.Root {
		getenv = func(string) string { return "" }
	}
	return filepath.Join(control.Directory(getenv), "attach")
}

// self returns a command that runs this program, with the configuration of this run.
func (a *app) self(args ...string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	all := []string{"--json"}
	if a.configFile != "" {
		path, err := filepath.Abs(a.configFile)
		if err != nil {
			return nil, err
		}
		all = append(all, "--config", path)
	}
	c := exec.Command(program, append(all, args...)...)
	// What systemd told this process is not meant for those that it starts, and these outlive the login.
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return a.env.Root && strings.HasPrefix(v, "XDG_RUNTIME_DIR=") || strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "WATCHDOG_") || strings.HasPrefix(v, "LISTEN_")
	})
	return c, nil
}

// serverProcess returns the command that serves a target for a device.
func (a *app) serverProcess(t attach.Target, readOnly bool, socket string) (*exec.Cmd, error) {
	args := []string{"--pool", t.Pool, "serve", t.Name(), "--nbd", "unix:" + socket}
	if readOnly && t.Snapshot == "" {
		args = append(args, "--read-only")
	}
	return a.self(args...)
}

// lookup returns what the pool of a target has under its name.
func (a *app) lookup(ctx context.Context, t attach.Target) (attach.Found, error) {
	where, err := a.poolOf(t.Pool)
	if err != nil {
		return attach.Found{}, err
	}
	var f attach.Found
	err = a.inSession(ctx, where, false, func(ctx context.Context, s *session) error {
		i, err := s.pool.Info(ctx, t.Volume)
		if err != nil {
			return err
		}
		f.ID = i.ID.String()
		if i.Holder != nil {
			f.Holder = viewHolder(i.Holder)
			if c, ok := s.client(*i.Holder, infoTime); ok {
				f.Reach = c
			}
		}
		if t.Snapshot == "" {
			return nil
		}
		for _, snap := range i.Snapshots {
			if snap.Name == t.Snapshot && !snap.Deleting {
				f.Created = snap.Created
				return nil
			}
		}
		return fmt.Errorf("snapshot %s: %w; skerry ls %s shows its snapshots", t.Name(), catalog.ErrNotFound, t.Volume)
	})
	return f, err
}

// target returns what an argument means: a URI, a volume or a snapshot.
func (a *app) target(ctx context.Context, h *attach.Host, arg string) (attach.Target, error) {
	if isURI(arg) {
		uri, err := attach.ParseURI(arg)
		if err != nil {
			return attach.Target{}, usageError(err)
		}
		return attach.Target{URI: uri}, nil
	}
	t, err := a.named(arg)
	if err != nil {
		return t, err
	}
	f, err := h.Lookup(ctx, t)
	if err != nil {
		return t, err
	}
	t.ID, t.Created = f.ID, f.Created
	return t, nil
}

// named returns the target of a name, without what only the pool knows.
func (a *app) named(arg string) (attach.Target, error) {
	r, err := a.ref(arg)
	if err != nil {
		return attach.Target{}, err
	}
	where, err := a.choosePool()
	if err != nil {
		return attach.Target{}, err
	}
	return attach.Target{Pool: where.String(), Volume: r.Volume, Snapshot: r.Snapshot}, nil
}

func isURI(arg string) bool {
	return strings.HasPrefix(arg, "nbd:") || strings.HasPrefix(arg, "nbd+unix:")
}

// keepCommand is a command of the program's own.
const keepCommand = "__keep"

// attachKeeperCommand is the keeper that attach leaves behind.
func (a *app) attachKeeperCommand() *cobra.Command {
	return &cobra.Command{
		Use:    keepCommand + " KEY",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			const answers = 3 // the descriptor that attach passes
			if _, err := unix.FcntlInt(answers, unix.F_GETFD, 0); err != nil {
				return usage("%s is started by attach", keepCommand)
			}
			if err := process.Prepare(cmd.Context(), a.signals, process.Options{Kernel: true, Logger: a.log}); err != nil {
				return err
			}
			unix.CloseOnExec(answers)
			to := os.NewFile(answers, "answers")
			return a.withHost(func(h *attach.Host) error {
				err := h.RunKeeper(cmd.Context(), args[0], func(r attach.Record, err error) {
					if err := attach.Tell(to, r, err); err != nil {
						a.log.Warn("nobody waits for the device any more", "err", err)
					}
				})
				return err
			})
		},
	}
}
