package local_test

import (
	"os"
	"testing"

	"skerry/drivers"
	"skerry/drivers/drivertest"
	"skerry/drivers/local"
)

// open opens dir until the end of the test.
func open(t *testing.T, dir string) *local.Backend {
	t.Helper()
	b, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func TestConformance(t *testing.T) {
	// A file system on a device and, where there is one, a file system in memory.
	for name, parent := range map[string]string{"disk": os.TempDir(), "memory": "/dev/shm"} {
		t.Run(name, func(t *testing.T) {
			dirs := map[drivers.Backend]string{}
			drivertest.Run(t, func(t *testing.T) drivers.Backend {
				dir, err := os.MkdirTemp(parent, "local")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.RemoveAll(dir) })
				b := open(t, dir)
				dirs[b] = dir
				return b
			}, drivertest.Options{Reopen: func(t *testing.T, b drivers.Backend) drivers.Backend { return open(t, dirs[b]) }})
		})
	}
}
