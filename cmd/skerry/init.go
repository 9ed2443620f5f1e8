package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/config"
	"skerry/volume/catalog"
)

type initResult struct {
	Pool    string `json:"pool"`    // URL
	Created bool   `json:"created"` // false: it was there, and --if-missing was given
}

func (a *app) initCommand() *cobra.Command {
	var ifMissing bool
	c := &cobra.Command{
		Use:   "init [POOL]",
		Short: "Create a pool",
		Long: `Create a pool: the directory, if it is missing, and in it the record that makes it a pool. The pool
is that of --pool if no argument names it. Fails with exit code 12 if there is a pool already.`,
		Example: `  skerry init /srv/vms
  skerry init --pool file:///srv/vms --if-missing`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if a.pool != "" && a.pool != args[0] {
					return usage("two pools: %q and --pool %q", args[0], a.pool)
				}
				a.pool = args[0]
			}
			return a.initPool(cmd.Context(), ifMissing)
		},
	}
	c.Flags().BoolVar(&ifMissing, "if-missing", false, "be content if there is a pool already")
	return c
}

func (a *app) initPool(ctx context.Context, ifMissing bool) error {
	where, err := a.choosePool()
	if err != nil {
		return err
	}
	created := true
	err = a.makePool(ctx, where)
	if errors.Is(err, catalog.ErrPoolExists) && ifMissing {
		created, err = false, nil
	}
	if err != nil {
		return about("create pool", where.String(), err)
	}
	return a.print.Result(initResult{Pool: where.String(), Created: created}, func(io.Writer) error {
		if created {
			a.print.Note("created pool %s", where)
		} else {
			a.print.Note("pool %s was there", where)
		}
		return nil
	})
}

func (a *app) makePool(ctx context.Context, where config.Pool) error {
	e, err := a.openEngine(where, true)
	if err != nil {
		return err
	}
	err = catalog.Init(ctx, e)
	if cerr := e.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close: %w", cerr))
	}
	return err
}
