package transfer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func qemuImg(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %s: %v: %s (install it with: make deps)", strings.Join(args, " "), err, out)
	}
}

// qcow2Of makes a qcow2 image of a content.
func qcow2Of(t testing.TB, content []byte, options string, convert ...string) string {
	t.Helper()
	dir := t.TempDir()
	raw, path := filepath.Join(dir, "raw"), filepath.Join(dir, "image.qcow2")
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"convert", "-f", "raw", "-O", "qcow2"}, convert...)
	if options != "" {
		args = append(args, "-o", options)
	}
	qemuImg(t, append(args, raw, path)...)
	return path
}

func importQcow2(t *testing.T, path string) ([]byte, Progress) {
	t.Helper()
	img := open(t, path, Auto)
	if img.Format() != Qcow2 {
		t.Fatalf("recognised as %s", img.Format())
	}
	d := newDisk(int(img.VolumeSize()))
	p, err := Import(t.Context(), img, d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d.data, p
}

func TestImportQcow2(t *testing.T) {
	for _, tt := range []struct {
		name, options string
		convert       []string
	}{
		{name: "default"},
		{name: "version 2", options: "compat=0.10"},
		{name: "smallest clusters", options: "cluster_size=512"},
		{name: "largest clusters", options: "cluster_size=2M"},
		{name: "subclusters", options: "extended_l2=on,cluster_size=128k"},
		{name: "zlib", convert: []string{"-c"}},
		{name: "zstd", options: "compression_type=zstd", convert: []string{"-c"}},
		{name: "zlib, largest clusters", options: "cluster_size=2M", convert: []string{"-c"}},
		{name: "zstd, largest clusters", options: "compression_type=zstd,cluster_size=2M", convert: []string{"-c"}},
		{name: "zlib, version 2", options: "compat=0.10", convert: []string{"-c"}},
		{name: "preallocated", options: "preallocation=full"},
		{name: "metadata preallocated", options: "preallocation=metadata"},
		{name: "no zero detection", convert: []string{"-S", "0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := sparse(9<<20+3*512, 11)
			got, p := importQcow2(t, qcow2Of(t, want, tt.options, tt.convert...))
			same(t, got, want)
			if p.Done != int64(len(want)) || p.Copied >= int64(len(want)) {
				t.Errorf("%+v", p)
			}
		})
	}
}

// After writes, discards and an internal snapshot, clusters are shared, zero and out of order.
func TestImportUsedQcow2(t *testing.T) {
	path := qcow2Of(t, sparse(16<<20, 12), "")
	qemuImg(t, "snapshot", "-c", "s1", path)
	for _, args := range [][]string{
		{"-c", "write -P 0x5a 1M 300k"}, {"-c", "write -z 5M 1M"}, {"-c", "discard 8M 2M"}, {"-c", "write -P 1 15M 64k"},
	} {
		if out, err := exec.Command("qemu-io", append(append([]string{"-f", "qcow2"}, args...), path)...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-io: %v: %s (install it with: make deps)", err, out)
		}
	}
	raw := filepath.Join(t.TempDir(), "raw")
	qemuImg(t, "convert", "-O", "raw", path, raw)
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := importQcow2(t, path)
	same(t, got, want)
}

func TestImportEmptyQcow2(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	qemuImg(t, "create", "-f", "qcow2", path, "1G")
	img := open(t, path, Auto)
	if img.Size() != 1<<30 {
		t.Fatalf("%d bytes", img.Size())
	}
	d := newDisk(1 << 30)
	if _, err := Import(t.Context(), img, d, Options{}); err != nil || d.written != 0 {
		t.Fatalf("%v, %d bytes written", err, d.written)
	}
}

func TestUnreadableKindsAreRefused(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data.qcow2")
	qemuImg(t, "create", "-f", "qcow2", "-o", "data_file="+filepath.Join(dir, "raw"), data, "1M")
	// qemu-img cannot always make a luks one: on a busy machine it gives up measuring how fast that is.
	encrypted := filepath.Join(dir, "encrypted.qcow2")
	qemuImg(t, "create", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s", encrypted, "1M")
	for _, path := range []string{data, encrypted} {
		if _, err := OpenFile(t.Context(), path, OpenOptions{Format: Auto}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, kind := range []string{"vmdk", "vdi", "vhdx", "vpc", "vpc -o subformat=fixed", "qed", "qcow", "parallels"} {
		format, options, _ := strings.Cut(kind, " ")
		path := filepath.Join(dir, "x."+format)
		qemuImg(t, append([]string{"create", "-f", format, path, "4M"}, strings.Fields(options)...)...)
		_, err := OpenFile(t.Context(), path, OpenOptions{Format: Auto})
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "qemu-img convert -f "+format) {
			t.Errorf("%s: %v", format, err)
		}
		if img := open(t, path, Raw); img.Format() != Raw {
			t.Errorf("%s, taken as raw: %s", format, img.Format())
		}
	}
}

func TestFormatCanBeForced(t *testing.T) {
	path := qcow2Of(t, sparse(1<<20, 1), "")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img := open(t, path, Raw)
	d := newDisk(int(img.VolumeSize()))
	if _, err := Import(t.Context(), img, d, Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, d.data[:len(content)], content)
	if _, err := OpenFile(t.Context(), file(t, []byte("no qcow2")), OpenOptions{Format: Qcow2}); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if _, err := OpenFile(t.Context(), path, OpenOptions{Format: "vmdk"}); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if _, err := OpenFile(t.Context(), file(t, nil), OpenOptions{Format: Auto}); err == nil {
		t.Error("an empty image is opened")
	}
}

func TestQcow2FromPipe(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	want := sparse(3<<20, 1)
	content, err := os.ReadFile(qcow2Of(t, want, ""))
	if err != nil {
		t.Fatal(err)
	}
	got, format := importStreamed(t, pipeOf(t, content), OpenOptions{})
	same(t, got, want)
	if format != Qcow2 {
		t.Error(format)
	}
	onlyFile(t, os.Getenv("TMPDIR"), "")
}

// importStreamed imports an image that f reads, and closes it.
func importStreamed(t *testing.T, f *os.File, o OpenOptions) ([]byte, Format) {
	t.Helper()
	img, err := OpenStream(t.Context(), f, o)
	if err != nil {
		t.Fatal(err)
	}
	d := newDisk(int(max(img.VolumeSize(), o.Size)))
	if _, err := Import(t.Context(), img, d, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := img.Close(); err != nil {
		t.Error(err)
	}
	return d.data, img.Format()
}

func TestTruncatedQcow2IsAnError(t *testing.T) {
	for _, convert := range [][]string{nil, {"-c"}} {
		path := qcow2Of(t, bytes.Repeat([]byte("data"), 1<<20), "", convert...)
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, st.Size()*3/4); err != nil {
			t.Fatal(err)
		}
		img, err := OpenFile(t.Context(), path, OpenOptions{Format: Auto})
		if err == nil {
			_, err = Import(t.Context(), img, newDisk(4<<20), Options{})
			if cerr := img.Close(); cerr != nil {
				t.Error(cerr)
			}
		}
		if err == nil {
			t.Errorf("%v: no error", convert)
		}
	}
}

// header returns the header of a sound image of 1 MiB, changed.
func header(change func(b []byte)) []byte {
	b := make([]byte, 4*65536)
	copy(b, qcow2Magic)
	be := binary.BigEndian
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 16)
	be.PutUint64(b[24:], 1<<20)
	be.PutUint32(b[36:], 1)
	be.PutUint64(b[40:], 3*65536)
	be.PutUint64(b[48:], 1*65536)
	be.PutUint32(b[56:], 1)
	be.PutUint32(b[100:], 104)
	change(b)
	return b
}

func TestHeaderIsChecked(t *testing.T) {
	be := binary.BigEndian
	sound := header(func([]byte) {})
	if _, err := openQcow2(t.Context(), bytes.NewReader(sound), int64(len(sound))); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"version 1":               header(func(b []byte) { be.PutUint32(b[4:], 1) }),
		"version 4":               header(func(b []byte) { be.PutUint32(b[4:], 4) }),
		"clusters of 256":         header(func(b []byte) { be.PutUint32(b[20:], 8) }),
		"clusters of 4M":          header(func(b []byte) { be.PutUint32(b[20:], 22) }),
		"clusters of 2^63":        header(func(b []byte) { be.PutUint32(b[20:], 63) }),
		"size 0":                  header(func(b []byte) { be.PutUint64(b[24:], 0) }),
		"size 2^63":               header(func(b []byte) { be.PutUint64(b[24:], 1<<63) }),
		"size beyond the table":   header(func(b []byte) { be.PutUint64(b[24:], 1<<40) }),
		"encrypted":               header(func(b []byte) { be.PutUint32(b[32:], 1) }),
		"no level 1 table":        header(func(b []byte) { be.PutUint32(b[36:], 0) }),
		"huge level 1 table":      header(func(b []byte) { be.PutUint32(b[36:], 1<<31) }),
		"table beyond the file":   header(func(b []byte) { be.PutUint64(b[40:], 4*65536) }),
		"table beyond 2^63":       header(func(b []byte) { be.PutUint64(b[40:], 1<<63) }),
		"table at 0":              header(func(b []byte) { be.PutUint64(b[40:], 0) }),
		"table across the header": header(func(b []byte) { be.PutUint64(b[40:], 512) }),
		"corrupt":                 header(func(b []byte) { be.PutUint64(b[72:], 2) }),
		"external data":           header(func(b []byte) { be.PutUint64(b[72:], 4) }),
		"unknown feature":         header(func(b []byte) { be.PutUint64(b[72:], 1<<5) }),
		"short header":            header(func(b []byte) { be.PutUint32(b[100:], 72) }),
		"huge header":             header(func(b []byte) { be.PutUint32(b[100:], 1<<31) }),
		"odd header":              header(func(b []byte) { be.PutUint32(b[100:], 105) }),
		"backing name of 2^32":    header(func(b []byte) { be.PutUint64(b[8:], 512); be.PutUint32(b[16:], 1<<31) }),
		"backing name outside":    header(func(b []byte) { be.PutUint64(b[8:], 1<<60); be.PutUint32(b[16:], 10) }),
		"unknown compression":     header(func(b []byte) { be.PutUint32(b[100:], 112); b[104] = 9 }),
		"71 bytes":                sound[:71],
		"103 bytes":               sound[:103],
	} {
		if _, err := openQcow2(t.Context(), bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTablesWithoutEntriesAreForgotten(t *testing.T) {
	b := header(func(b []byte) { binary.BigEndian.PutUint64(b[3*65536:], 2*65536) })
	l, err := openQcow2(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if n, zero, err := (layers{l}).extent(0, l.size()); l.l1[0] != 0 || n != l.size() || !zero || err != nil {
		t.Errorf("%#x, %d bytes, %v, %v", l.l1[0], n, zero, err)
	}
}

// Each is a mistake in the tables of an otherwise sound image.
func TestTablesAreChecked(t *testing.T) {
	be := binary.BigEndian
	const l1, l2, c = 3 * 65536, 2 * 65536, 65536
	with := func(change func(b []byte)) []byte {
		return append(header(func(b []byte) {
			be.PutUint64(b[l1:], l2)
			be.PutUint64(b[l2:], 4*c)
			change(b)
		}), make([]byte, 2*c)...)
	}
	packed := func(off, sectors uint64) uint64 { return 1<<62 | sectors<<54 | off }
	sound := with(func(b []byte) { be.PutUint64(b[l2+8:], packed(5*c+7, 3)); be.PutUint64(b[l2+16:], packed(5*c+1100, 0)) })
	if _, err := openQcow2(t.Context(), bytes.NewReader(sound), int64(len(sound))); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"level 2 table in the middle of a cluster": with(func(b []byte) { be.PutUint64(b[l1:], l2+512) }),
		"level 2 table beyond the file":            with(func(b []byte) { be.PutUint64(b[l1:], 6*c) }),
		"level 2 table far beyond":                 with(func(b []byte) { be.PutUint64(b[l1:], 1<<55) }),
		"level 2 table is the header":              with(func(b []byte) { be.PutUint64(b[40:], l1); be.PutUint64(b[l1:], c) }),
		"level 2 table is the level 1 table":       with(func(b []byte) { be.PutUint64(b[l1:], l1) }),
		"refcount block beyond the file":           with(func(b []byte) { be.PutUint64(b[c:], 1<<62) }),
		"refcount block in a table":                with(func(b []byte) { be.PutUint64(b[c:], l2) }),
		"refcount block in data":                   with(func(b []byte) { be.PutUint64(b[c:], 4*c) }),
		"refcount table is the level 1 table":      with(func(b []byte) { be.PutUint64(b[48:], l1) }),
		"huge refcount table":                      with(func(b []byte) { be.PutUint32(b[56:], 1<<31) }),
		"wide refcounts":                           with(func(b []byte) { be.PutUint32(b[96:], 7) }),
		"data in the middle of a cluster":          with(func(b []byte) { be.PutUint64(b[l2:], 4*c+512) }),
		"data beyond the file":                     with(func(b []byte) { be.PutUint64(b[l2:], 6*c) }),
		"data far beyond":                          with(func(b []byte) { be.PutUint64(b[l2:], 1<<55) }),
		"data is a table":                          with(func(b []byte) { be.PutUint64(b[l2:], l2) }),
		"data twice":                               with(func(b []byte) { be.PutUint64(b[l2+8:], 4*c) }),
		"zeros in the middle of a cluster":         with(func(b []byte) { be.PutUint64(b[l2:], 4*c+513) }),
		"zeros in version 2":                       with(func(b []byte) { be.PutUint32(b[4:], 2); be.PutUint64(b[l2:], 1) }),
		"compressed data beyond the file":          with(func(b []byte) { be.PutUint64(b[l2+8:], packed(6*c, 0)) }),
		"compressed data far beyond":               with(func(b []byte) { be.PutUint64(b[l2+8:], packed(1<<53, 255)) }),
		"compressed data in the header":            with(func(b []byte) { be.PutUint64(b[l2+8:], packed(512, 0)) }),
		"compressed data in a table":               with(func(b []byte) { be.PutUint64(b[l2+8:], packed(l1+512, 0)) }),
		"compressed data in data":                  with(func(b []byte) { be.PutUint64(b[l2+8:], packed(5*c-100, 255)); be.PutUint64(b[l2:], 5*c) }),
	} {
		if _, err := openQcow2(t.Context(), bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzQcow2 reads images with any header and any tables: what comes out may be an error, but no panic, no endless
// loop, no memory without bound, and no other file.
func FuzzQcow2(f *testing.F) {
	f.Add(header(func([]byte) {})[:512], []byte{0x80, 0, 0, 0, 0, 2, 0, 0}, uint16(0))
	f.Add(header(func(b []byte) { b[7] = 2 })[:512], []byte{0x80, 0, 0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 1}, uint16(512))
	f.Add(header(func(b []byte) { b[79] = 16 })[:512], bytes.Repeat([]byte{0x80, 0, 0, 0, 0, 1, 0, 0}, 4), uint16(100))
	f.Fuzz(func(t *testing.T, head, tables []byte, cut uint16) {
		b := make([]byte, 4*65536)
		for i := 0; i < len(b) && len(tables) > 0; i += 8192 {
			copy(b[i:], tables)
		}
		copy(b, head)
		readAny(t, b[:len(b)-int(cut)])
	})
}

// FuzzQcow2Entry changes one number of a sound image that has all kinds of clusters.
func FuzzQcow2Entry(f *testing.F) {
	content := sparse(600<<10, 5)
	var images [][]byte
	for _, kind := range []struct {
		options string
		convert []string
	}{{"cluster_size=4k", nil}, {"cluster_size=4k,compression_type=zstd", []string{"-c"}}, {"cluster_size=4k,compat=0.10", []string{"-c"}}, {"cluster_size=16k,extended_l2=on", nil}} {
		b, err := os.ReadFile(qcow2Of(f, content, kind.options, kind.convert...))
		if err != nil {
			f.Fatal(err)
		}
		images = append(images, b)
	}
	for i := range images {
		for _, at := range []uint32{4, 20, 24, 36, 40, 48, 56, 72, 4096, 3 * 4096, 4 * 4096, 4*4096 + 8} {
			for _, xor := range []uint64{1, 1 << 12, 1 << 30, 1 << 62, 1 << 63} {
				f.Add(uint8(i), at, xor)
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, xor uint64) {
		b := bytes.Clone(images[int(which)%len(images)])
		at %= uint32(len(b) - 8)
		binary.BigEndian.PutUint64(b[at:], binary.BigEndian.Uint64(b[at:])^xor)
		readAny(t, b)
	})
}

// readAny reads the beginning of an image that may be anything.
func readAny(t *testing.T, b []byte) {
	src, err := openQcow2(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return
	}
	size, all := src.size(), layers{src}
	if size <= 0 {
		t.Fatalf("size %d", size)
	}
	buf := make([]byte, 64<<10)
	for off := int64(0); off < min(size, 4*segmentSize); {
		most := min(size-off, segmentSize-off%segmentSize)
		n, zero, err := all.extent(off, most)
		if err != nil {
			return
		}
		if n <= 0 || n > most {
			t.Fatalf("extent of %d bytes, want 1 to %d", n, most)
		}
		if !zero {
			if err := readFull(all, buf[:min(n, int64(len(buf)))], off); err != nil {
				return
			}
		}
		off += n
	}
}

// BenchmarkOpenQcow2 opens an image of 16 GiB of which all clusters are allocated, with the walk through its tables.
func BenchmarkOpenQcow2(b *testing.B) {
	path := filepath.Join(b.TempDir(), "image")
	qemuImg(b, "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, "16G")
	for b.Loop() {
		img, err := OpenFile(b.Context(), path, OpenOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if err := img.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
