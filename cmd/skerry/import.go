package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
	"skerry/volume/transfer"
)

type importCommand struct {
	app             *app
	format          string
	followBacking   bool
	lazy            bool
	onto            string // the volume that a delta is applied to
	rollback        bool
	size, chunkSize sizeFlag
}

// importResult is what an import prints with --json.
type importResult struct {
	control.Volume
	Format string `json:"format"` // of the image
	Copied int64  `json:"copied"` // bytes that were not zero
}

func (a *app) importCommand() *cobra.Command {
	i := &importCommand{app: a}
	c := &cobra.Command{
		Use:   "import FILE|- NAME",
		Short: "Create a volume from a disk image",
		Long: `Create a volume with the content of a disk image: a raw or qcow2 file, a block device, or - for standard input.
The format is recognised by its first bytes. Zeros take no space. Images that are compressed with gzip, zstd or xz are unpacked; a qcow2
image that is compressed, or comes from a pipe, is first written to a file in the directory for temporary files. A raw image from a pipe
needs --size, which says how large the volume is.

Internal snapshots of a qcow2 image are passed over; the volume is the disk as it is. A qcow2 image with a backing file is refused unless --follow-backing allows to read the other files that it names. Give it only
for images that you trust: they can name any file that you can read.

The volume appears under its name only when all of the image is in it and durable; an import that fails or is
interrupted leaves nothing.

With --lazy it appears at once, with the content of a raw or qcow2 file, and what is in the pool of it is copied while the volume is
served, or by skerry flatten. Where the file system of the pool can share the blocks of the file (xfs, btrfs) the file is not needed
any more. Else the volume needs it, unchanged and on this host, until all is copied: whoever writes or touches it damages
the volume. Until then it has no snapshots and no clones; skerry info shows how far the copy is.

With --onto NAME, instead of a name after the file, the file is a delta that skerry export --from wrote. It is applied to a volume that has a snapshot with the
content of the one that the delta was made from, and was not written since then, unless --rollback gives that up. The volume gets the newer content and a snapshot
of it, both or nothing, checked by content hash. It must not be in use; its snapshots may be.`,
		Example: `  skerry import debian-12.qcow2 golden
  skerry import /dev/sdb old-server
  skerry import disk.raw.zst vm1
  skerry import --lazy huge.qcow2 vm3
  skerry import tuesday.delta --onto backup/vm1
  curl -s https://example.org/disk.img.xz | skerry import - vm2 --size 20G`,
		Args: func(cmd *cobra.Command, args []string) error {
			if i.onto != "" {
				return cobra.ExactArgs(1)(cmd, args)
			}
			return cobra.ExactArgs(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if i.onto != "" {
				return i.runOnto(cmd, args[0])
			}
			if i.rollback {
				return usage("import: --rollback goes with --onto")
			}
			name, err := a.volume(args[1])
			if err != nil {
				return err
			}
			if i.lazy {
				return i.runLazy(cmd.Context(), args[0], name)
			}
			return i.run(cmd.Context(), args[0], name)
		},
	}
	c.Flags().StringVar(&i.format, "format", "", "format of the image, raw or qcow2, instead of recognising it")
	c.Flags().BoolVar(&i.followBacking, "follow-backing", false, "read the backing files too that a qcow2 image names")
	c.Flags().BoolVar(&i.lazy, "lazy", false, "copy nothing now: the volume appears at once and is copied while it is served")
	c.Flags().StringVar(&i.onto, "onto", "", "apply a delta to the volume `NAME`")
	c.Flags().BoolVar(&i.rollback, "rollback", false, "with --onto: give up what was written to the volume since the snapshot")
	c.Flags().VarP(&i.size, "size", "s", "size of the volume, if it is to be larger than the image")
	c.Flags().Var(&i.chunkSize, "chunk-size", "size of the volume's chunks, such as 4M")
	return c
}

func (i *importCommand) run(ctx context.Context, file, name string) (err error) {
	a := i.app
	img, err := i.open(ctx, file)
	if err != nil {
		return about("import", name, err)
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	size := max(i.size.bytes, img.VolumeSize())
	if img.Size() >= 0 && i.size.bytes > 0 && i.size.bytes < img.VolumeSize() {
		return usage("import %s: --size %s is less than the image's %s", name, output.Size(i.size.bytes), output.Size(img.VolumeSize()))
	}
	if size <= 0 {
		return usage("import %s: the size of a pipe's content is not known beforehand: give --size", name)
	}
	return a.with(ctx, func(ctx context.Context, s *session) error {
		c, err := s.pool.Begin(ctx, name, catalog.CreateOptions{Size: size, ChunkSize: i.chunkSize.bytes})
		if err != nil {
			return err
		}
		info, done, err := i.fill(ctx, img, c)
		if err != nil {
			// Also after an interruption, nothing may be left.
			cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
			defer cancel()
			return about("volume", name, errors.Join(err, c.Abort(cleanup)))
		}
		r := importResult{Volume: viewVolume(info), Format: string(img.Format()), Copied: done.Copied}
		return a.print.Result(r, func(io.Writer) error {
			a.print.Note("imported %s, %s of %s are data", r.Name, output.Size(r.Copied), output.Size(r.Size))
			return nil
		})
	})
}

func (i *importCommand) open(ctx context.Context, file string) (*transfer.Image, error) {
	show := i.app.print.Progress("unpack")
	defer show.End()
	o := transfer.OpenOptions{
		Format: transfer.Format(i.format), FollowBacking: i.followBacking, Size: i.size.bytes,
		Progress: func(p transfer.Progress) { show.Update(p.Done, p.Total) },
	}
	return i.app.openImage(ctx, file, o)
}

func (i *importCommand) fill(ctx context.Context, img *transfer.Image, c *catalog.Creation) (catalog.Info, transfer.Progress, error) {
	show := i.app.print.Progress("import")
	defer show.End()
	done, err := transfer.Import(ctx, img, c.Device(), transfer.Options{
		Progress: func(p transfer.Progress) { show.Update(p.Done, p.Total) },
	})
	if err != nil {
		return catalog.Info{}, done, err
	}
	info, err := c.Commit(ctx)
	if err != nil {
		return catalog.Info{}, done, err
	}
	return info, done, nil
}
