package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"skerry/nbd/load"
)

// fioLatency is a set of latencies as fio's JSON output has them, nanoseconds.
type fioLatency struct {
	Mean, Max  float64
	Percentile map[string]float64
}

// fioKind is what one kind of requests came to.
type fioKind struct {
	Requests int64      `json:"total_ios"`
	Bytes    int64      `json:"io_bytes"`
	IOPS     float64    `json:"iops"`
	Rate     float64    `json:"bw_bytes"`
	Latency  fioLatency `json:"lat_ns"`
}

// fioJob is one job of fio's JSON output.
type fioJob struct {
	Error       int
	Read, Write fioKind
	Sync        fioKind
	Runtime     float64 `json:"job_runtime"` // milliseconds
	User        float64 `json:"usr_cpu"`     // percent of it
	System      float64 `json:"sys_cpu"`
}

// fio makes load on a file past the page cache. It counts from its first request on: the warm-up is part of the time. A shuffled load
// ends when it has been everywhere once.
func (b *bed) fio(ctx context.Context, path string, c load.Config) (load.Result, error) {
	args, err := fioArguments(path, b.size, c)
	if err != nil {
		return load.Result{}, err
	}
	out, err := b.run(ctx, "fio", args...)
	if err != nil {
		return load.Result{}, err
	}
	var report struct{ Jobs []fioJob }
	if err := json.Unmarshal(out, &report); err != nil {
		return load.Result{}, fmt.Errorf("fio: %w", err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Error != 0 {
		return load.Result{}, fmt.Errorf("fio failed: %s", out)
	}
	return report.Jobs[0].result(), nil
}

// fioArguments says with fio's words what a load is.
func fioArguments(path string, size int64, c load.Config) ([]string, error) {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	direction := map[load.Mix]string{{Read: 100}: "read", {Write: 100}: "write"}[c.Mix]
	if direction == "" || c.Conns != 1 {
		return nil, errors.New("fio is asked to read or to write, with one file")
	}
	if c.Pattern != load.Sequential {
		direction = "rand" + direction
	}
	args := []string{
		"--name=load", "--filename=" + path, "--size=" + number(size), "--rw=" + direction, "--bs=" + number(c.Block),
		"--ioengine=libaio", "--direct=1", "--iodepth=" + strconv.Itoa(c.Depth), "--invalidate=0", "--randseed=" + strconv.FormatUint(c.Seed>>1, 10),
		"--lat_percentiles=1", "--clat_percentiles=0", "--percentile_list=50:99:99.9", "--output-format=json",
	}
	switch {
	case c.Time > 0:
		args = append(args, "--norandommap", "--time_based", "--runtime="+number((c.Time+c.Warmup).Milliseconds())+"ms")
	case c.Count > 0:
		args = append(args, "--norandommap", "--number_ios="+number(c.Count))
	}
	if c.FlushEvery > 0 {
		// All that is in flight ends before the flush, as with the other loads.
		every := number(c.FlushEvery)
		args = append(args, "--fdatasync="+every, "--iodepth_batch="+every, "--iodepth_batch_complete_min="+every)
	}
	return args, nil
}

// result tells the outcome as other loads do.
func (j *fioJob) result() load.Result {
	k, name := &j.Read, "read"
	if j.Write.Requests > 0 {
		k, name = &j.Write, "write"
	}
	r := load.Result{
		Seconds: j.Runtime / 1e3, Requests: k.Requests, Bytes: k.Bytes, IOPS: k.IOPS, Rate: k.Rate, Latency: k.Latency.microseconds(),
		Ended: k.Requests + j.Sync.Requests,
	}
	r.Kinds = []load.Kind{{Kind: name, Requests: k.Requests, Latency: r.Latency}}
	if j.Sync.Requests > 0 {
		r.Kinds = append(r.Kinds, load.Kind{Kind: "flush", Requests: j.Sync.Requests, Latency: j.Sync.Latency.microseconds()})
	}
	if r.Ended > 0 {
		r.CPU = (j.User + j.System) / 100 * j.Runtime * float64(time.Millisecond/time.Microsecond) / float64(r.Ended)
	}
	return r
}

func (l *fioLatency) microseconds() load.Latency {
	us := func(percentile string) float64 { return l.Percentile[percentile] / 1e3 }
	return load.Latency{Mean: l.Mean / 1e3, P50: us("50.000000"), P99: us("99.000000"), P999: us("99.900000"), Max: l.Max / 1e3}
}
