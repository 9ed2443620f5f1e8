package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"skerry/cmd/internal/control"
	"skerry/nbd/load"
)

// bench measures rows.
type bench struct {
	bed      *bed
	settings settings
	wanted   func(peer string) bool
	all      bool // profiles of all rows
	served   int  // servers started so far
	log      *log.Logger
}

// makeSource writes the random data that disks begin as. It is the same in every run.
func (b *bed) makeSource() error {
	f, err := os.OpenFile(b.source(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8(sha256.Sum256([]byte("skerry"))), b.size)
	return errors.Join(err, f.Sync(), f.Close())
}

// cacheSource reads the source, so that the page cache holds it.
func (b *bed) cacheSource() error {
	f, err := os.Open(b.source())
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}

// row measures one row.
func (b *bench) row(ctx context.Context, r row) (rowReport, error) {
	report := rowReport{ID: r.id, Title: r.title, Group: r.group, Unit: r.unit}
	if r.image {
		return b.imports(ctx, report)
	}
	some := able(r.disk, b.wanted)
	servers := make([]*server, len(some))
	stopAll := func() (err error) {
		for i, s := range servers {
			if s != nil {
				err = errors.Join(err, s.stop(context.WithoutCancel(ctx)))
			}
			servers[i] = nil
		}
		return err
	}
	if err := b.ready(ctx, some, r.disk); err != nil {
		return report, err
	}
	for i, p := range some {
		report.Peers = append(report.Peers, peerReport{Peer: p.name})
		var err error
		if r.disk != clone {
			servers[i], err = b.start(ctx, p, r.disk)
		}
		if err == nil && r.disk.rewritten() {
			err = b.warm(ctx, servers[i])
		}
		if err != nil {
			return report, errors.Join(err, stopAll())
		}
	}
	for round := range b.settings.Rounds {
		for i := range some {
			at := (i + round) % len(some)
			s, err := b.sample(ctx, r, some[at], servers[at])
			if err != nil {
				return report, errors.Join(fmt.Errorf("%s, %s: %w", r.title, some[at].name, err), stopAll())
			}
			p := &report.Peers[at]
			p.Samples = append(p.Samples, s)
			b.log.Printf("%s, round %d: %s %s, %.1f µs of CPU, p99 %.0f µs", r.title, round+1, p.Peer, show(s.Value, r.unit), s.ServerCPU, s.P99)
		}
	}
	return report, stopAll()
}

func (b *bench) start(ctx context.Context, p peer, d disk) (*server, error) {
	b.served++
	s, err := p.start(ctx, b.bed, d, b.served)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return s, nil
}

// warm reads a disk once, so that the page cache holds it.
func (b *bench) warm(ctx context.Context, s *server) error {
	c := sequential(work(load.Mix{Read: 100}, 1<<20, 4))
	c.Count = max(b.settings.Size/c.Block, 1)
	_, err := b.make(ctx, s, c)
	return err
}

// ready makes the disks of peers that are not there. Full ones are dropped from the page cache and written once, in blocks of
// 4 KiB in random order, through their servers. The pages that are in the cache then are as small as the blocks, whatever wrote the disks
// before: see decision 0030.
func (b *bench) ready(ctx context.Context, some []peer, d disk) error {
	var made []peer
	for _, p := range some {
		is, err := b.bed.ready(ctx, p, d)
		if err != nil {
			return err
		}
		if is {
			made = append(made, p)
		}
	}
	if !d.rewritten() || b.settings.AsMade || len(made) == 0 {
		return nil
	}
	if err := errors.Join(b.settle(), b.bed.uncache()); err != nil {
		return err
	}
	c := shuffled(work(load.Mix{Write: 100}, 4<<10, 16))
	c.Seed = 1
	for _, p := range made {
		s, err := b.start(ctx, p, d)
		if err != nil {
			return err
		}
		_, err = b.make(ctx, s, c)
		if err = errors.Join(err, s.flush(ctx), s.stop(context.WithoutCancel(ctx)), b.settle()); err != nil {
			return fmt.Errorf("write the disk of %s: %w", p.name, err)
		}
	}
	return nil
}

// uncache drops all files of the bed from the page cache. What is not synced stays.
func (b *bed) uncache() error {
	return filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	})
}

// make makes load on a server.
func (b *bench) make(ctx context.Context, s *server, c load.Config) (load.Result, error) {
	switch {
	case s.path != "":
		return b.bed.fio(ctx, s.path, c)
	case s.file != nil:
		return load.RunFile(ctx, s.file, c)
	}
	return load.Run(ctx, s.dial, c)
}

// sample measures once. A disk that is made anew each time has a server of its own.
func (b *bench) sample(ctx context.Context, r row, p peer, s *server) (_ sample, err error) {
	if s == nil {
		if s, err = b.start(ctx, p, r.disk); err != nil {
			return sample{}, err
		}
		defer func() { err = errors.Join(err, s.stop(context.WithoutCancel(ctx)), b.settle()) }()
	}
	c := r.load
	c.Time, c.Warmup = b.seconds(b.settings.Seconds), b.seconds(b.settings.Warmup)
	if b.settings.Requests > 0 {
		c.Time, c.Warmup, c.Count = 0, 0, b.settings.Requests
	}
	c.Seed = rand.Uint64()
	if r.disk == clone {
		c.Warmup = 0 // the first writes are what counts
	}
	before, err := s.usage(ctx)
	if err != nil {
		return sample{}, err
	}
	result, err := b.make(ctx, s, c)
	if err != nil {
		return sample{}, err
	}
	after, err := s.usage(ctx)
	if err != nil {
		return sample{}, err
	}
	m := sample{
		Value: result.IOPS, P50: result.Latency.P50, P99: result.Latency.P99, P999: result.Latency.P999, ClientCPU: result.CPU,
		Memory: after.peak,
	}
	if r.unit == rate {
		m.Value = result.Rate
	}
	for _, k := range result.Kinds {
		if k.Kind == "flush" { // that is what such rows are about
			m.P50, m.P99, m.P999 = k.Latency.P50, k.Latency.P99, k.Latency.P999
		}
	}
	if result.Ended > 0 {
		m.ServerCPU = float64((after.cpu - before.cpu).Nanoseconds()) / 1e3 / float64(result.Ended)
		if s.control != "" {
			n := float64(after.allocations-before.allocations) / float64(result.Ended)
			m.Allocs = &n
		}
	}
	if c.Mix.Changes() && r.disk != none {
		err = errors.Join(s.flush(ctx), b.settle(), s.rest(ctx))
	}
	return m, err
}

const (
	restStep  = 50 * time.Millisecond // five ticks of the processor time that /proc tells
	restLimit = 5 * time.Second
)

// rest waits until the server does nothing in the background, at most restLimit: it would take the processors from those that are measured next.
func (s *server) rest(ctx context.Context) error {
	if s.cmd == nil {
		return nil
	}
	last := time.Duration(-1)
	for until := time.Now().Add(restLimit); time.Now().Before(until); {
		used, err := treeCPU(s.cmd.Process.Pid)
		if err != nil || used == last {
			return err
		}
		last = used
		select {
		case <-time.After(restStep):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (b *bench) seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// settle writes what the file system holds back, so that the next measurement does not have to.
func (b *bench) settle() error {
	d, err := os.Open(b.bed.dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// usage is what a server has used so far.
type usage struct {
	cpu         time.Duration
	peak        int64 // bytes of memory since the usage before
	allocations uint64
}

func (s *server) usage(ctx context.Context) (u usage, err error) {
	if s.cmd == nil {
		return usage{}, nil // the load's own processor time says it
	}
	pid := s.cmd.Process.Pid
	if s.control != "" {
		p, err := control.NewClient(s.control, 0).Process(ctx)
		if err != nil {
			return u, err
		}
		u.allocations = p.Allocations
	}
	if u.cpu, err = treeCPU(pid); err != nil {
		return u, err
	}
	if u.peak, err = treeMemory(pid); err != nil {
		return u, err
	}
	return u, resetPeaks(pid)
}

// imports measures how long an image takes to come in, with a sync at the end.
func (b *bench) imports(ctx context.Context, report rowReport) (rowReport, error) {
	ways := []struct {
		name  string
		begin func() ([]string, error) // before the time counts: the command
		end   func() error             // after it
	}{
		{skerry, func() ([]string, error) {
			_, err := b.bed.skerry(ctx, "init", "-q", "--if-missing")
			return []string{b.bed.program, "import", "-q", b.bed.source(), "imported"}, err
		}, func() error {
			_, err := b.bed.skerry(ctx, "rm", "-q", "imported")
			return errors.Join(err, b.collect(ctx))
		}},
		{cp, func() ([]string, error) {
			return []string{"sh", "-c", `cp --reflink=never --sparse=always "$0" "$1" && sync "$1"`, b.bed.source(), b.bed.path("copy.raw")}, nil
		}, func() error { return remove(b.bed.path("copy.raw")) }},
	}
	for _, w := range ways {
		report.Peers = append(report.Peers, peerReport{Peer: w.name})
	}
	for round := range b.settings.Rounds {
		for i := range ways {
			at := (i + round) % len(ways)
			w := ways[at]
			command, err := w.begin()
			if err == nil {
				err = errors.Join(b.settle(), b.bed.cacheSource())
			}
			if err != nil {
				return report, err
			}
			begun := time.Now()
			_, err = b.bed.run(ctx, command[0], command[1:]...)
			took := time.Since(begun).Seconds()
			if err = errors.Join(err, w.end(), b.settle()); err != nil {
				return report, err
			}
			p := &report.Peers[at]
			p.Samples = append(p.Samples, sample{Value: took})
			b.log.Printf("%s, round %d: %s %s", report.Title, round+1, p.Peer, show(took, seconds))
		}
	}
	return report, nil
}

// collect removes what rm has left.
func (b *bench) collect(ctx context.Context) error {
	_, err := b.bed.skerry(ctx, "gc", "-q")
	return err
}
