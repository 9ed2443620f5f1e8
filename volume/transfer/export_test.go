package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"skerry/volume"
)

func diskWith(content []byte) *disk { return &disk{data: content} }

func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != name {
			t.Errorf("%s is left", e.Name())
		}
	}
	if name == "" && len(entries) != 0 || name != "" && len(entries) != 1 {
		t.Errorf("%d files, want only %q", len(entries), name)
	}
}

func TestExportFileIsSparse(t *testing.T) {
	want := make([]byte, 8*segmentSize+512)
	copy(want[3*segmentSize+4096:], bytes.Repeat([]byte{9}, 10_000))
	copy(want[len(want)-512:], bytes.Repeat([]byte{8}, 512))
	dir := t.TempDir()
	path := filepath.Join(dir, "out.raw")
	p, err := ExportFile(t.Context(), diskWith(want), path, ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, want)
	onlyFile(t, dir, "out.raw")
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 > 64<<10 {
		t.Errorf("the file takes %d bytes", st.Blocks*512)
	}
	if p.Done != int64(len(want)) || p.Copied != 3*4096+512 {
		t.Errorf("%+v", p)
	}
}

func TestExportReplacesOnlyWithForce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.raw")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := diskWith(sparse(100*512, 1))
	if _, err := ExportFile(t.Context(), d, path, ExportOptions{}); !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := ExportFile(t.Context(), d, path, ExportOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, d.data)
	onlyFile(t, dir, "out.raw")
}

func TestExportDoesNotReplaceAFileThatAppearsMeanwhile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.raw")
	d := diskWith(sparse(100*512, 1))
	d.fail = func(volume.Kind, int64) error { return os.WriteFile(path, []byte("mine"), 0o600) }
	if _, err := ExportFile(t.Context(), d, path, ExportOptions{}); !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Fatalf("%q, %v", b, err)
	}
	onlyFile(t, dir, "out.raw")
}

func TestFailedExportLeavesNothing(t *testing.T) {
	broken := errors.New("broken")
	dir := t.TempDir()
	d := diskWith(sparse(3*segmentSize, 2))
	d.fail = func(_ volume.Kind, off int64) error {
		if off >= segmentSize {
			return broken
		}
		return nil
	}
	if _, err := ExportFile(t.Context(), d, filepath.Join(dir, "out.raw"), ExportOptions{}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	onlyFile(t, dir, "")
	ctx, cancel := context.WithCancel(t.Context())
	d.fail = func(volume.Kind, int64) error { cancel(); return nil }
	if _, err := ExportFile(ctx, d, filepath.Join(dir, "out.raw"), ExportOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	onlyFile(t, dir, "")
}

func TestExportToOddPlaces(t *testing.T) {
	d := diskWith(sparse(512, 2))
	if _, err := ExportFile(t.Context(), d, t.TempDir(), ExportOptions{Force: true}); err == nil {
		t.Error("exports over a directory")
	}
	if _, err := ExportFile(t.Context(), d, filepath.Join(t.TempDir(), "no", "such"), ExportOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := ExportFile(t.Context(), d, os.DevNull, ExportOptions{}); err != nil {
		t.Error(err)
	}
}

// writes what a device holds to a file that holds something else, as to a block device.
func TestExportInPlaceMakesZeros(t *testing.T) {
	want := sparse(2*segmentSize, 6)
	path := file(t, bytes.Repeat([]byte{0xff}, len(want)+4096))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fillDevice(t.Context(), diskWith(want), f, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got[:len(want)], want)
	same(t, got[len(want):], bytes.Repeat([]byte{0xff}, 4096))
}

func TestExportToSmallDeviceIsRefused(t *testing.T) {
	f, err := os.OpenFile(file(t, make([]byte, 511)), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fillDevice(t.Context(), diskWith(make([]byte, 512)), f, ExportOptions{}); err == nil {
		t.Error("no error")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestExportStream(t *testing.T) {
	want := sparse(2*segmentSize+512, 7)
	var b bytes.Buffer
	if _, err := ExportStream(t.Context(), diskWith(want), &b, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	same(t, b.Bytes(), want)
}

// shortWriter takes less than it is given and says nothing.
type shortWriter struct{}

func (shortWriter) Write(p []byte) (int, error) { return len(p) - 1, nil }

func (shortWriter) WriteAt(p []byte, _ int64) (int, error) { return len(p) - 1, nil }

func TestB09ShortWritesAreErrors(t *testing.T) {
	d := diskWith(bytes.Repeat([]byte{1}, 4096))
	if _, err := ExportStream(t.Context(), d, shortWriter{}, ExportOptions{}); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	if _, err := exportRandom(t.Context(), d, shortWriter{}, Options{}, nil); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
}

// gappyDisk shows extents that do not cover what was asked for.
type gappyDisk struct {
	*disk
	extents []volume.Extent
}

func (g gappyDisk) Extents(_ context.Context, _, _ int64, fn func(volume.Extent) bool) error {
	for _, e := range g.extents {
		if !fn(e) {
			break
		}
	}
	return nil
}

func TestB09ExtentsMustCoverTheRange(t *testing.T) {
	for _, extents := range [][]volume.Extent{
		nil,
		{{Offset: 0, Length: 4096}},
		{{Offset: 4096, Length: 4096}},
		{{Offset: 0, Length: 4096}, {Offset: 4096, Length: 0}},
		{{Offset: 0, Length: -4096}},
	} {
		d := gappyDisk{diskWith(make([]byte, 8192)), extents}
		if _, err := ExportStream(t.Context(), d, io.Discard, ExportOptions{}); err == nil {
			t.Errorf("%v: no error", extents)
		}
	}
	past := gappyDisk{diskWith(sparse(8192, 1)), []volume.Extent{{Offset: 0, Length: 1 << 40}}}
	if _, err := ExportStream(t.Context(), past, io.Discard, ExportOptions{}); err != nil {
		t.Errorf("an extent that goes on beyond the range: %v", err)
	}
}
