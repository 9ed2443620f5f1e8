package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxBacking bounds the length of a chain of backing files.
	maxBacking = 64
	// maxChainL1 bounds the entries that the level 1 tables of a chain have together: 64 MiB.
	maxChainL1 = 2 * qcow2MaxL1
)

// chain is an image with its backing files, while it is opened.
type chain struct {
	layers layers
	l1     int // entries of all level 1 tables
	seen   []os.FileInfo
	image  *Image
}

// qcow2 opens a qcow2 image, and its backing files if it may.
func (o opening) qcow2(ctx context.Context, f io.ReaderAt, fileSize int64) (*Image, error) {
	top, err := openQcow2(ctx, f, fileSize)
	if err != nil {
		return nil, err
	}
	c := chain{layers: layers{top}, l1: len(top.l1), image: &Image{name: o.name, format: Qcow2, size: top.size()}}
	if file, ok := f.(*os.File); ok {
		st, err := file.Stat()
		if err != nil {
			return nil, err
		}
		c.seen = append(c.seen, st)
	}
	if err := o.follow(ctx, &c, top, o.path); err != nil {
		return nil, errors.Join(err, c.image.Close())
	}
	c.image.data = c.layers
	return c.image, nil
}

// follow opens the backing files of top, the image at path, one after the other.
func (o opening) follow(ctx context.Context, c *chain, top *qcow2Layer, path string) error {
	name := o.name
	for guessed := false; top != nil && top.h.backing != ""; {
		h := top.h
		if !o.FollowBacking {
			return fmt.Errorf("has the backing file %q; read that too with --follow-backing, or join them with: qemu-img convert -O qcow2 %s NEW.qcow2: %w", h.backing, name, ErrFormat)
		}
		if guessed {
			return fmt.Errorf("%s has the backing file %q, but what refers to %s does not say that it is qcow2; if it is, say so with: qemu-img rebase -u -F qcow2 -b %s IMAGE: %w", name, h.backing, name, name, ErrFormat)
		}
		if len(c.layers) == maxBacking {
			return fmt.Errorf("more than %d images in a chain of backing files; join them with qemu-img convert: %w", maxBacking, ErrFormat)
		}
		next, err := resolveBacking(h.backing, path)
		if err != nil {
			return err
		}
		guessed = h.backingFormat == ""
		if top, err = c.add(ctx, next, Format(h.backingFormat)); err != nil {
			return fmt.Errorf("backing file %s: %w", next, err)
		}
		path, name = next, next
	}
	return nil
}

// resolveBacking returns the path of the backing file that the image at path names.
func resolveBacking(name, path string) (string, error) {
	protocol, _, found := strings.Cut(name, ":")
	switch {
	case strings.ContainsRune(name, 0):
		return "", fmt.Errorf("name of the backing file %q: %w", name, ErrDamaged)
	case found && !strings.Contains(protocol, "/"):
		return "", fmt.Errorf("the backing file %q is no plain file; join them with qemu-img convert: %w", name, ErrFormat)
	case filepath.IsAbs(name):
		return name, nil
	case path == "":
		return "", fmt.Errorf("the backing file %q is relative to an image that has no name here; import it from a file: %w", name, ErrFormat)
	}
	return filepath.Join(filepath.Dir(path), name), nil
}

// add opens the backing file at path. It returns nil instead of a layer if that is a raw image.
func (c *chain) add(ctx context.Context, path string, format Format) (*qcow2Layer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // does not wait if it is a pipe
	if err != nil {
		var failed *os.PathError
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return nil, err
	}
	c.image.closers = append(c.image.closers, f)
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	for _, before := range c.seen {
		if os.SameFile(before, st) {
			return nil, fmt.Errorf("is its own backing file: %w", ErrDamaged)
		}
	}
	c.seen = append(c.seen, st)
	var content source
	size := st.Size()
	switch {
	case st.Mode().IsRegular():
		content = holes{f: f, size: size}
		c.image.verify = append(c.image.verify, func() error { return unchanged(f, st) })
	case isBlockDevice(st.Mode()):
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return nil, err
		}
		content = solid{f}
	default:
		return nil, fmt.Errorf("is neither a file nor a block device; copy it to a file: %w", ErrFormat)
	}
	return c.layer(ctx, f, size, content, format)
}

func (c *chain) layer(ctx context.Context, f *os.File, size int64, content source, format Format) (*qcow2Layer, error) {
	head, err := readUpTo(f, size, sniffLength)
	if err != nil {
		return nil, err
	}
	format, packed, err := recognise(head, format)
	switch {
	case err != nil:
		return nil, err
	case packed != "":
		return nil, fmt.Errorf("is compressed with %s; unpack it: %w", packed, ErrFormat)
	case format == Raw:
		c.layers = append(c.layers, rawLayer{content, size})
		return nil, nil
	}
	l, err := openQcow2(ctx, f, size)
	if err != nil {
		return nil, err
	}
	if c.l1 += len(l.l1); c.l1 > maxChainL1 {
		return nil, fmt.Errorf("the tables of the chain of backing files are too large; join them with qemu-img convert: %w", ErrFormat)
	}
	c.layers = append(c.layers, l)
	return l, nil
}
