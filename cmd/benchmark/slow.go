package main

import (
	"context"
	"errors"
	"time"

	"skerry/cmd/internal/exports"
	"skerry/cmd/internal/process"
	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/drivers/local"
	"skerry/fuse"
	"skerry/locking"
	"skerry/volume/catalog"
)

// slowCall is how long each call of the slow storage is held up.
const slowCall = time.Millisecond

// showSlowUntil is the program that showSlow starts.
func showSlowUntil(ctx context.Context, dir, pool string) (err error) {
	process.PrepareFUSE()
	files, err := local.Open(pool)
	if err != nil {
		return err
	}
	delay, err := newDelay(slowCall)
	if err != nil {
		return errors.Join(err, files.Close())
	}
	defer func() { err = errors.Join(err, delay.close()) }()
	storage := faulty.Wrap(files)
	storage.SetHook(func(faulty.Call) faulty.Action {
		delay.wait()
		return faulty.Pass()
	})
	engine := drivers.NewEngine(storage, drivers.Options{})
	defer func() { err = errors.Join(err, engine.Close()) }()
	identity, err := locking.LocalIdentity()
	if err != nil {
		return err
	}
	p, err := catalog.Open(ctx, engine, catalog.Options{Identity: identity})
	if err != nil {
		return err
	}
	closing := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, p.Close(closing)) }()
	m, err := fuse.Mount(dir, exports.New(p, exports.Options{}).FUSE(), fuse.Options{})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return m.Unmount(closing)
}
