package main

import (
	"context"

	"github.com/spf13/pflag"

	"skerry/chunk"
	"skerry/cmd/internal/process"
	"skerry/cmd/internal/service"
	"skerry/drivers"
)

// addLockFlag adds the flag that sets [process.Options.Lock].
func addLockFlag(flags *pflag.FlagSet, lock *bool) {
	flags.BoolVar(lock, "mlock", false, "keep the memory of this process from being swapped out or dropped")
}

// serving is holding, for processes that show volumes to programs or to the kernel until a signal comes: it makes
// them fit to serve their own host, and a service of systemd. do calls unit.Ready. Nothing may have been opened or started before,
// as the program may begin anew.
func (a *app) serving(ctx context.Context, o process.Options, do func(ctx context.Context, s *session, unit *service.Unit) error) error {
	o.Logger = a.log
	if err := process.Prepare(ctx, a.signals, o); err != nil {
		return err
	}
	return a.holding(ctx, func(ctx context.Context, s *session) error {
		unit := service.Start(ctx, s.alive, a.log)
		defer unit.Stop()
		return do(ctx, s, unit)
	})
}

// alive returns when the storage has answered in the lane in which guests wait for it.
func (s *session) alive(ctx context.Context) error {
	_, err := s.engine.Client(drivers.LaneGuest, 0, nil).Stat(ctx, chunk.PoolName)
	return err
}
