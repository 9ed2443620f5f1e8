package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skerry/volume"
)

// Places that images come from and go to, other than plain files.

func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImportAndExportThroughFIFOs(t *testing.T) {
	for _, format := range []Format{Raw, Qcow2} {
		want := sparse(2*segmentSize+512, 3)
		want[0] = 1
		path := fifo(t)
		done := make(chan error, 1)
		go func() {
			_, err := ExportFile(t.Context(), diskWith(want), path, ExportOptions{Format: format})
			done <- err
		}()
		got := importFile(t, path, OpenOptions{Size: int64(len(want))})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
	}
}

func TestCancelledImportDoesNotWaitForAWriter(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenFile(ctx, fifo(t), OpenOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestCancelledExportDoesNotWaitForAReader(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ExportFile(ctx, diskWith(make([]byte, 512)), fifo(t), ExportOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// With a reader that reads nothing: more is written than a pipe takes.
	d := diskWith(bytes.Repeat([]byte{1}, segmentSize))
	for name, export := range map[string]func(ctx context.Context) error{
		"named": func(ctx context.Context) error {
			path := fifo(t)
			r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				return err
			}
			_, err = ExportFile(ctx, d, path, ExportOptions{})
			return errors.Join(err, r.Close())
		},
		"without a name": func(ctx context.Context) error {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			_, err = ExportStream(ctx, d, w, ExportOptions{})
			return errors.Join(err, w.Close(), r.Close())
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		d.fail = func(volume.Kind, int64) error { go func() { cancel(); close(ended) }(); d.fail = nil; return nil }
		if err := export(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		<-ended
	}
}

// The writing end that was given stays in blocking mode and open.
func TestExportToAPipeLeavesItAsItWas(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before, err := unix.FcntlInt(w.Fd(), unix.F_GETFL, 0) // Fd makes it block
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ExportStream(t.Context(), diskWith(make([]byte, 512)), w, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	if after, err := unix.FcntlInt(w.Fd(), unix.F_GETFL, 0); err != nil || after != before {
		t.Errorf("flags %#x, before %#x, %v", after, before, err)
	}
	if _, err := w.WriteString("x"); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(r); err != nil || len(b) != 513 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestExportReplacesWhatALinkLeadsTo(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	link, real := filepath.Join(dir, "link"), filepath.Join(other, "real")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	d := diskWith(sparse(4096, 1))
	for _, force := range []bool{false, true} {
		if _, err := ExportFile(t.Context(), d, link, ExportOptions{Force: force}); err == nil || !strings.Contains(err.Error(), "leads nowhere") {
			t.Error(err)
		}
	}
	if err := os.WriteFile(real, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ExportFile(t.Context(), d, link, ExportOptions{}); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if _, err := ExportFile(t.Context(), d, link, ExportOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != real {
		t.Errorf("%q, %v", to, err)
	}
	b, err := os.ReadFile(real)
	if err != nil {
		t.Fatal(err)
	}
	same(t, b, d.data)
	onlyFile(t, other, "real")
	onlyFile(t, dir, "link")
}

func TestExportToTheLongestName(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []int{218, 219, 220, 255} {
		name := strings.Repeat("x", n)
		if _, err := ExportFile(t.Context(), diskWith(make([]byte, 512)), filepath.Join(dir, name), ExportOptions{}); err != nil {
			t.Fatal(err)
		}
		onlyFile(t, dir, name)
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// No space for the image is not no space in the pool.
func TestFullPlacesAreToldApart(t *testing.T) {
	if _, err := ExportFile(t.Context(), diskWith(make([]byte, 512)), "/dev/full", ExportOptions{}); !errors.Is(err, ErrSpace) || !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	if err := imageSpace(unix.EIO, "x"); err != unix.EIO {
		t.Error(err)
	}
	d := diskWith(bytes.Repeat([]byte{1}, 4096))
	d.fail = func(volume.Kind, int64) error { return unix.ENOSPC }
	if _, err := ExportFile(t.Context(), d, filepath.Join(t.TempDir(), "x"), ExportOptions{}); errors.Is(err, ErrSpace) || !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (imageFile{f, "here"}).WriteAt([]byte("x"), 0); !errors.Is(err, ErrSpace) {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
