package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"skerry/chunk"
	"skerry/cmd/internal/config"
	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
	"skerry/volume/transfer"
)

type copyCommand struct {
	app       *app
	args      []string // as they were typed, for people
	from      catalog.Ref
	to        string
	snapshots bool
	noVerify  bool
	chunkSize sizeFlag
}

// copyResult is what copy prints with --json.
type copyResult struct {
	control.Volume
	From       string   `json:"from"`                 // what it is a copy of
	Copied     []string `json:"copied_snapshots"`     // the oldest first
	Written    int64    `json:"written"`              // bytes, by this command
	Resumed    bool     `json:"resumed"`              // an interrupted copy was finished
	Verified   bool     `json:"verified"`             // compared by content hash
	Unverified []string `json:"unverified,omitempty"` // snapshots that the original does not have any more
}

func (a *app) copyCommand() *cobra.Command {
	k := &copyCommand{app: a}
	c := &cobra.Command{
		Use:     "copy FROM TO",
		Aliases: []string{"cp"},
		Short:   "Copy a volume or a snapshot to another pool",
		Long: `Make a volume in any pool, also the same one, that has the content of a volume or a snapshot: [POOL/]NAME[@SNAP] is copied to
[POOL/]NAME. The copy shares nothing with the original; of a clone all content is copied. Zeros take no space. A volume may be in use: it is copied
as it was when the copy was begun, by a hidden snapshot that goes when the copy is done.

With --snapshots the copy gets all snapshots too, or those up to @SNAP, under the same names and in the same order; each takes only the space of what
it changed.

The copy appears when all of it is there and durable and has been compared with the original by content hash. Until then ls does not
show it, and nobody else gets its name. A copy that is interrupted, whatever interrupts it, is kept for 7 days, and so is what it is a copy of: the same
command goes on with it, rm of its name gives it up.`,
		Example: `  skerry copy vm1 /mnt/backup/vm1
  skerry copy golden@v1 fast/golden --chunk-size 1M
  skerry copy vm1 backup/vm1 --snapshots`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			fromPool, from, err := a.elsewhere(args[0])
			if err != nil {
				return err
			}
			toPool, to, err := a.elsewhere(args[1])
			if err != nil {
				return err
			}
			if to.Snapshot != "" {
				return usage("%q is a snapshot: want the name of the volume to be made", args[1])
			}
			k.args, k.from, k.to = args, from, to.Volume
			return k.run(cmd.Context(), fromPool, toPool)
		},
	}
	c.Flags().BoolVar(&k.snapshots, "snapshots", false, "copy the snapshots too")
	c.Flags().BoolVar(&k.noVerify, "no-verify", false, "do not compare the copy with the original")
	c.Flags().Var(&k.chunkSize, "chunk-size", "size of the copy's chunks, such as 1M; that of the original if not given")
	return c
}

func (k *copyCommand) run(ctx context.Context, fromPool, toPool string) error {
	from, err := k.app.poolOf(fromPool)
	if err != nil {
		return err
	}
	to, err := k.app.poolOf(toPool)
	if err != nil {
		return err
	}
	return k.app.inSession(ctx, from, false, func(ctx context.Context, s *session) error {
		if samePool(from, to) {
			return k.copy(ctx, s, s)
		}
		return k.app.inSession(ctx, to, false, func(ctx context.Context, t *session) error { return k.copy(ctx, s, t) })
	})
}

func samePool(a, b config.Pool) bool { return a.Scheme == b.Scheme && a.Path == b.Path }

func (k *copyCommand) copy(ctx context.Context, from, to *session) error {
	a := k.app
	show := &partProgress{p: &a.print, verbs: [2]string{"copy", "verify"}}
	r, err := transfer.Copy(ctx, from.pool, k.from, to.pool, k.to, transfer.CopyOptions{
		Snapshots: k.snapshots, ChunkSize: k.chunkSize.bytes, NoVerify: k.noVerify, Progress: show.update,
		Pin: func(ctx context.Context, keep time.Duration) (chunk.VolumeID, error) {
			return from.pin(ctx, k.from, keep)
		},
	})
	show.end()
	if err != nil {
		if r.Kept {
			a.print.Note("what was copied is kept for 7 days: the same command goes on with it, skerry rm %s gives it up", k.args[1])
		}
		return err
	}
	for _, s := range r.Unverified {
		a.print.Note("snapshot %s was removed from %s meanwhile: its copy could not be compared", s, k.args[0])
	}
	result := copyResult{
		Volume: viewVolume(r.Info), From: k.from.String(), Copied: append([]string{}, r.Snapshots...), Written: r.Written, Resumed: r.Resumed,
		Verified: !k.noVerify && len(r.Unverified) == 0, Unverified: r.Unverified,
	}
	return a.print.Result(result, func(io.Writer) error {
		what := ""
		if len(r.Snapshots) > 0 {
			what = ", " + output.Count(int64(len(r.Snapshots)), "snapshot")
		}
		if result.Verified {
			what += ", verified"
		}
		a.print.Note("copied %s to %s, wrote %s of %s%s", k.args[0], k.args[1], output.Size(r.Written), output.Size(r.Info.Size), what)
		return nil
	})
}

// pin keeps what is to be copied. Of a volume that another process holds that one takes the hidden snapshot.
func (s *session) pin(ctx context.Context, r catalog.Ref, keep time.Duration) (chunk.VolumeID, error) {
	return viaHolder(ctx, s,
		func(ctx context.Context) (chunk.VolumeID, error) {
			info, err := s.pool.Pin(ctx, r, keep)
			return info.ID, err
		},
		func(ctx context.Context, c *control.Client) (chunk.VolumeID, error) {
			p, err := c.Pin(ctx, r.Volume, keep)
			if err != nil {
				return chunk.VolumeID{}, err
			}
			return chunk.ParseVolumeID(p.ID)
		})
}

// partProgress shows one part of a work after the other.
type partProgress struct {
	p     *output.Printer
	verbs [2]string // for what is done, and for what is verified
	verb  string
	show  *output.Progress
}

func (c *partProgress) update(w transfer.Work) {
	verb := c.verbs[0]
	if w.Verify {
		verb = c.verbs[1]
	}
	if w.Snapshot != "" {
		verb += " " + w.Snapshot
	}
	if c.show == nil || verb != c.verb {
		c.end()
		c.verb, c.show = verb, c.p.Progress(verb)
	}
	c.show.Update(w.Done, w.Total)
}

func (c *partProgress) end() {
	if c.show != nil {
		c.show.End()
	}
}
