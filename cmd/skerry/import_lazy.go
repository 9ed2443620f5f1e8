package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/transfer"
)

// runLazy imports an image without copying it.
func (i *importCommand) runLazy(ctx context.Context, file, name string) (err error) {
	a := i.app
	if i.followBacking {
		return usage("import %s: --lazy does not follow backing files: import it without --lazy", name)
	}
	img, err := transfer.OpenLazy(ctx, file, transfer.Format(i.format))
	if err != nil {
		return about("import", name, err)
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	if i.size.bytes > 0 && i.size.bytes < img.VolumeSize() {
		return usage("import %s: --size %s is less than the image's %s", name, output.Size(i.size.bytes), output.Size(img.VolumeSize()))
	}
	size := max(i.size.bytes, img.VolumeSize())
	return a.with(ctx, func(ctx context.Context, s *session) error {
		c, err := s.pool.Begin(ctx, name, catalog.CreateOptions{Size: size, ChunkSize: i.chunkSize.bytes})
		if err != nil {
			return err
		}
		var info catalog.Info
		source, err := transfer.ImportLazy(ctx, img, lazyTarget{c, c.Device()}, s.identity)
		if err == nil {
			info, err = c.Commit(ctx)
		}
		if err != nil {
			// Also after an interruption, nothing may be left.
			cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
			defer cancel()
			return about("volume", name, errors.Join(err, c.Abort(cleanup)))
		}
		r := importResult{Volume: viewVolume(info), Format: string(img.Format())}
		return a.print.Result(r, func(io.Writer) error {
			a.print.Note("imported %s, %s, to be copied while it is served", r.Name, output.Size(r.Size))
			if source.Object == 0 {
				a.print.Note("%s must not change until all is copied: see skerry info %s", source.Files[0].Path, name)
			}
			return nil
		})
	})
}

// lazyTarget is a new volume, as [transfer.ImportLazy] needs it.
type lazyTarget struct {
	*catalog.Creation
	*volume.Device
}

// sourceText says how far a volume is copied from its image.
func sourceText(s *control.Source) string {
	where := ""
	if s.Host != "" {
		where = " on host " + s.Host
	}
	return fmt.Sprintf("copied %d %% from %s%s", s.Percent, s.Path, where)
}
