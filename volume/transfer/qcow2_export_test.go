package transfer

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"skerry/volume"
)

// checked fails unless qemu finds no error in the image and reads from it what is wanted.
func checked(t *testing.T, path string, want []byte) {
	t.Helper()
	if out, err := exec.Command("qemu-img", "check", path).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("No errors")) {
		t.Fatalf("qemu-img check: %v: %s (install it with: make deps)", err, out)
	}
	raw := file(t, want)
	qemuImg(t, "compare", "-f", "qcow2", "-F", "raw", path, raw)
	same(t, importFile(t, path, OpenOptions{}), want)
}

// compressible is like sparse, with text instead of noise in half of the data, and some zeros within.
func compressible(size int, seed uint64) []byte {
	b := sparse(size, seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	for off := 0; off < size; off += 300_000 {
		if rng.IntN(2) == 0 {
			copy(b[off:min(size, off+150_000)], bytes.Repeat([]byte("all work and no play "), 10_000))
		}
	}
	return b
}

func TestExportQcow2(t *testing.T) {
	for _, c := range []Compression{Uncompressed, Zlib, Zstd} {
		for _, size := range []int{512, outCluster - 512, outCluster, 3*segmentSize + 512, 21 << 20} {
			want := compressible(size, uint64(size))
			path := filepath.Join(t.TempDir(), "out.qcow2")
			p, err := ExportFile(t.Context(), diskWith(want), path, ExportOptions{Format: Qcow2, Compress: c})
			if err != nil {
				t.Fatalf("%d bytes, %q: %v", size, c, err)
			}
			if p.Done != int64(size) || p.Copied > int64(size) {
				t.Errorf("%d bytes, %q: %+v", size, c, p)
			}
			checked(t, path, want)
			onlyFile(t, filepath.Dir(path), "out.qcow2")
		}
	}
}

func TestStreamQcow2(t *testing.T) {
	for _, size := range []int{512, outCluster, 3*segmentSize + 512, 21 << 20} {
		want := compressible(size, uint64(size))
		var b bytes.Buffer
		if _, err := ExportStream(t.Context(), diskWith(want), &b, ExportOptions{Format: Qcow2}); err != nil {
			t.Fatal(err)
		}
		checked(t, file(t, b.Bytes()), want)
	}
	if _, err := ExportStream(t.Context(), diskWith(make([]byte, 512)), &bytes.Buffer{}, ExportOptions{Format: Qcow2, Compress: Zlib}); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func TestExportEmptyQcow2(t *testing.T) {
	want := make([]byte, 8<<20)
	path := filepath.Join(t.TempDir(), "out.qcow2")
	if _, err := ExportFile(t.Context(), diskWith(want), path, ExportOptions{Format: Qcow2}); err != nil {
		t.Fatal(err)
	}
	checked(t, path, want)
	if st, err := os.Stat(path); err != nil || st.Size() > 5*outCluster {
		t.Errorf("%v, %d bytes", err, st.Size())
	}
}

// hugeDisk has a few clusters of data and zeros elsewhere.
type hugeDisk struct {
	length int64
	data   map[int64]byte // what the cluster at an offset is full of

	mu    sync.Mutex
	reads int
}

func (d *hugeDisk) Size() int64 { return d.length }

func (d *hugeDisk) ReadAt(_ context.Context, p []byte, off int64) error {
	d.mu.Lock()
	d.reads++
	d.mu.Unlock()
	for i := range p {
		p[i] = d.data[(off+int64(i))/outCluster*outCluster]
	}
	return nil
}

func (d *hugeDisk) Extents(_ context.Context, off, n int64, fn func(volume.Extent) bool) error {
	for end := off + n; off < end; {
		e := volume.Extent{Offset: off, Length: end - off, Flags: volume.Zero}
		for at := range d.data {
			switch {
			case at <= off && off < at+outCluster:
				e.Length, e.Flags = min(at+outCluster, end)-off, 0
			case at > off && e.Flags != 0:
				e.Length = min(e.Length, at-off)
			}
		}
		if !fn(e) {
			return nil
		}
		off += e.Length
	}
	return nil
}

// A file with a table of level 2 here and there, of which the last is needed first by other workers.
func TestExportHugeSparseQcow2(t *testing.T) {
	d := &hugeDisk{length: 1<<40 + 512, data: map[int64]byte{0: 1, outRegion - outCluster: 2, outRegion: 3, 700 << 30: 4, 1 << 40: 5}}
	for _, c := range []Compression{Uncompressed, Zlib, Zstd} {
		path := filepath.Join(t.TempDir(), "out.qcow2")
		p, err := ExportFile(t.Context(), d, path, ExportOptions{Format: Qcow2, Compress: c})
		if err != nil || p.Done != d.length || p.Copied != 4*outCluster+512 {
			t.Fatalf("%v, %+v", err, p)
		}
		hugeChecked(t, path, d)
	}
	var b bytes.Buffer
	if _, err := ExportStream(t.Context(), d, &b, ExportOptions{Format: Qcow2}); err != nil {
		t.Fatal(err)
	}
	hugeChecked(t, file(t, b.Bytes()), d)
	if d.reads > 100 {
		t.Errorf("%d reads", d.reads)
	}
	d.length = int64(qcow2MaxL1)*outRegion + 512
	if _, err := ExportFile(t.Context(), d, filepath.Join(t.TempDir(), "x"), ExportOptions{Format: Qcow2}); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func hugeChecked(t *testing.T, path string, d *hugeDisk) {
	t.Helper()
	if st, err := os.Stat(path); err != nil || st.Size() > 32*outCluster {
		t.Errorf("%v, %d bytes", err, st.Size())
	}
	if out, err := exec.Command("qemu-img", "check", path).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img check: %v: %s (install it with: make deps)", err, out)
	}
	img := open(t, path, Auto)
	if img.Size() != d.length {
		t.Errorf("%d bytes", img.Size())
	}
	found := 0
	for off := int64(0); off < img.size; {
		n, zero, err := img.data.extent(off, img.size-off)
		if err != nil {
			t.Fatal(err)
		}
		for at := off; !zero && at < off+n; at += outCluster {
			b := make([]byte, min(outCluster, img.size-at))
			if err := readFull(img.data, b, at); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, bytes.Repeat([]byte{d.data[at]}, len(b))) {
				t.Errorf("wrong data at %d", at)
			}
			found++
		}
		off += n
	}
	if found != len(d.data) {
		t.Errorf("%d clusters of data", found)
	}
}

// As on a block device: what was there before does not show.
func TestExportQcow2InPlace(t *testing.T) {
	want := compressible(9<<20+512, 3)
	for _, c := range []Compression{Uncompressed, Zstd} {
		path := file(t, bytes.Repeat([]byte{0xff}, 12<<20))
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fillDevice(t.Context(), diskWith(want), f, ExportOptions{Format: Qcow2, Compress: c}); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		checked(t, path, want)
	}
}

func TestFailedQcow2ExportLeavesNothing(t *testing.T) {
	broken := errors.New("broken")
	d := diskWith(compressible(16<<20, 2))
	for _, c := range []Compression{Uncompressed, Zlib, Zstd} {
		dir := t.TempDir()
		d.fail = func(_ volume.Kind, off int64) error {
			if off >= 9<<20 {
				return broken
			}
			return nil
		}
		if _, err := ExportFile(t.Context(), d, filepath.Join(dir, "x"), ExportOptions{Format: Qcow2, Compress: c}); !errors.Is(err, broken) {
			t.Error(err)
		}
		onlyFile(t, dir, "")
	}
	if err := (&qcow2File{w: shortWriter{}}).writeAt(make([]byte, 10), 0); err == nil {
		t.Error("a short write is no error")
	}
}

// Refcounts take clusters too, which need refcounts.
func TestRefcountsCoverThemselves(t *testing.T) {
	for _, clusters := range []int64{1, outPerBlock - 2, outPerBlock - 1, outPerBlock, 5*outPerBlock - 6, 8192*outPerBlock - 8192, 1 << 34} {
		blocks, table := refLayout(clusters)
		if all := clusters + blocks + table; blocks*outPerBlock < all || (blocks-1)*outPerBlock >= all || table != clustersOf(blocks*8) {
			t.Errorf("%d clusters: %d blocks, a table of %d", clusters, blocks, table)
		}
	}
}
