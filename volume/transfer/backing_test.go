package transfer

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func qemuIO(t testing.TB, path string, commands ...string) {
	t.Helper()
	args := []string{"-f", "qcow2"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	if out, err := exec.Command("qemu-io", append(args, path)...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-io: %v: %s (install it with: make deps)", err, out)
	}
}

// contentOf returns what qemu-img reads from an image.
func contentOf(t testing.TB, path string) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	qemuImg(t, "convert", "-O", "raw", path, raw)
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// importFile imports an image, to a disk of its size.
func importFile(t *testing.T, path string, o OpenOptions) []byte {
	t.Helper()
	img, err := OpenFile(t.Context(), path, o)
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
	return d.data
}

// A chain of four, in which sizes, sizes of clusters and formats differ, and clusters are data, zeros and discarded.
func TestImportFollowsBackingFiles(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(in("sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("sub/base.raw"), sparse(5<<20+777, 21), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "-o", "cluster_size=2M", in("sub/one.qcow2"), "7M")
	qemuIO(t, in("sub/one.qcow2"), "write -P 0x11 1M 5000", "write -z 4M 1M", "write -P 0x12 6M 64k")
	// The second is compressed, so that the layer above reads parts of its clusters.
	qemuImg(t, "convert", "-c", "-O", "qcow2", "-o", "cluster_size=1M", in("sub/one.qcow2"), in("sub/two.qcow2"))
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", "sub/two.qcow2", "-F", "qcow2", "-o", "extended_l2=on,cluster_size=16k", in("three.qcow2"), "6M")
	qemuIO(t, in("three.qcow2"), "write -P 0x31 100k 512", "write -P 0x32 3M 100k", "write -z 3100k 8k", "discard 2M 64k")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", in("three.qcow2"), "-F", "qcow2", "-o", "cluster_size=512", in("top.qcow2"), "9M")
	qemuIO(t, in("top.qcow2"), "write -P 0x41 512 512", "write -z 3M 4k", "write -P 0x42 8M 1000")
	same(t, importFile(t, in("top.qcow2"), OpenOptions{FollowBacking: true}), contentOf(t, in("top.qcow2")))
	same(t, importFile(t, in("sub/one.qcow2"), OpenOptions{FollowBacking: true}), contentOf(t, in("sub/one.qcow2")))
}

func TestBackingFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "top.qcow2")
	qemuImg(t, "create", "-f", "qcow2", base, "1M")
	qemuImg(t, "create", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
	if err := os.Remove(base); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(base, 0o600); err != nil { // to open it would be seen
		t.Fatal(err)
	}
	_, err := OpenFile(t.Context(), top, OpenOptions{})
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), base) || !strings.Contains(err.Error(), "--follow-backing") {
		t.Fatal(err)
	}
	if _, err := OpenFile(t.Context(), top, OpenOptions{FollowBacking: true}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), base) {
		t.Fatal(err)
	}
}

// backed makes a qcow2 image of 1 MiB whose backing file has a name, that qemu-img does not look for.
func backed(t *testing.T, path, name, format string) {
	t.Helper()
	qemuImg(t, "create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", format, path, "1M")
}

func TestBackingNamesThatAreNoFilesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.qcow2")
	for _, name := range []string{
		`json:{"driver":"file","filename":"/etc/passwd"}`, "nbd://localhost/x", "nbd:localhost:10809", "https://example.org/x", "fat:/etc", "blkdebug::x",
	} {
		backed(t, path, name, "raw")
		if _, err := OpenFile(t.Context(), path, OpenOptions{FollowBacking: true}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "no plain file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	backed(t, path, "missing", "raw")
	if _, err := OpenFile(t.Context(), path, OpenOptions{FollowBacking: true}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), filepath.Join(filepath.Dir(path), "missing")) {
		t.Error(err)
	}
	for _, format := range []string{"vmdk", "host_device"} {
		backed(t, path, "/etc/passwd", format)
		if _, err := OpenFile(t.Context(), path, OpenOptions{FollowBacking: true}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", format, err)
		}
	}
	backed(t, path, ".", "raw")
	if _, err := OpenFile(t.Context(), path, OpenOptions{FollowBacking: true}); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	// An image that comes through a pipe has no place to look from.
	backed(t, path, "x", "raw")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStream(t.Context(), pipeOf(t, content), OpenOptions{FollowBacking: true}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "relative") {
		t.Error(err)
	}
}

func TestCyclesOfBackingFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	backed(t, a, "./a", "qcow2")
	if _, err := OpenFile(t.Context(), a, OpenOptions{FollowBacking: true}); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	backed(t, a, "b", "qcow2")
	backed(t, b, "link", "qcow2")
	if err := os.Link(a, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(t.Context(), a, OpenOptions{FollowBacking: true}); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

func TestLongChainsAreRefused(t *testing.T) {
	dir := t.TempDir()
	first := filepath.Join(dir, "0")
	backed(t, first, "xxxxx", "qcow2")
	content, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxBacking + 1 {
		b := []byte(strings.Replace(string(content), "xxxxx", fmt.Sprintf("%05d", i+1), 1))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d", i)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err = OpenFile(t.Context(), filepath.Join(dir, "00000"), OpenOptions{FollowBacking: true})
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "chain") {
		t.Fatal(err)
	}
}

// A guest that writes a raw disk can make it look like a qcow2 image with any backing file. So one that is only believed to be
// qcow2 does not get to name another.
func TestGuessedBackingFilesNameNoOthers(t *testing.T) {
	dir := t.TempDir()
	top, base := filepath.Join(dir, "top"), filepath.Join(dir, "base")
	for path, name := range map[string]string{top: "base", base: "/etc/passwd"} {
		backed(t, path, name, "raw")
	}
	b, err := os.ReadFile(top)
	if err != nil {
		t.Fatal(err)
	}
	// Make the extension with the format one that is passed over.
	b = []byte(strings.Replace(string(b), "\xe2\x79\x2a\xca", "\x12\x34\x56\x78", 1))
	if err := os.WriteFile(top, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(t.Context(), top, OpenOptions{FollowBacking: true}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "qemu-img rebase") {
		t.Fatal(err)
	}
	content := sparse(1<<20, 3)
	content[0] = 1
	if err := os.WriteFile(base, content, 0o600); err != nil {
		t.Fatal(err)
	}
	same(t, importFile(t, top, OpenOptions{FollowBacking: true}), content)
}

// seeded returns a source for a random test and makes its failure name the seed, which a flag repeats.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	n := flag.Lookup("transfer.seed").Value.(flag.Getter).Get().(uint64) // the flag of the tests outside the package
	if n == 0 {
		n = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with -transfer.seed=%d", n)
		}
	})
	return rand.New(rand.NewPCG(n, 0))
}

// Images that were written, discarded and zeroed at random, with all kinds of clusters, one over the other.
func TestImportRandomChains(t *testing.T) {
	rng := seeded(t)
	for i := range 4 {
		dir := t.TempDir()
		path := filepath.Join(dir, "0")
		if err := os.WriteFile(path, sparse(1+rng.IntN(5<<20), rng.Uint64()), 0o600); err != nil {
			t.Fatal(err)
		}
		format := "raw"
		for layer := range 1 + rng.IntN(4) {
			next := filepath.Join(dir, fmt.Sprint(layer+1))
			options := []string{"cluster_size=512", "cluster_size=4k", "compat=0.10", "cluster_size=2M", "extended_l2=on,cluster_size=16k", "extended_l2=on", "lazy_refcounts=on", "compression_type=zstd"}
			size := (1 + rng.IntN(6<<20)) &^ 511
			qemuImg(t, "create", "-q", "-f", "qcow2", "-b", path, "-F", format, "-o", options[rng.IntN(len(options))], next, fmt.Sprint(max(size, 1<<20)))
			size = max(size, 1<<20)
			var commands []string
			if rng.IntN(3) == 0 && size >= 2<<20 { // only to clusters that are not there yet
				commands = append(commands, fmt.Sprintf("write -c -P 7 0 %d", 2<<20))
			}
			for range rng.IntN(30) {
				off := rng.IntN(size)
				n := min(1+rng.IntN(1<<(4+rng.IntN(16))), size-off)
				verb := []string{fmt.Sprintf("write -P %d", rng.IntN(256)), "write -z", "write -z -u", "discard"}[rng.IntN(4)]
				if verb != "write -z" || rng.IntN(2) == 0 {
					off, n = off&^511, (n+511)&^511
				}
				commands = append(commands, fmt.Sprintf("%s %d %d", verb, off, min(n, size-off)))
			}
			qemuIO(t, next, commands...)
			path, format = next, "qcow2"
		}
		t.Logf("chain %d", i)
		same(t, importFile(t, path, OpenOptions{FollowBacking: true}), contentOf(t, path))
	}
}
