package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/config"
	"skerry/cmd/internal/output"
	"skerry/nbd/client"
	"skerry/nbd/load"
)

type benchCommand struct {
	app                              *app
	rw, pattern, block, offset, size string
	destroy                          bool
	load                             load.Config
}

// benchResult is what bench prints with --json.
type benchResult struct {
	URI        string `json:"uri"`
	Mix        string `json:"mix"`
	Pattern    string `json:"pattern"`
	Block      int64  `json:"block"`
	Offset     int64  `json:"offset"`
	Size       int64  `json:"size,omitempty"` // left out: to the end of the export
	Depth      int    `json:"depth"`
	Conns      int    `json:"connections"`
	FlushEvery int64  `json:"flush_every"`
	FUA        bool   `json:"fua"`
	Verify     bool   `json:"verify"`
	Seed       uint64 `json:"seed"`
	load.Result
}

func (a *app) benchCommand() *cobra.Command {
	b := &benchCommand{app: a}
	c := &cobra.Command{
		Use:   "bench URI",
		Short: "Make load on an NBD server and measure it",
		Long: `Make load on an export of any NBD server and measure it. The URI is nbd+unix:///NAME?socket=/path or nbd://host:port/NAME.

Each connection keeps --depth requests in flight; a new one begins when one has ended. Latency is the time from there to its reply. The load
ends after --time, or before it after --count requests; with --pattern shuffle when every block was visited once, and
after --time only if that is given.

--rw says what is done: read, write, zero, trim, mixed:70 (70 reads of 100 requests, else writes), or shares of 100 such as
read=70,write=20,zero=5,trim=5. All but reading destroys what the export holds, and is done only with --destroy-data.

With --flush-every N each connection waits, after N changes, until nothing of its own is in flight, flushes and waits for
that, too. With --verify every sector that is written says where it belongs and how often it was written, and reads are checked: data of another place, old data and
damaged data end the load with exit code 16. --fill writes the whole range first, so that every read can be checked. Without it, or when nothing but
reads is asked for, what an earlier run wrote is checked for being whole and in its place.`,
		Example: `  skerry bench 'nbd+unix:///vm1?socket=/run/vm1.sock'
  skerry bench 'nbd+unix:///test?socket=/run/vms.sock' --rw mixed:70 --depth 64 --flush-every 100 --verify --fill --destroy-data
  skerry bench nbd://host1/test --pattern sequential --block 1M --depth 4 --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if p, err := load.ParsePattern(b.pattern); err == nil && p == load.Shuffle && !cmd.Flags().Changed("time") {
				b.load.Time = 0 // it has an end of its own
			}
			return b.run(cmd.Context(), args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&b.rw, "rw", "read", "what is done: read, write, zero, trim, mixed:N, or `SHARES` of 100")
	f.StringVar(&b.pattern, "pattern", "random", "random, sequential, or shuffle: every block once")
	f.StringVar(&b.block, "block", "4K", "`SIZE` of a request")
	f.StringVar(&b.offset, "offset", "0", "where the range begins")
	f.StringVar(&b.size, "size", "", "`SIZE` of the range; else it goes to the end of the export")
	f.IntVar(&b.load.Depth, "depth", 16, "requests in flight on each connection")
	f.IntVar(&b.load.Conns, "connections", 1, "connections")
	f.Int64Var(&b.load.FlushEvery, "flush-every", 0, "flush after that many changes of a connection")
	f.BoolVar(&b.load.FUA, "fua", false, "make each change durable by itself")
	f.BoolVar(&b.load.Verify, "verify", false, "check what is read")
	f.BoolVar(&b.load.Fill, "fill", false, "write the whole range first")
	f.DurationVar(&b.load.Time, "time", 10*time.Second, "how long to measure; 0 for no bound")
	f.Int64Var(&b.load.Count, "count", 0, "end after that many requests")
	f.DurationVar(&b.load.Warmup, "warmup", 0, "time before measuring begins")
	f.Uint64Var(&b.load.Seed, "seed", 0, "makes the same offsets again; 0 takes a new one")
	f.BoolVar(&b.destroy, "destroy-data", false, "allow to overwrite what the export holds")
	return c
}

func (b *benchCommand) run(ctx context.Context, uri string) error {
	if err := b.parse(); err != nil {
		return usage("bench: %s", err)
	}
	if _, _, _, err := client.ParseURI(uri); err != nil {
		return usage("bench: %s", err)
	}
	if b.load.Changes() && !b.destroy {
		return usage("bench: %s would overwrite what %s holds; if that may be destroyed, say so with --destroy-data", b.changes(), uri)
	}
	dial := func(ctx context.Context) (*client.Client, error) {
		return client.DialURI(ctx, uri, client.Options{TryStructured: true})
	}
	r, err := load.Run(ctx, dial, b.load)
	if errors.Is(err, load.ErrUnfit) {
		return usage("bench %s: %w", uri, err)
	}
	if err != nil {
		return fmt.Errorf("bench %s (seed %d): %w", uri, b.load.Seed, err)
	}
	c := b.load
	result := benchResult{
		URI: uri, Mix: c.Mix.String(), Pattern: c.Pattern.String(), Block: c.Block, Offset: c.Offset, Size: c.Size, Depth: c.Depth,
		Conns: c.Conns, FlushEvery: c.FlushEvery, FUA: c.FUA, Verify: c.Verify, Seed: c.Seed, Result: r,
	}
	return b.app.print.Result(result, func(w io.Writer) error { return result.text(w) })
}

// parse reads what the flags say in words.
func (b *benchCommand) parse() (err error) {
	if b.load.Mix, err = load.ParseMix(b.rw); err != nil {
		return err
	}
	if b.load.Pattern, err = load.ParsePattern(b.pattern); err != nil {
		return err
	}
	for _, s := range []struct {
		text string
		to   *int64
	}{{b.block, &b.load.Block}, {b.offset, &b.load.Offset}, {b.size, &b.load.Size}} {
		if s.text == "" {
			continue
		}
		if *s.to, err = config.ParseSize(s.text); err != nil {
			return err
		}
	}
	if b.load.Seed == 0 {
		b.load.Seed = rand.Uint64()
	}
	return nil
}

// changes says what of the flags changes data.
func (b *benchCommand) changes() string {
	if b.load.Fill {
		return "--fill"
	}
	return "--rw " + b.rw
}

func (r *benchResult) text(w io.Writer) error {
	t := output.NewTable(output.Column{Title: "REQUESTS"}, output.Column{Title: "COUNT", Right: true}, output.Column{Title: "MEAN", Right: true},
		output.Column{Title: "P50", Right: true}, output.Column{Title: "P99", Right: true}, output.Column{Title: "P99.9", Right: true},
		output.Column{Title: "MAX", Right: true})
	for _, k := range r.Kinds {
		l := k.Latency
		t.Row(k.Kind, strconv.FormatInt(k.Requests, 10), micros(l.Mean), micros(l.P50), micros(l.P99), micros(l.P999), micros(l.Max))
	}
	_, err := fmt.Fprintf(w, "%.0f requests/s, %.1f MB/s; %d requests in %.2f s, %.2f µs of processor time here for each\n",
		r.IOPS, r.Rate/1e6, r.Requests, r.Seconds, r.CPU)
	if err == nil && r.Verify {
		_, err = fmt.Fprintf(w, "no wrong data: %d reads as this run wrote it, %d as an earlier one did, %d of other data that cannot be checked\n",
			r.Verified, r.Earlier, r.Foreign)
	}
	if err == nil {
		err = t.Write(w, output.Width(w))
	}
	if err == nil {
		_, err = fmt.Fprintf(w, "seed %d\n", r.Seed)
	}
	return err
}

// micros formats microseconds for people.
func micros(us float64) string {
	switch {
	case us < 1000:
		return fmt.Sprintf("%.1f µs", us)
	case us < 1e6:
		return fmt.Sprintf("%.2f ms", us/1000)
	}
	return fmt.Sprintf("%.2f s", us/1e6)
}
