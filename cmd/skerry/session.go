package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"skerry/cmd/internal/config"
	"skerry/cmd/internal/control"
	"skerry/drivers"
	"skerry/drivers/local"
	"skerry/drivers/source"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/transfer"
)

// session is an open pool.
type session struct {
	pool     *catalog.Pool
	where    config.Pool
	log      *slog.Logger
	identity locking.Identity
	engine   *drivers.Engine
	images   *transfer.Sources // that volumes are still copied from
	mended   bool              // the pool's record was written anew
	control  *controlServer    // nil if the process is not reachable
	shows    shows             // where other programs find volumes
}

// closeTime bounds what a command does after its end or an interruption: release leases, flush.
const closeTime = time.Minute

// choosePool returns the pool that the command works on.
func (a *app) choosePool() (config.Pool, error) { return a.poolOf(a.pool) }

// poolOf returns the pool that a name, a path or a URL stands for; "": the one that is used where none is named.
func (a *app) poolOf(name string) (config.Pool, error) {
	c, err := config.Load(a.configFile, a.env)
	if err != nil {
		return config.Pool{}, err
	}
	return config.ChoosePool(name, c, a.env)
}

// with opens the pool, calls do and closes the pool, in that order.
func (a *app) with(ctx context.Context, do func(ctx context.Context, s *session) error) error {
	return a.withSession(ctx, false, do)
}

// holding is with, for commands that hold volumes for long: others reach them through a control socket.
func (a *app) holding(ctx context.Context, do func(ctx context.Context, s *session) error) error {
	return a.withSession(ctx, true, do)
}

func (a *app) withSession(ctx context.Context, reachable bool, do func(ctx context.Context, s *session) error) error {
	where, err := a.choosePool()
	if err != nil {
		return err
	}
	return a.inSession(ctx, where, reachable, do)
}

// inSession opens a pool, calls do and closes the pool, in that order.
func (a *app) inSession(ctx context.Context, where config.Pool, reachable bool, do func(ctx context.Context, s *session) error) error {
	s, err := a.openSession(ctx, where, reachable)
	if err != nil {
		return about("pool", where.String(), err)
	}
	err = do(ctx, s)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return errors.Join(err, about("close pool", where.String(), s.close(closing)))
}

func (a *app) openSession(ctx context.Context, where config.Pool, reachable bool) (*session, error) {
	s := &session{where: where, log: a.log}
	var err error
	if s.identity, err = locking.LocalIdentity(); err != nil {
		return nil, err
	}
	storage, err := a.openStorage(where, where.Default)
	if err != nil {
		return nil, err
	}
	s.engine, s.images = a.newEngine(storage), transfer.NewSources(storage, s.identity.Boot)
	if reachable {
		s.control = a.startControl(ctx)
		s.identity.Socket = s.control.path()
	}
	if err := a.openPool(ctx, s); err != nil {
		return nil, errors.Join(err, s.control.shutdown(ctx), s.engine.Close())
	}
	s.control.serve(s)
	return s, nil
}

// openPool opens the pool of a session; the default pool is made if it is missing.
func (a *app) openPool(ctx context.Context, s *session) (err error) {
	o := catalog.Options{Identity: s.identity, Logger: a.log, Volume: volume.Options{Logger: a.log}, Sources: s.images}
	if a.mend {
		if s.mended, err = catalog.RepairPool(ctx, s.engine); err != nil {
			return err
		}
	}
	s.pool, err = catalog.Open(ctx, s.engine, o)
	if errors.Is(err, mapper.ErrDamaged) {
		return advised{err, "write it anew with: skerry check --repair"}
	}
	if !errors.Is(err, catalog.ErrNoPool) || !s.where.Default {
		return err
	}
	if err := a.makeDefault(ctx, s); err != nil {
		return err
	}
	s.pool, err = catalog.Open(ctx, s.engine, o)
	return err
}

// makeDefault makes the default local pool, at its first use.
func (a *app) makeDefault(ctx context.Context, s *session) error {
	err := catalog.Init(ctx, s.engine)
	if errors.Is(err, catalog.ErrPoolExists) {
		return nil // another process was quicker
	}
	if err != nil {
		return fmt.Errorf("make the default pool: %w", err)
	}
	a.print.Note("made the default pool %s", s.where)
	return nil
}

// openEngine opens the storage of a pool, and makes its directory if create is set.
func (a *app) openEngine(where config.Pool, create bool) (*drivers.Engine, error) {
	storage, err := a.openStorage(where, create)
	if err != nil {
		return nil, err
	}
	return a.newEngine(storage), nil
}

func (a *app) newEngine(storage drivers.Backend) *drivers.Engine {
	if a.wrap != nil {
		storage = a.wrap(storage)
	}
	return drivers.NewEngine(storage, drivers.Options{Logger: a.log, SlowLog: 5 * time.Second})
}

// openStorage opens the storage of a pool as a backend that can also show images.
func (a *app) openStorage(where config.Pool, create bool) (*source.Backend, error) {
	if create {
		if err := os.MkdirAll(where.Path, 0o700); err != nil {
			return nil, err
		}
	}
	st, err := os.Stat(where.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w here: create one with init", catalog.ErrNoPool)
	}
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("%w: %s is no directory", catalog.ErrNoPool, where.Path)
	}
	b, err := local.Open(where.Path)
	if err != nil {
		return nil, err
	}
	return source.Wrap(b), nil
}

// clean removes what processes that were killed left in the pool's storage beside its objects.
func (s *session) clean(ctx context.Context) error {
	b, err := local.Open(s.where.Path)
	if err != nil {
		return err
	}
	return errors.Join(b.CleanTemp(ctx, ""), b.Close())
}

// close ends the session: first no more calls, then the leases, then the storage.
func (s *session) close(ctx context.Context) error {
	err := s.control.shutdown(ctx)
	err = errors.Join(err, s.pool.Close(ctx))
	return errors.Join(err, s.engine.Close())
}

var _ control.Holds = (*session)(nil)
