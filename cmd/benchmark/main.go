package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"skerry/cmd/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "benchmark: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	program, dir, out, results string
	rows, peers                *regexp.Regexp
	settings                   settings
	render, profile            bool
	null, slow                 string
}

func parse(args []string, errs io.Writer) (options, error) {
	var o options
	var size, rows, peers string
	f := flag.NewFlagSet("benchmark", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&o.program, "skerry", "bin/skerry", "the program that is measured")
	f.StringVar(&o.dir, "dir", os.TempDir(), "where the disks lie while it runs; it needs 22 times -size")
	f.StringVar(&o.out, "out", "", "directory whose benchmarks.md and benchmarks/*.svg are written; without it only tables are printed")
	f.StringVar(&o.results, "results", "", "file for the results as JSON; with -out it is benchmarks/results.json there")
	f.BoolVar(&o.render, "render", false, "do not measure: make documents of the results that are there")
	f.BoolVar(&o.settings.Quick, "quick", false, "two minutes instead of fifteen: smaller disks, shorter, 3 rounds")
	f.StringVar(&size, "size", "", "size of each disk (1G; quick: 128M)")
	f.IntVar(&o.settings.Rounds, "rounds", 0, "rounds (5; quick: 3)")
	f.Float64Var(&o.settings.Seconds, "seconds", 0, "seconds of each measurement (1.5; quick: 0.25)")
	f.Float64Var(&o.settings.Warmup, "warmup", -1, "seconds before each (0.2; quick: 0.05)")
	f.BoolVar(&o.settings.AsMade, "as-made", false, "measure disks as import, cp and qemu-img wrote them, instead of writing them anew in blocks of 4 KiB")
	f.BoolVar(&o.profile, "profile", false, "profiles of all rows, not only of those that miss a goal")
	f.Int64Var(&o.settings.Requests, "requests", 0, "requests of each measurement, instead of a time")
	f.StringVar(&rows, "rows", "", "only rows whose name matches this regular expression")
	f.StringVar(&peers, "peers", "", "only peers whose name matches this regular expression; skerry is always there")
	f.StringVar(&o.null, "serve-null", "", "serve a device of -size that does nothing on a socket, and nothing else")
	f.StringVar(&o.slow, "show-slow", "", "show the pool of -dir in this directory, on a storage that is slow, and nothing else")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("what is %q?", f.Arg(0))
	}
	defaults := settings{Size: 1 << 30, Rounds: 5, Seconds: 1.5, Warmup: 0.2}
	if o.settings.Quick {
		defaults = settings{Size: 128 << 20, Rounds: 3, Seconds: 0.25, Warmup: 0.05}
	}
	var err error
	if o.settings.Size = defaults.Size; size != "" {
		if o.settings.Size, err = config.ParseSize(size); err != nil {
			return o, err
		}
	}
	if o.settings.Rounds == 0 {
		o.settings.Rounds = defaults.Rounds
	}
	if o.settings.Seconds == 0 {
		o.settings.Seconds = defaults.Seconds
	}
	if o.settings.Warmup < 0 {
		o.settings.Warmup = defaults.Warmup
	}
	if o.settings.Size < 4<<20 || o.settings.Size%(1<<20) != 0 || o.settings.Rounds < 1 || o.settings.Seconds <= 0 || o.settings.Requests < 0 {
		return o, errors.New("disks have whole MiB, at least 4, there is at least one round, and it takes time")
	}
	if o.rows, err = regexp.Compile(rows); err == nil {
		o.peers, err = regexp.Compile(peers)
	}
	if o.results == "" && o.out != "" {
		o.results = filepath.Join(o.out, "benchmarks", "results.json")
	}
	if o.render && o.results == "" {
		return o, errors.New("-render needs -out or -results")
	}
	return o, err
}

func run(ctx context.Context, args []string, out, errs io.Writer) error {
	o, err := parse(args, errs)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if o.null != "" {
		return serveNullUntil(ctx, o.null, o.settings.Size)
	}
	if o.slow != "" {
		return showSlowUntil(ctx, o.slow, o.dir)
	}
	var r report
	if o.render {
		text, err := os.ReadFile(o.results)
		if err == nil {
			err = json.Unmarshal(text, &r)
		}
		if err != nil {
			return err
		}
	} else {
		r, err = o.measure(ctx, errs)
		if o.results != "" && len(r.Rows) > 0 { // also what was measured before an error
			err = errors.Join(err, r.save(o.results))
		}
		if err != nil {
			return err
		}
	}
	if o.out == "" {
		_, err := io.WriteString(out, r.markdown(false))
		return err
	}
	return r.document(o.out)
}

// save writes the results as JSON.
func (r *report) save(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o644)
	}
	return err
}

// measure measures all rows that are wanted.
func (o *options) measure(ctx context.Context, errs io.Writer) (r report, err error) {
	begun := time.Now()
	program, err := filepath.Abs(o.program)
	if err != nil {
		return report{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return report{}, err
	}
	dir, err := os.MkdirTemp(o.dir, "skb-")
	if err != nil {
		return report{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bed := &bed{dir: dir, size: o.settings.Size, program: program, self: self, made: map[string]bool{}}
	if err := bed.makeSource(); err != nil {
		return report{}, err
	}
	b := &bench{bed: bed, settings: o.settings, log: log.New(errs, "", log.Ltime), all: o.profile, wanted: func(name string) bool {
		return name == skerry || o.peers.MatchString(name)
	}}
	r = report{Machine: describe(ctx, bed), Settings: o.settings}
	for _, row := range rows() {
		if !o.rows.MatchString(row.id) {
			continue
		}
		done, err := b.row(ctx, row)
		if err != nil {
			return r, err
		}
		r.Rows = append(r.Rows, done)
	}
	r.Machine.LoadAfter = averageLoad()
	if err := b.profiles(ctx, &r); err != nil {
		return r, err
	}
	r.Took = time.Since(begun)
	return r, nil
}
