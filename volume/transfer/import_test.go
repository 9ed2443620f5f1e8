package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"testing"

	"skerry/chunk"
	"skerry/volume"
)

func TestImportRaw(t *testing.T) {
	for _, size := range []int{1, 511, 512, 4096, 100_000, segmentSize, segmentSize + 1, 5*segmentSize + 12_345} {
		want := sparse(size, uint64(size))
		img := open(t, file(t, want), Auto)
		if img.Format() != Raw || img.Size() != int64(size) || img.VolumeSize() != int64(size+511)/512*512 {
			t.Fatalf("%d bytes: %s of %d, volume of %d", size, img.Format(), img.Size(), img.VolumeSize())
		}
		d := newDisk(int(img.VolumeSize()))
		p, err := Import(t.Context(), img, d, Options{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, d.data[:size], want)
		same(t, d.data[size:], make([]byte, len(d.data)-size))
		if d.flushes != 1 || p.Done != int64(size) || p.Total != int64(size) || p.Copied != d.written {
			t.Errorf("%d bytes: %d flushes, %+v, %d written", size, d.flushes, p, d.written)
		}
	}
}

func TestImportIntoLargerVolume(t *testing.T) {
	want := sparse(10_000, 1)
	d := newDisk(1 << 20)
	if _, err := Import(t.Context(), open(t, file(t, want), Raw), d, Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, d.data[:10_000], want)
}

func TestImportIntoSmallerVolumeIsRefused(t *testing.T) {
	d := newDisk(512)
	if _, err := Import(t.Context(), open(t, file(t, make([]byte, 513)), Raw), d, Options{}); err == nil || d.written != 0 {
		t.Fatalf("%v, %d bytes written", err, d.written)
	}
}

func TestImportSkipsHolesAndZeroBlocks(t *testing.T) {
	path := file(t, nil)
	const size = 64 << 20
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	for _, off := range []int64{0, 20 << 20, 33<<20 + 8192} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{7}, 4096), off); err != nil {
			t.Fatal(err)
		}
		copy(want[off:], bytes.Repeat([]byte{7}, 4096))
	}
	if _, err := f.WriteAt(make([]byte, 1<<20), 40<<20); err != nil { // written zeros
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d := newDisk(size)
	if _, err := Import(t.Context(), open(t, path, Auto), d, Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, d.data, want)
	if d.written != 3*4096 {
		t.Errorf("%d bytes written, want 3 blocks", d.written)
	}
}

// shortSource gives what it has in small parts, and from an offset on nothing.
type shortSource struct {
	data []byte
	part int
	end  int64
	err  error
}

func (s shortSource) extent(_, n int64) (int64, bool, error) { return n, false, nil }

func (s shortSource) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.end {
		return 0, s.err
	}
	n := copy(p, s.data[off:min(off+int64(s.part), s.end)])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func random(src source, size int) *Image {
	return &Image{name: "test", format: Raw, size: int64(size), data: src}
}

func TestB09ShortReadsAreContinuedWhereTheyEnded(t *testing.T) {
	want := sparse(3*segmentSize+777, 9)
	d := newDisk(len(want) + 512 - len(want)%512)
	img := random(shortSource{data: want, part: 65_537, end: int64(len(want))}, len(want))
	if _, err := Import(t.Context(), img, d, Options{Workers: 3}); err != nil {
		t.Fatal(err)
	}
	same(t, d.data[:len(want)], want)
}

func TestB09ImageThatEndsEarlyIsAnError(t *testing.T) {
	want := sparse(2*segmentSize, 9)
	for _, tt := range []struct{ err, want error }{{io.EOF, ErrShort}, {nil, ErrShort}, {os.ErrPermission, os.ErrPermission}} {
		img := random(shortSource{data: want, part: 1 << 20, end: segmentSize + 4096, err: tt.err}, len(want))
		d := newDisk(len(want))
		if _, err := Import(t.Context(), img, d, Options{}); !errors.Is(err, tt.want) {
			t.Errorf("%v: %v, want %v", tt.err, err, tt.want)
		}
		if d.flushes != 0 {
			t.Error("a failed import was flushed")
		}
	}
}

// lyingSource says that it read more than it was asked for.
type lyingSource struct{ shortSource }

func (lyingSource) ReadAt(p []byte, _ int64) (int, error) { return len(p) + 1, nil }

func TestB09CountsAreChecked(t *testing.T) {
	if _, err := Import(t.Context(), random(lyingSource{}, 4096), newDisk(4096), Options{}); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

func TestImportTellsOfEveryFailure(t *testing.T) {
	broken := errors.New("broken")
	want := sparse(4*segmentSize, 3)
	for _, kind := range []volume.Kind{volume.Write, volume.Flush} {
		for n := int64(1); ; n++ {
			d := newDisk(len(want))
			var calls atomic.Int64
			d.fail = func(k volume.Kind, _ int64) error {
				if k == kind && calls.Add(1) == n {
					return broken
				}
				return nil
			}
			_, err := Import(t.Context(), random(shortSource{data: want, part: segmentSize, end: int64(len(want))}, len(want)), d, Options{})
			if calls.Load() < n {
				if err != nil {
					t.Errorf("kind %d, no failure: %v", kind, err)
				}
				break
			}
			if !errors.Is(err, broken) {
				t.Fatalf("kind %d, failure %d: %v", kind, n, err)
			}
			n += n / 4 // not each of hundreds
		}
	}
}

func TestCancelledImportEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := newDisk(8 * segmentSize)
	d.fail = func(volume.Kind, int64) error { cancel(); return nil }
	img := random(shortSource{data: sparse(len(d.data), 1), part: segmentSize, end: d.Size()}, len(d.data))
	if _, err := Import(ctx, img, d, Options{}); !errors.Is(err, context.Canceled) || d.flushes != 0 {
		t.Fatalf("%v, %d flushes", err, d.flushes)
	}
}

func TestImageThatChangesWhileItIsReadIsAnError(t *testing.T) {
	path := file(t, sparse(2*segmentSize, 4))
	d := newDisk(2 * segmentSize)
	d.fail = func(volume.Kind, int64) error {
		return os.Truncate(path, 2*segmentSize+1)
	}
	if _, err := Import(t.Context(), open(t, path, Auto), d, Options{}); !errors.Is(err, ErrChanged) {
		t.Fatal(err)
	}
}

func TestProgressOnlyGrows(t *testing.T) {
	want := sparse(9*segmentSize+1, 5)
	var last Progress
	calls := 0
	_, err := Import(t.Context(), random(shortSource{data: want, part: segmentSize, end: int64(len(want))}, len(want)), newDisk(len(want)+511), Options{
		Progress: func(p Progress) {
			calls++
			if p.Done <= last.Done || p.Copied < last.Copied || p.Total != int64(len(want)) {
				t.Errorf("%+v after %+v", p, last)
			}
			last = p
		},
	})
	if err != nil || calls != 10 || last.Done != int64(len(want)) {
		t.Fatalf("%v, %d calls, last %+v", err, calls, last)
	}
}

// pipeOf returns the reading end of a pipe into which all of content is written.
func pipeOf(t *testing.T, content []byte) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = w.Write(content) // the reader may have enough before the end
		_ = w.Close()
	}()
	t.Cleanup(func() {
		_ = r.Close()
		<-done
	})
	return r
}

func TestImportPipe(t *testing.T) {
	for _, size := range []int{1, 4096, sniffLength + 1, segmentSize, 3*segmentSize + 100} {
		want := sparse(size, uint64(size))
		want[0] = 1
		img, err := OpenStream(t.Context(), pipeOf(t, want), OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if img.Size() != -1 || img.VolumeSize() != -1 {
			t.Errorf("size %d, volume %d, want them unknown", img.Size(), img.VolumeSize())
		}
		d := newDisk(16 * segmentSize)
		p, err := Import(t.Context(), img, d, Options{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, d.data[:size], want)
		if p.Done != int64(size) || p.Total != -1 || d.flushes != 1 {
			t.Errorf("%d bytes: %+v, %d flushes", size, p, d.flushes)
		}
	}
}

func TestImportPipeWithMoreThanTheVolumeIsAnError(t *testing.T) {
	img, err := OpenStream(t.Context(), pipeOf(t, make([]byte, segmentSize+1)), OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Import(t.Context(), img, newDisk(segmentSize), Options{}); err == nil {
		t.Fatal("no error")
	}
}

func TestCancelledImportDoesNotWaitForThePipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	if _, err := w.Write(make([]byte, sniffLength)); err != nil {
		t.Fatal(err)
	}
	img, err := OpenStream(t.Context(), r, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Import(ctx, img, newDisk(segmentSize), Options{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := OpenStream(ctx, r, OpenOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestIsZero(t *testing.T) {
	b := make([]byte, chunk.BlockSize)
	if !isZero(b) || !isZero(nil) || !isZero(b[:1]) {
		t.Error("zeros are not zero")
	}
	for i := range b {
		b[i] = 1
		if isZero(b) {
			t.Errorf("not zero at %d", i)
		}
		b[i] = 0
	}
}

// A large import is flushed while it goes on; when such a flush fails, so does the import, and it writes no more.
func TestLargeImportIsFlushedOnTheWay(t *testing.T) {
	want := bytes.Repeat([]byte("data"), (2*flushEvery+segmentSize)/4)
	image := func() *Image {
		return random(shortSource{data: want, part: segmentSize, end: int64(len(want))}, len(want))
	}
	d := newDisk(len(want))
	if _, err := Import(t.Context(), image(), d, Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, d.data, want)
	if d.flushes < 2 {
		t.Errorf("%d flushes", d.flushes)
	}
	broken := errors.New("broken")
	d = newDisk(len(want))
	d.fail = func(k volume.Kind, _ int64) error {
		if k == volume.Flush {
			return broken
		}
		return nil
	}
	if _, err := Import(t.Context(), image(), d, Options{}); !errors.Is(err, broken) || d.flushes != 0 {
		t.Errorf("%v, %d flushes", err, d.flushes)
	}
}
