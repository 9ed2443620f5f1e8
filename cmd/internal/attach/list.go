package attach

import (
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"skerry/nbd/kernel"
)

// State says how a device is.
type State string

// The states of a device.
const (
	Connected    State = "connected"    // it works
	Unattended   State = "unattended"   // it works, and has no keeper: attach gives it one
	Reconnecting State = "reconnecting" // I/O waits; the keeper is at it
	Dead         State = "dead"         // I/O waits, and there is neither server nor keeper: attach revives it
	Ending       State = "ending"       // it was detached by force and goes when what uses it has ended
)

// Status is what there is to say about a device.
type Status struct {
	Record
	State  State
	Kept   bool // it has a keeper
	Mounts []string
}

// ServerPID returns the process that serves the device, 0 if it is dead or not of this host.
func (s Status) ServerPID() int {
	if s.Server.Process.alive() {
		return s.Server.Process.PID
	}
	return 0
}

// Names returns the names and the devices of all records.
func (h *Host) Names() []string {
	records, _ := h.records() // what cannot be read is left out
	var all []string
	for _, r := range records {
		all = append(all, r.Name())
		if r.Device != "" {
			all = append(all, r.Device)
		}
	}
	return all
}

// probes bounds the servers that are asked at once.
const probes = 16

// List returns what is attached, by device. Records that cannot be read are left out; the error tells of them.
func (h *Host) List(ctx context.Context) ([]Status, error) {
	records, bad := h.records()
	devices, err := h.Kernel.Devices()
	if err != nil {
		return nil, err
	}
	var all []Status
	for _, d := range devices {
		t, ours := parseBackend(d.Backend)
		if !d.Attached || !ours {
			continue
		}
		r := Record{Target: t, Connections: max(1, d.Connections), Server: Server{Own: t.URI == "", URI: t.URI}}
		if i := slices.IndexFunc(records, func(r Record) bool { return r.identity() == t.identity() }); i >= 0 {
			r = records[i]
		}
		r.Device, r.Index, r.Size, r.ReadOnly = kernel.Path(d.Index), d.Index, d.Size, d.ReadOnly
		all = append(all, Status{Record: r})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(probes)
	for i := range all {
		g.Go(func() error {
			s := &all[i]
			s.Kept = h.kept(s.key())
			s.State = h.state(ctx, s)
			var err error
			s.Mounts, err = h.System.Mounts(s.Device)
			return err
		})
	}
	err = g.Wait()
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Device, b.Device) })
	return all, errors.Join(err, bad)
}

func (h *Host) state(ctx context.Context, s *Status) State {
	if s.Detached {
		return Ending
	}
	answers := s.Server.URI != "" && h.reached(ctx, s.Record) == nil
	switch {
	case s.Kept && answers && s.Record.Connected:
		return Connected
	case s.Kept:
		return Reconnecting
	case answers:
		return Unattended
	}
	return Dead
}
