package mem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"skerry/drivers"
)

// CloneFile implements [drivers.FileCloner]: it copies, which the file must not change meanwhile.
func (b *Backend) CloneFile(ctx context.Context, name string, f *os.File) error {
	if !b.o.CloneFiles {
		return fmt.Errorf("clone file to %s: %w", name, errors.ErrUnsupported)
	}
	o, err := b.Open(ctx, name, drivers.Create)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	buf := make([]byte, 1<<20)
	for off := int64(0); err == nil && off < st.Size(); off += int64(len(buf)) {
		n := min(int64(len(buf)), st.Size()-off)
		if _, err = io.ReadFull(io.NewSectionReader(f, off, n), buf[:n]); err == nil {
			err = o.WriteAt(buf[:n], off)
		}
	}
	if err == nil {
		err = o.Sync()
	}
	if err == nil {
		err = b.SyncGroup(ctx, drivers.Group(name))
	}
	if err = errors.Join(err, o.Close()); err != nil {
		return fmt.Errorf("clone file to %s: %w", name, err)
	}
	return nil
}
