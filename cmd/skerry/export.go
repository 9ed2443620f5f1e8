package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/output"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/transfer"
)

// exportResult is what an export prints with --json.
type exportResult struct {
	Name   string `json:"name"`   // of the volume or snapshot
	File   string `json:"file"`   // that was written
	Size   int64  `json:"size"`   // bytes
	Copied int64  `json:"copied"` // bytes that were written
}

func (a *app) exportCommand() *cobra.Command {
	var format, compress, from string
	var force bool
	c := &cobra.Command{
		Use:   "export NAME[@SNAP] FILE|-",
		Short: "Write a volume or a snapshot to a disk image",
		Long: `Write the content of a volume or a snapshot to a disk image, raw or qcow2: a file, which is sparse, a block device, a pipe, or - for
standard output. The format is that of the file's suffix, .qcow2, else raw. A file appears under its name only when it is complete
and durable. A file that exists is replaced, and a block device written, only with --force.

The clusters of a qcow2 file can be compressed: with zlib, or with zstd, which is quicker and needs qemu 5.1 or later to read.

A volume that another process holds cannot be exported; a snapshot of it can.

With --from the file has only what changed since that snapshot: a delta, to be applied to a copy of the volume, which has the same snapshot, with
skerry import --onto. It can be compressed with zstd.`,
		Example: `  skerry export golden@v1 golden.raw
  skerry export golden@v1 golden.qcow2 --compress zstd
  skerry export vm1 /dev/sdb --force
  skerry export vm1@nightly - | zstd > vm1.raw.zst
  skerry export vm1@tuesday tuesday.delta --from @monday --compress zstd`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.ref(args[0])
			if err != nil {
				return err
			}
			if from != "" {
				return a.exportFrom(cmd, r, from, args[1], compress, force)
			}
			o := transfer.ExportOptions{Force: force, Format: transfer.Format(format), Compress: transfer.Compression(compress)}
			if o.Format == transfer.Auto {
				if o.Format, err = formatOf(args[1]); err != nil {
					return usage("export %s: %w", r, err)
				}
			}
			if compress == "none" {
				o.Compress = transfer.Uncompressed
			}
			if err := o.Check(); err != nil {
				return usage("export %s: %w", r, err)
			}
			return a.export(cmd.Context(), r, args[1], o)
		},
	}
	c.Flags().StringVar(&format, "format", "", "format of the image, raw or qcow2, instead of that of the suffix")
	c.Flags().StringVar(&compress, "compress", "none", "compress the clusters of a qcow2 file: none, zlib or zstd")
	c.Flags().StringVar(&from, "from", "", "only what changed since the snapshot `@SNAP`")
	c.Flags().BoolVarP(&force, "force", "f", false, "replace a file, overwrite a block device")
	return c
}

// formatOf returns the format that the suffix of an image's name says. A raw image under a name that promises another format would fool whoever opens it.
func formatOf(name string) (transfer.Format, error) {
	switch suffix := strings.ToLower(filepath.Ext(name)); suffix {
	case ".qcow2":
		return transfer.Qcow2, nil
	case ".vmdk", ".vdi", ".vhd", ".vhdx", ".vpc", ".qed", ".qcow":
		return "", fmt.Errorf("%s is not written; export it as qcow2 and convert that with qemu-img convert, or say --format raw", suffix)
	case ".gz", ".zst", ".xz", ".bz2", ".lz4":
		return "", fmt.Errorf("%s is not written; export to - and pack that, use --compress with qcow2, or say --format raw", suffix)
	}
	return transfer.Auto, nil
}

func (a *app) export(ctx context.Context, r catalog.Ref, file string, o transfer.ExportOptions) error {
	return a.holding(ctx, func(ctx context.Context, s *session) error {
		dev, err := s.openRef(ctx, r)
		if err != nil {
			return err
		}
		done, err := a.writeImage(ctx, dev, file, o)
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		if err = errors.Join(err, dev.Close(closing)); err != nil {
			return aboutRef(r, err)
		}
		result := exportResult{Name: r.String(), File: file, Size: dev.Size(), Copied: done.Copied}
		if file == "-" {
			a.print.Note("exported %s, %s", r, output.Size(result.Size))
			return nil // stdout has the image
		}
		return a.print.Result(result, func(io.Writer) error {
			a.print.Note("exported %s to %s, %s of %s are data", r, file, output.Size(result.Copied), output.Size(result.Size))
			return nil
		})
	})
}

// openRef opens a volume, taking its lease, or a snapshot.
func (s *session) openRef(ctx context.Context, r catalog.Ref) (*volume.Device, error) {
	if r.Snapshot == "" {
		return s.pool.OpenVolume(ctx, r.Volume)
	}
	return s.pool.OpenSnapshot(ctx, r)
}

func (a *app) writeImage(ctx context.Context, dev *volume.Device, file string, o transfer.ExportOptions) (transfer.Progress, error) {
	show := a.print.Progress("export")
	defer show.End()
	o.Progress = func(p transfer.Progress) { show.Update(p.Done, p.Total) }
	if file == "-" {
		return transfer.ExportStream(ctx, dev, a.stdout, o)
	}
	return transfer.ExportFile(ctx, dev, file, o)
}
