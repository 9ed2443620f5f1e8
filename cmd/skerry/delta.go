package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
	"skerry/volume/collect"
	"skerry/volume/transfer"
)

// deltaResult is what export --from prints with --json.
type deltaResult struct {
	Name string `json:"name"` // of the snapshot
	From string `json:"from"` // the older one
	File string `json:"file"`
	Size int64  `json:"size"` // bytes of the snapshot
	Data int64  `json:"data"` // bytes in the delta
	Zero int64  `json:"zero"` // bytes that became zeros
}

// appliedResult is what import --onto prints with --json.
type appliedResult struct {
	control.Snapshot
	Base    string `json:"base"`    // the snapshot that the delta was applied to; empty if it was not
	Data    int64  `json:"data"`    // bytes that were written
	Zero    int64  `json:"zero"`    // bytes that became zeros
	Present bool   `json:"present"` // the volume had the snapshot already
}

// exportFrom writes a delta.
func (a *app) exportFrom(cmd *cobra.Command, r catalog.Ref, from, file, compress string, force bool) error {
	if r.Snapshot == "" {
		return usage("export %s --from: %s is a volume, want a snapshot: %s@NAME", r, r, r)
	}
	if strings.HasPrefix(from, "@") {
		from = r.Volume + from
	}
	older, err := a.snapshot(from)
	if err != nil {
		return err
	}
	if cmd.Flags().Changed("format") {
		return usage("export %s: --format goes with images, not with --from", r)
	}
	o := transfer.DeltaOptions{Force: force}
	switch compress {
	case "none":
	case "zstd":
		o.Compress = transfer.Zstd
	default:
		return usage("export %s: --compress %s: a delta can be compressed with zstd only", r, compress)
	}
	path := file
	if file == "-" {
		path = ""
	}
	return a.holding(cmd.Context(), func(ctx context.Context, s *session) error {
		show := &partProgress{p: &a.print, verbs: [2]string{"export", "hash"}}
		o.Progress = show.update
		e, err := transfer.ExportDelta(ctx, s.pool, older, r, path, a.stdout, o)
		show.end()
		if err != nil {
			return err
		}
		result := deltaResult{Name: r.String(), From: older.String(), File: file, Size: e.Header.ToSize, Data: e.Data, Zero: e.Zero}
		note := fmt.Sprintf("exported what %s has changed since %s: %s of data, %s became zeros", r, older, output.Size(e.Data), output.Size(e.Zero))
		if file == "-" {
			a.print.Note("%s", note)
			return nil // stdout has the delta
		}
		return a.print.Result(result, func(io.Writer) error {
			a.print.Note("%s", note)
			return nil
		})
	})
}

// runOnto applies a delta.
func (i *importCommand) runOnto(cmd *cobra.Command, file string) error {
	a := i.app
	name, err := a.volume(i.onto)
	if err != nil {
		return err
	}
	for _, flag := range []string{"format", "follow-backing", "lazy", "size", "chunk-size"} {
		if cmd.Flags().Changed(flag) {
			return usage("import --onto %s: --%s goes with images", name, flag)
		}
	}
	return a.with(cmd.Context(), func(ctx context.Context, s *session) (err error) {
		f := a.stdin
		if file != "-" {
			// Without O_NONBLOCK the open of a named pipe waits for a writer, and nothing ends that.
			if f, err = os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.Close()) }()
		}
		d, err := transfer.OpenDeltaFile(ctx, f)
		if err != nil {
			return about("import", file, err)
		}
		defer d.Close()
		show := &partProgress{p: &a.print, verbs: [2]string{"import", "hash"}}
		r, err := transfer.ApplyDelta(ctx, s.pool, name, d, transfer.ApplyOptions{Rollback: i.rollback, Progress: show.update})
		show.end()
		if err != nil {
			s.discard(ctx, name, err)
			return about("import", file, err)
		}
		result := appliedResult{Snapshot: viewSnapshot(r.Snapshot), Base: r.Base, Data: r.Data, Zero: r.Zero, Present: r.Present}
		return a.print.Result(result, func(io.Writer) error {
			if r.Present {
				a.print.Note("%s is there already, with the same content", result.Name)
				return nil
			}
			a.print.Note("imported %s, %s of data, %s became zeros", result.Name, output.Size(r.Data), output.Size(r.Zero))
			return nil
		})
	})
}

// discard gives back the space of what a delta wrote to a volume that it was not applied to, as far as there is time.
func (s *session) discard(ctx context.Context, name string, why error) {
	for _, before := range []error{catalog.ErrNotFound, catalog.ErrInUse, catalog.ErrExists, catalog.ErrChanged} {
		if errors.Is(why, before) {
			return
		}
	}
	if large, err := s.pool.Large(context.WithoutCancel(ctx), name); err != nil || large {
		return
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	if _, err := collect.Collect(limited, s.pool, collect.Options{Volume: name}); err != nil {
		s.log.Info("space is left for gc", "volume", name, "err", err)
	}
}
