package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/config"
	"skerry/cmd/internal/failure"
	"skerry/cmd/internal/output"
	"skerry/cmd/internal/process"
	"skerry/drivers"
)

// app is one run of the program: its streams, its flags and what they decided.
type app struct {
	stdin, stdout *os.File
	print         output.Printer
	env           config.Environment
	log           *slog.Logger
	signals       *process.Signals

	pool       string // --pool, or the pool that the name of a volume began with
	configFile string
	verbose    bool
	mend       bool // the pool's record too, before the pool is opened

	wrap func(drivers.Backend) drivers.Backend // nil but in tests that watch the storage

	understood bool // the command line was; errors before that are wrong usage
}

func newApp(stdin, stdout, stderr *os.File, env config.Environment) *app {
	return &app{
		stdin: stdin, stdout: stdout, env: env,
		print: output.Printer{Out: stdout, Err: stderr},
	}
}

// run does what the arguments say and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	// The first signal asks for a clean end; with the handler gone, a second one ends the process at once.
	ctx, a.signals = process.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer a.signals.Stop()

	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if !a.understood && !errors.Is(err, failure.ErrUsage) {
		err = usageError(err)
	}
	class := failure.Of(err)
	if ctx.Err() != nil {
		class = failure.Of(context.Canceled) // whatever it led to
	}
	f := output.Failure{Error: err.Error(), Exit: class.Exit, Next: class.Next}
	if ctx.Err() == nil {
		var with advised
		var file *fs.PathError
		switch {
		case errors.As(err, &with):
			f.Next = with.next
		case errors.As(err, &file) && file.Path == a.stdout.Name() && class.Exit == failure.ExitNoSpace:
			f.Next = "make room where standard output goes to"
		case class.Exit == failure.ExitUsage:
			f.Next = "see: " + cmd.CommandPath() + " --help"
		}
	}
	a.print.Failure(f)
	return f.Exit
}

func (a *app) rootCommand() *cobra.Command {
	tell := false
	root := &cobra.Command{
		Use:   "skerry",
		Short: "Copy-on-write storage for virtual-machine disks",
		Long: `skerry keeps virtual-machine disks as volumes in a pool: a local directory. Snapshots and clones share
their data copy-on-write and take milliseconds; serve shows volumes to hypervisors as NBD devices, mount as files.

Without --pool, SKERRY_POOL or a configuration, commands work on a default local pool, which is
made at first use: /var/lib/skerry for root, ~/.local/share/skerry for others.

Sizes are powers of two: 20G is 20 GiB. Results go to stdout, all else to stderr.

Exit codes say what kind of error there was: skerry help exit-codes.`,
		Example: `  skerry import debian.qcow2 golden
  skerry snapshot golden@v1
  skerry clone golden@v1 vm1
  skerry serve vm1 --nbd unix:/run/vm1.sock`,
		SuggestionsMinimumDistance: 2,

		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return a.unknownCommand(cmd, args[0])
			}
			if tell {
				return a.printVersion()
			}
			return cmd.Help()
		},
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.start() },
	}
	root.SetOut(a.print.Out)
	root.SetErr(a.print.Err)
	root.CompletionOptions.DisableDefaultCmd = true
	root.Flags().BoolVar(&tell, "version", false, "print the version")
	flags := root.PersistentFlags()
	flags.StringVar(&a.pool, "pool", "", "the pool: a name from the configuration, a path or a `URL`")
	flags.BoolVar(&a.print.JSON, "json", false, "results as JSON, messages as JSON lines")
	flags.StringVar(&a.configFile, "config", "", "configuration `FILE` instead of the system's and the user's")
	flags.BoolVarP(&a.print.Quiet, "quiet", "q", false, "errors only")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log what happens")
	root.AddCommand(
		a.initCommand(), a.createCommand(), a.importCommand(), a.exportCommand(),
		a.snapshotCommand(), a.cloneCommand(), a.copyCommand(), a.rollbackCommand(), a.flattenCommand(), a.resizeCommand(), a.renameCommand(), a.removeCommand(), a.restoreCommand(),
		a.listCommand(), a.infoCommand(), a.duCommand(), a.serveCommand(), a.mountCommand(), a.umountCommand(), a.leaseCommand(),
		a.attachCommand(), a.detachCommand(), a.attachedCommand(), a.attachKeeperCommand(),
		a.benchCommand(),
		a.diffCommand(), a.hashCommand(), a.checkCommand(), a.scrubCommand(), a.gcCommand(), a.versionCommand(),
		a.treeCommand(), a.doctorCommand(), a.lockProbeCommand(), a.completionCommand(), a.manCommand(), exitCodesTopic(),
	)
	a.complete(root)
	a.refuseUnknownTopics(root)
	return root
}

// refuseUnknownTopics makes help of something unknown wrong usage, as the unknown command itself is.
func (a *app) refuseUnknownTopics(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.Args = func(_ *cobra.Command, args []string) error {
				if found, rest, _ := root.Find(args); len(rest) > 0 {
					return a.unknownCommand(found, rest[0])
				}
				return nil
			}
		}
	}
}

func (a *app) unknownCommand(root *cobra.Command, name string) error {
	msg := fmt.Sprintf("unknown command %q", name)
	if s := root.SuggestionsFor(name); len(s) > 0 {
		msg += ", did you mean " + strings.Join(s, " or ") + "?"
	}
	return usage("%s", msg)
}

// start makes what the global flags decide.
func (a *app) start() error {
	if a.verbose && a.print.Quiet {
		return usage("--quiet and --verbose exclude each other")
	}
	a.understood = true
	o := &slog.HandlerOptions{Level: slog.LevelWarn}
	switch {
	case a.verbose:
		o.Level = slog.LevelInfo
	case a.print.Quiet:
		o.Level = slog.LevelError
	}
	if a.print.JSON {
		a.log = slog.New(slog.NewJSONHandler(a.print.Err, o))
	} else {
		a.log = slog.New(slog.NewTextHandler(a.print.Err, o))
	}
	return nil
}

// advised is an error with a next step of its own, instead of that of its class.
type advised struct {
	error
	next string
}

func (a advised) Unwrap() error { return a.error }

// wrongUsage is an error of the one who typed the command.
type wrongUsage struct{ error }

func (w wrongUsage) Is(target error) bool { return target == failure.ErrUsage }

func (w wrongUsage) Unwrap() error { return w.error }

func usageError(err error) error { return wrongUsage{err} }

func usage(format string, args ...any) error { return usageError(fmt.Errorf(format, args...)) }
