package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skerry/locking"
	"skerry/volume/catalog"
	"skerry/volume/hash"
	"skerry/volume/transfer"
)

// hashResult is what hash prints with --json.
type hashResult struct {
	Name string `json:"name,omitempty"` // of the volume or snapshot
	File string `json:"file,omitempty"` // or of the image
	Size int64  `json:"size"`           // bytes of content
	Hash string `json:"hash"`
}

func (a *app) hashCommand() *cobra.Command {
	var file string
	var seal bool
	var o transfer.OpenOptions
	c := &cobra.Command{
		Use:   "hash [NAME[@SNAP]]",
		Short: "Print a hash of the content of a snapshot, a volume or an image",
		Long: `Print the content hash of a snapshot, a volume, or with --file of an image. It depends on size and content alone, not on how
and where they are stored: what is imported, copied or exported keeps its hash. It is a tree of BLAKE3 hashes, defined in docs/hash.md so
that other programs can compute it.

With --seal the hash of a snapshot is stored beside it, with those of its parts: scrub compares the content with that, and info shows
it. The seal goes with the snapshot. Of one that is sealed already the content is compared; a seal that is damaged itself is made anew.

A volume is leased for the time. One that is being written cannot be hashed: take a snapshot of it and hash that.`,
		Example: `  skerry hash golden@v1
  skerry hash vm1@nightly --json
  skerry hash golden@v1 --seal
  skerry hash --file debian-12.qcow2
  zstd -dc disk.raw.zst | skerry hash --file -`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (file != "") {
				return usage("hash: want a volume or a snapshot, or --file and an image")
			}
			if seal && file != "" {
				return usage("hash: --seal is for snapshots")
			}
			if file != "" {
				return a.hashFile(cmd.Context(), file, o)
			}
			r, err := a.ref(args[0])
			if err != nil {
				return err
			}
			if seal {
				if r, err = a.snapshot(args[0]); err != nil {
					return err
				}
				return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
					return a.seal(ctx, s, r)
				})
			}
			return a.holding(cmd.Context(), func(ctx context.Context, s *session) error {
				return a.hash(ctx, s, r)
			})
		},
	}
	c.Flags().BoolVar(&seal, "seal", false, "store the hash of a snapshot, for scrub")
	c.Flags().StringVar(&file, "file", "", "hash this image `FILE`, block device or - for standard input, as the volume that an import makes of it")
	c.Flags().StringVar((*string)(&o.Format), "format", string(transfer.Auto), "format of the image, raw or qcow2, instead of recognising it")
	c.Flags().BoolVar(&o.FollowBacking, "follow-backing", false, "read the backing files too that a qcow2 image names")
	return c
}

func (a *app) hash(ctx context.Context, s *session, r catalog.Ref) error {
	dev, err := s.openRef(ctx, r)
	if errors.Is(err, locking.ErrHeld) {
		return advised{err, fmt.Sprintf("a volume that is being written has no hash; hash a snapshot of it: skerry snapshot %s@NAME, then skerry hash %s@NAME", r, r)}
	}
	if err != nil {
		return err
	}
	show := a.print.Progress("hash")
	sum, err := hash.Of(ctx, dev, hash.Options{Progress: show.Update})
	show.End()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if err = errors.Join(err, dev.Close(closing)); err != nil {
		return aboutRef(r, err)
	}
	return a.hashed(hashResult{Name: r.String(), Size: dev.Size(), Hash: sum.String()})
}

func (a *app) seal(ctx context.Context, s *session, r catalog.Ref) error {
	info, err := s.pool.SnapshotInfo(ctx, r)
	if err != nil {
		return err
	}
	show := a.print.Progress("seal")
	sum, err := s.pool.Seal(ctx, r, hash.Options{Progress: show.Update})
	show.End()
	if err != nil {
		return err
	}
	return a.hashed(hashResult{Name: r.String(), Size: info.Size, Hash: sum.String()})
}

func (a *app) hashFile(ctx context.Context, file string, o transfer.OpenOptions) error {
	show := a.print.Progress("hash")
	defer show.End()
	img, err := a.openImage(ctx, file, o)
	if err != nil {
		return err
	}
	sum, size, err := transfer.Hash(ctx, img, hash.Options{Progress: show.Update})
	if err = errors.Join(err, img.Close()); err != nil {
		return err
	}
	show.End()
	return a.hashed(hashResult{File: file, Size: size, Hash: sum.String()})
}

func (a *app) openImage(ctx context.Context, file string, o transfer.OpenOptions) (*transfer.Image, error) {
	if file == "-" {
		return transfer.OpenStream(ctx, a.stdin, o)
	}
	return transfer.OpenFile(ctx, file, o)
}

func (a *app) hashed(r hashResult) error {
	return a.print.Result(r, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  %s\n", r.Hash, r.Name+r.File)
		return err
	})
}
