package main

import (
	"slices"
	"time"
)

// report is what one run found, as it stands in results.json.
type report struct {
	Machine  machine       `json:"machine"`
	Settings settings      `json:"settings"`
	Rows     []rowReport   `json:"rows"`
	Profiles []profile     `json:"profiles,omitempty"` // of rows where a goal was missed
	Took     time.Duration `json:"took_ns"`
}

// settings say how it was measured.
type settings struct {
	Size     int64   `json:"size"` // of each disk, bytes
	Rounds   int     `json:"rounds"`
	Seconds  float64 `json:"seconds"` // of each measurement
	Warmup   float64 `json:"warmup_seconds"`
	Requests int64   `json:"requests,omitempty"` // of each measurement, in place of a time
	Quick    bool    `json:"quick"`
	AsMade   bool    `json:"as_made,omitempty"` // disks were measured as the tools of each peer had written them
}

// rowReport is one row: the same work for several peers.
type rowReport struct {
	ID    string       `json:"id"`
	Title string       `json:"title"`
	Group string       `json:"group"` // the plot that it belongs to
	Unit  string       `json:"unit"`  // of the samples' values: iops, bytes_per_second or seconds
	Peers []peerReport `json:"peers"` // skerry first
}

// peerReport has what was measured of one peer in a row, a sample for each round.
type peerReport struct {
	Peer    string   `json:"peer"`
	Samples []sample `json:"samples"`
}

// sample is one measurement.
type sample struct {
	Value     float64  `json:"value"`
	P50       float64  `json:"p50_us,omitempty"`
	P99       float64  `json:"p99_us,omitempty"`
	P999      float64  `json:"p999_us,omitempty"`
	ServerCPU float64  `json:"server_cpu_us,omitempty"` // for each request, microseconds
	ClientCPU float64  `json:"client_cpu_us,omitempty"`
	Memory    int64    `json:"peak_memory,omitempty"` // of the server, bytes
	Allocs    *float64 `json:"allocations,omitempty"` // of the server for each request; of skerry alone
}

func (r *report) row(id string) *rowReport {
	for i := range r.Rows {
		if r.Rows[i].ID == id {
			return &r.Rows[i]
		}
	}
	return nil
}

func (r *rowReport) peer(name string) *peerReport {
	for i := range r.Peers {
		if r.Peers[i].Peer == name {
			return &r.Peers[i]
		}
	}
	return nil
}

// spread is a median with the least and the greatest of the values around it.
type spread struct{ Median, Min, Max float64 }

// spreadOf returns the spread of values, zeros of none.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return spread{Median: (s[(n-1)/2] + s[n/2]) / 2, Min: s[0], Max: s[n-1]}
}

// of returns the spread of one number of the samples.
func (p *peerReport) of(number func(s sample) float64) spread {
	values := make([]float64, 0, len(p.Samples))
	for _, s := range p.Samples {
		values = append(values, number(s))
	}
	return spreadOf(values)
}

func value(s sample) float64  { return s.Value }
func memory(s sample) float64 { return float64(s.Memory) }
func cpu(s sample) float64    { return s.ServerCPU }

// ratio tells how many times as good skerry is as a peer: the ratio of the medians, and the least and the greatest of the rounds'
// ratios.
func (r *rowReport) ratio(peer string) (spread, bool) {
	ours, theirs := r.peer(skerry), r.peer(peer)
	if ours == nil || theirs == nil || len(ours.Samples) == 0 || len(theirs.Samples) == 0 {
		return spread{}, false
	}
	times := func(a, b float64) float64 {
		if r.Unit == seconds {
			a, b = b, a
		}
		if b == 0 {
			return 0
		}
		return a / b
	}
	var rounds []float64
	for i := range min(len(ours.Samples), len(theirs.Samples)) {
		rounds = append(rounds, times(ours.Samples[i].Value, theirs.Samples[i].Value))
	}
	s := spreadOf(rounds)
	s.Median = times(ours.of(value).Median, theirs.of(value).Median)
	return s, true
}

// The units of values.
const (
	iops    = "iops"
	rate    = "bytes_per_second"
	seconds = "seconds"
)
