package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// packed returns what a program makes of content.
func packed(t testing.TB, content []byte, program ...string) []byte {
	t.Helper()
	c := exec.Command(program[0], program[1:]...)
	c.Stdin = bytes.NewReader(content)
	b, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v (install it with: make deps)", strings.Join(program, " "), err)
	}
	return b
}

func packers() [][]string {
	return [][]string{
		{"gzip", "-c"}, {"zstd", "-c", "-q"}, {"zstd", "-c", "-q", "--long=27"}, {"xz", "-c"}, {"xz", "-c", "-T2", "--block-size=100000"},
		{"xz", "-c", "--check=sha256"}, {"xz", "-c", "--check=none", "-0"}, {"xz", "-c", "--check=crc32", "-9"},
	}
}

func TestImportPackedRaw(t *testing.T) {
	for _, program := range packers() {
		t.Run(strings.Join(program, " "), func(t *testing.T) {
			sizes := []int{1, 512, 300_000}
			if program[0] != "xz" { // which is slow
				sizes = append(sizes, segmentSize+100)
			}
			for _, size := range sizes {
				want := sparse(size, uint64(size))
				want[0] = 1
				b := packed(t, want, program...)
				img := open(t, file(t, b), Auto)
				if img.Format() != Raw || img.Compression() != program[0] || img.Size() != int64(size) {
					t.Fatalf("%s in %s, %d bytes", img.Format(), img.Compression(), img.Size())
				}
				d := newDisk(int(img.VolumeSize()))
				if p, err := Import(t.Context(), img, d, Options{}); err != nil || p.Done != int64(size) {
					t.Fatalf("%v, %+v", err, p)
				}
				same(t, d.data[:size], want)
				// From a pipe, and with the size of the volume said.
				got, _ := importStreamed(t, pipeOf(t, b), OpenOptions{Size: 2 * segmentSize})
				same(t, got[:size], want)
				// Two of them, one behind the other, are one image.
				got, _ = importStreamed(t, pipeOf(t, append(bytes.Clone(b), b...)), OpenOptions{Size: 4 * segmentSize})
				same(t, got[:2*size], append(bytes.Clone(want), want...))
			}
		})
	}
}

func TestImportPackedQcow2(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	want := sparse(3<<20, 4)
	image, err := os.ReadFile(qcow2Of(t, want, "compression_type=zstd", "-c"))
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range packers() {
		b := packed(t, image, program...)
		img := open(t, file(t, b), Auto)
		if img.Format() != Qcow2 || img.Compression() != program[0] {
			t.Fatalf("%s in %s", img.Format(), img.Compression())
		}
		d := newDisk(int(img.VolumeSize()))
		if _, err := Import(t.Context(), img, d, Options{}); err != nil {
			t.Fatal(err)
		}
		same(t, d.data, want)
		got, _ := importStreamed(t, pipeOf(t, b), OpenOptions{Format: Qcow2})
		same(t, got, want)
	}
	onlyFile(t, os.Getenv("TMPDIR"), "")
}

func TestPackedImageCanBeTakenAsItIs(t *testing.T) {
	b := packed(t, sparse(100_000, 1), "gzip", "-c")
	got := importFile(t, file(t, b), OpenOptions{Format: Raw})
	same(t, got[:len(b)], b)
}

func TestDamagedPackingIsAnError(t *testing.T) {
	want := sparse(400_000, 8)
	want[0] = 1
	for _, program := range packers() {
		b := packed(t, want, program...)
		for _, cut := range []int{1, 12, len(b) / 2, len(b) - 10} {
			if _, err := OpenFile(t.Context(), file(t, b[:len(b)-cut]), OpenOptions{}); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v without %d bytes: %v", program, cut, err)
			}
			img, err := OpenStream(t.Context(), pipeOf(t, b[:len(b)-cut]), OpenOptions{})
			if err == nil {
				_, err = Import(t.Context(), img, newDisk(2*segmentSize), Options{})
			}
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%v without %d bytes, from a pipe: %v", program, cut, err)
			}
		}
		if program[0] == "xz" && !strings.Contains(strings.Join(program, " "), "none") {
			b[len(b)*2/3] ^= 4
			if _, err := OpenFile(t.Context(), file(t, b), OpenOptions{}); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v with a changed bit: %v", program, err)
			}
		}
	}
}

func TestPackingTwiceIsRefused(t *testing.T) {
	b := packed(t, packed(t, sparse(1<<20, 1), "xz", "-c"), "gzip", "-c")
	if _, err := OpenFile(t.Context(), file(t, b), OpenOptions{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "gzip and with xz") {
		t.Fatal(err)
	}
	if _, err := OpenFile(t.Context(), file(t, packed(t, nil, "gzip", "-c")), OpenOptions{}); err == nil {
		t.Error("an empty image is opened")
	}
}

func TestUnpackingIsBounded(t *testing.T) {
	bomb := packed(t, make([]byte, 64<<20), "gzip", "-9", "-c")
	img, err := OpenFile(t.Context(), file(t, bomb), OpenOptions{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Import(t.Context(), img, newDisk(1<<20), Options{}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if err := img.Close(); err != nil {
		t.Error(err)
	}
	o := opening{}
	whole := func(context.Context) (io.ReadCloser, error) { return unpack(packedGzip, bytes.NewReader(bomb)) }
	if _, err := o.drain(t.Context(), whole, 10<<20, func([]byte, int64) error { return nil }); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(Progress) { cancel() }
	if _, err := o.measure(ctx, whole); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A small qcow2 image that goes on and on behind its end is not spooled whole.
func TestSpoolingIsBounded(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	image, err := os.ReadFile(qcow2Of(t, sparse(1<<20, 1), ""))
	if err != nil {
		t.Fatal(err)
	}
	b := packed(t, append(image, make([]byte, 80<<20)...), "zstd", "-c", "-q")
	if _, err := OpenFile(t.Context(), file(t, b), OpenOptions{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
	onlyFile(t, os.Getenv("TMPDIR"), "")
}

// A pipe is read once: what shows the format must not take from it what the import needs.
func TestTheBeginningOfAPipeIsKept(t *testing.T) {
	want := bytes.Repeat([]byte("some content "), 100_000)
	b := packed(t, want, "zstd", "-c", "-q", "--no-check")
	for _, n := range []uint32{1000, packedHead - 100, 2 * packedHead} {
		skippable := binary.LittleEndian.AppendUint32([]byte("\x28\xb5\x2f\xfd\x20\x01\x09\x00\x00x\x50\x2a\x4d\x18"), n) // a frame of one byte first
		stream := append(append(skippable, make([]byte, n)...), b...)
		img, err := OpenStream(t.Context(), pipeOf(t, stream), OpenOptions{Size: 2 << 20})
		if err != nil {
			if n < packedHead-100 || !errors.Is(err, ErrDamaged) {
				t.Errorf("%d bytes: %v", n, err)
			}
			continue
		}
		d := newDisk(2 << 20)
		if _, err := Import(t.Context(), img, d, Options{}); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		same(t, d.data[:len(want)+1], append([]byte("x"), want...))
	}
}

// What asks for more memory than is reasonable is refused before it is allocated.
func TestWindowsAreBounded(t *testing.T) {
	b := packed(t, bytes.Repeat([]byte("x"), 100), "xz", "-c")
	// The header of the first block: its length, flags, the filter's id, the length of its properties, the size of the dictionary.
	header := b[12:24]
	if header[2] != xzLZMA2 {
		t.Fatalf("%x", header)
	}
	header[4] = 40 // 4 GiB
	binary.LittleEndian.PutUint32(header[8:], crc32.ChecksumIEEE(header[:8]))
	if _, err := OpenFile(t.Context(), file(t, b), OpenOptions{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "dictionary") {
		t.Error(err)
	}
	// A frame of zstd without content size, with a window of 2 GiB.
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0}
	if _, err := OpenFile(t.Context(), file(t, frame), OpenOptions{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "window") {
		t.Error(err)
	}
}

// FuzzUnpack unpacks anything: an error or some bytes, no panic, no endless loop.
func FuzzUnpack(f *testing.F) {
	content := sparse(10_000, 1)
	for _, program := range packers() {
		f.Add(packed(f, content, program...))
	}
	f.Add([]byte(xzMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, p, err := recognise(b, Auto)
		if err != nil || p == "" {
			return
		}
		r, err := unpack(p, bytes.NewReader(b))
		if err != nil {
			return
		}
		buf := make([]byte, 64<<10)
		for range 64 {
			if n, err := readMost(r, buf); err != nil {
				break
			} else if n != len(buf) {
				t.Fatalf("%d bytes without an error", n)
			}
		}
		if err := r.Close(); err != nil && !errors.Is(err, zstd.ErrDecoderClosed) {
			t.Log(err)
		}
	})
}
