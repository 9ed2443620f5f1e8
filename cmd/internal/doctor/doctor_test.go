package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// lockedForFlock asks flock(1) whether a file is locked.
func lockedForFlock(ctx context.Context, path string) (bool, error) {
	err := exec.CommandContext(ctx, "flock", "-n", path, "true").Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return true, nil
	}
	return false, err
}

// examine examines a directory and fails if anything is left there.
func examine(t *testing.T, dir string, o Options) Report {
	t.Helper()
	if o.Locked == nil {
		o.Locked = lockedForFlock
	}
	r, err := Examine(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, dir)
	return r
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, ".skerry-doctor-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

func (r Report) check(name string) Check {
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	return Check{}
}

func TestThisDisk(t *testing.T) {
	r := examine(t, t.TempDir(), Options{Syncs: 8})
	if !r.Fit || r.Sync.Count != 8 || r.Sync.Median <= 0 || r.Sync.Worst < r.Sync.Median || r.MaxFile < leastFile || r.Free <= 0 || r.FileSystem == "" {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"exclusive create", "link", "rename", "names", "sync", "sync of directories", "locks", "file size"} {
		if c := r.check(name); c.Status != OK {
			t.Errorf("%+v", c)
		}
	}
}

func TestMemoryIsWarnedOf(t *testing.T) {
	dir := mounted(t, "-t", "tmpfs", "tmpfs")
	r := examine(t, dir, Options{})
	if c := r.check("file system"); !r.Fit || r.FileSystem != "tmpfs" || c.Status != Warn || !strings.Contains(c.Text, "memory") {
		t.Errorf("%+v", r)
	}
}

func TestFileSystems(t *testing.T) {
	for _, tt := range []struct {
		kind    string
		mkfs    []string
		reflink Status
	}{
		{"ext4", []string{"mkfs.ext4", "-q", "-F"}, No},
		{"xfs", []string{"mkfs.xfs", "-q"}, OK},
		{"btrfs", []string{"mkfs.btrfs", "-q"}, OK},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(image, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(image, 512<<20); err != nil {
				t.Fatal(err)
			}
			tool(t, append(tt.mkfs, image)...)
			dir := mounted(t, "-o", "loop", image)
			r := examine(t, dir, Options{})
			if !r.Fit || r.FileSystem != tt.kind || !strings.HasPrefix(r.Device, "/dev/loop") {
				t.Errorf("%+v", r)
			}
			for _, name := range []string{"sparse files", "punch hole", "preallocation", "notices of changes"} {
				if c := r.check(name); c.Status != OK {
					t.Errorf("%+v", c)
				}
			}
			if c := r.check("reflink"); c.Status != tt.reflink {
				t.Errorf("%+v", c)
			}
			if c := r.check("free space"); c.Status != Warn {
				t.Errorf("%+v of 512 MiB", c)
			}
			tool(t, "mount", "-o", "remount,ro", dir)
			r = examine(t, dir, Options{})
			if r.Fit || r.check("file system").Status != Fail || r.check("write").Status != Fail {
				t.Errorf("read-only: %+v", r)
			}
		})
	}
}

// tool runs a program of the system.
func tool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%sonly root can mount a file system; scripts/deps.sh clients installs what is missing", strings.Join(args, " "), err, out)
	}
}

// mounted mounts a file system until the end of the test.
func mounted(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	tool(t, append(append([]string{"mount"}, args...), dir)...)
	t.Cleanup(func() { tool(t, "umount", dir) })
	return dir
}

func TestLocksThatDoNotHoldAreAFailure(t *testing.T) {
	for what, locked := range map[string]func() (bool, error){
		"not for others": func() (bool, error) { return false, nil },
		"for ever":       func() (bool, error) { return true, nil },
		"who knows":      func() (bool, error) { return false, errors.New("who knows") },
	} {
		r := examine(t, t.TempDir(), Options{Syncs: 1, Locked: func(context.Context, string) (bool, error) { return locked() }})
		if c := r.check("locks"); r.Fit || c.Status != Fail || !strings.Contains(c.Text, "holder") {
			t.Errorf("%s: %+v", what, c)
		}
	}
}

func TestInterruptedItLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Examine(ctx, dir, Options{Syncs: 1, Locked: func(context.Context, string) (bool, error) {
		cancel()
		return false, ctx.Err()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nothingLeft(t, dir)
}

func TestWhatIsNoDirectory(t *testing.T) {
	if _, err := Examine(t.Context(), filepath.Join(t.TempDir(), "none"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Examine(t.Context(), "/dev/null", Options{}); !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
	r := examine(t, "/proc", Options{})
	if r.Fit || r.check("write").Status != Fail {
		t.Errorf("%+v", r)
	}
}

func TestJudgeMount(t *testing.T) {
	for line, want := range map[string]struct {
		status Status
		word   string
	}{
		"1 2 8:1 / /srv rw,relatime shared:1 - ext4 /dev/sda1 rw":             {OK, "ext4 on /dev/sda1"},
		"1 2 8:1 / /srv rw - ext4 /dev/sda1 rw,nobarrier":                     {Warn, "nobarrier"},
		"1 2 8:1 / /srv rw - ext4 /dev/sda1 rw,barrier=0":                     {Warn, "power"},
		"1 2 8:1 / /srv ro - xfs /dev/sda1 rw":                                {Fail, "read-only"},
		"1 2 0:5 / /srv rw - nfs4 server:/vms rw,vers=4.2":                    {Warn, "network"},
		"1 2 0:5 / /srv rw - tmpfs tmpfs rw":                                  {Warn, "memory"},
		"1 2 0:5 / /srv rw - overlay overlay rw,lowerdir=/a":                  {Warn, "container"},
		"1 2 0:5 / /srv rw - fuse.sshfs host: rw":                             {Warn, "network"},
		"1 2 8:1 / /srv rw - vfat /dev/sdb1 rw":                               {Warn, "modes"},
		"1 2 0:30 /vms /srv rw,noatime shared:2 master:1 - btrfs /dev/sdc rw": {OK, "btrfs"},
	} {
		path := filepath.Join(t.TempDir(), "mountinfo")
		text := "9 1 9:9 / / rw - rootfs none rw\n" + line + "\n8 1 8:8 / /srvother rw - none none rw\nrubbish\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := findMount(path, "/srv/pool", "7:7")
		if status, text := judgeMount(m); err != nil || m.point != "/srv" || status != want.status || !strings.Contains(text, want.word) {
			t.Errorf("%s: %+v, %v: %s, %s", line, m, err, status, text)
		}
	}
}

func TestMountPointsAreUnescaped(t *testing.T) {
	_, m, ok := parseMount(`1 2 8:1 / /a\040b\134 rw - ext4 /dev/x rw`)
	if !ok || m.point != `/a b\` {
		t.Errorf("%+v", m)
	}
}
