package process

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
)

// MemoryLimit is the memory limit of the Go runtime, in bytes, unless GOMEMLIMIT sets another one.
// An NBD server's requests take up to 512 MiB of it; docs/processes.md has the whole account.
const MemoryLimit = 768 << 20

// Options say what [Prepare] does beyond what is always right.
type Options struct {
	Lock   bool         // lock the memory; it is an error if that is not possible
	Kernel bool         // the kernel of this host is a client for certain, not only if someone connects it
	FUSE   bool         // see [PrepareFUSE]
	Logger *slog.Logger // told once of what cannot be had; nil: nobody
}

// Prepare makes the process fit to serve its own host. It is called before anything is opened or started: it may begin the program
// again, with the same arguments, environment, process id and inherited files. ctx ends with the signals; if one has come the program does not
// begin again. It returns an error only then, or if the memory is to be locked and cannot be.
func Prepare(ctx context.Context, signals *Signals, o Options) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	err := becomeFlusher(ctx, signals)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		level := slog.LevelWarn
		if !o.Kernel && os.Geteuid() != 0 {
			level = slog.LevelInfo // who may not connect the kernel has other clients
		}
		o.Logger.Log(ctx, level, "block devices and mounts of this host that this process serves may hang when memory is short; "+
			"against that it needs CAP_SYS_RESOURCE", "err", err)
	}
	if os.Getenv("GOMEMLIMIT") == "" && debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(MemoryLimit)
	}
	if o.FUSE {
		PrepareFUSE()
	}
	if o.Lock {
		if err := lockMemory(); err != nil {
			return fmt.Errorf("lock the memory: %w", err)
		}
	}
	return nil
}
