package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes a directory that looks like /sys/block. Names that end in / are directories.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if name[len(name)-1] == '/' {
			must(t, os.MkdirAll(path, 0o755))
			continue
		}
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return root
}

func attached() map[string]string {
	return map[string]string{
		"loop0/size": "0\n",
		"nbd2/size":  "0\n", "nbd2/ro": "0\n",
		"nbd10/pid": "4711\n", "nbd10/size": "2048\n", "nbd10/ro": "1\n", "nbd10/backend": "vm1\n",
		"nbd10/queue/logical_block_size": "512\n", "nbd10/mq/0/": "", "nbd10/mq/1/": "",
		"nbd10/queue/max_sectors_kb": "128\n", "nbd10/queue/max_hw_sectors_kb": "32768\n",
	}
}

func TestDevicesAreReadFromSysfs(t *testing.T) {
	got, err := devices(tree(t, attached()))
	must(t, err)
	want := []Device{
		{Index: 2},
		{Index: 10, Attached: true, PID: 4711, Size: 1 << 20, BlockSize: 512, ReadOnly: true, Connections: 2, Backend: "vm1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSysfsThatMakesNoSenseIsAnError(t *testing.T) {
	for name, content := range map[string]string{
		"nbd10/size": "-1\n", "nbd10/pid": "x", "nbd10/ro": "", "nbd10/queue/logical_block_size": "512 512",
	} {
		files := attached()
		files[name] = content
		if d, err := look(tree(t, files), 10); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: got %+v, %v", name, d, err)
		}
	}
	files := attached()
	files["nbd10/size"] = "9223372036854775807"
	if d, err := look(tree(t, files), 10); !errors.Is(err, ErrAnswer) {
		t.Errorf("more than 2^63 bytes: got %+v, %v", d, err)
	}
}

func TestRequestSizeIsRaisedWithinBothLimits(t *testing.T) {
	for _, c := range []struct {
		limit int64
		want  string
	}{
		{64 << 20, "32768"},
		{1 << 20, "1024"},
		{4096, "128\n"}, // never lowered
	} {
		root := tree(t, attached())
		must(t, raise(root, 10, c.limit))
		got, err := os.ReadFile(filepath.Join(root, "nbd10/queue/max_sectors_kb"))
		must(t, err)
		if string(got) != c.want {
			t.Errorf("limit %d: %q, want %q", c.limit, got, c.want)
		}
	}
}

func TestPaths(t *testing.T) {
	for _, path := range []string{"/dev/nbd7", "nbd7"} {
		if index, err := ParsePath(path); err != nil || index != 7 || Path(index) != "/dev/nbd7" {
			t.Errorf("%s: %d, %v", path, index, err)
		}
	}
	for _, path := range []string{"", "/dev/nbd", "/dev/nbd-1", "/dev/nbd7p1", "/dev/nbd07", "/dev/sda", "7", "/dev/nbd1048576", "/dev/nbd99999999999999999999"} {
		if index, err := ParsePath(path); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %d, %v", path, index, err)
		}
	}
}

func TestDetachOfNothingSaysSo(t *testing.T) {
	if err := new(Control).Detach(maxIndex); !errors.Is(err, ErrNotAttached) {
		t.Errorf("got %v", err)
	}
}
