package local_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"skerry/drivers"
	"skerry/drivers/drivertest"
	"skerry/drivers/local"
)

// reflinks returns a directory on a file system that can share blocks, which goes with the test.
func reflinks(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("only root can mount a file system: run this test as root")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := errors.Join(os.Mkdir(mount, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, 512<<20)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", image}, {"mount", "-o", "loop", image, mount}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s; scripts/deps.sh clients installs what is missing", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return mount
}

func TestReflinks(t *testing.T) {
	mount := reflinks(t)
	pool := filepath.Join(mount, "pool")
	if err := os.Mkdir(pool, 0o700); err != nil {
		t.Fatal(err)
	}
	drivertest.Run(t, func(t *testing.T) drivers.Backend { return open(t, subdirectory(t, pool)) }, drivertest.Options{
		CloneDir: func(t *testing.T) string { return subdirectory(t, mount) },
	})
}

// subdirectory makes a new directory that goes with the test.
func subdirectory(t *testing.T, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestFileOfAnotherFileSystemIsNotCloned(t *testing.T) {
	dir := t.TempDir()
	b, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	file, err := os.CreateTemp("/dev/shm", "clone")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := b.CloneFile(t.Context(), "v/1/image/1.1", file); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}
