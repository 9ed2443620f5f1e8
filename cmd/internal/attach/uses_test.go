package attach

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop makes a loop device of a file or a device.
func loop(t *testing.T, file string) string {
	t.Helper()
	device := command(t, "losetup", "--find", "--show", file)
	t.Cleanup(func() { command(t, "losetup", "--detach", device) })
	return device
}

func TestUsesOfABlockDevice(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 16*mib)); err != nil {
		t.Fatal(err)
	}
	device := loop(t, file)
	var s System
	uses := func(want ...string) {
		t.Helper()
		got, err := s.Uses(device)
		// Programs that look at each new device, as udev does, come and go.
		got = slices.DeleteFunc(got, func(u string) bool { return strings.HasPrefix(u, openIn) && !slices.Contains(want, u) })
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("uses %q, %v, want %q", got, err, want)
		}
	}
	uses()
	command(t, "mkfs.ext4", "-q", device)
	mnt := filepath.Join(dir, "mount point")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", device, mnt)
	uses("mounted on " + mnt)
	if text := s.usesText(device); !strings.Contains(text, mnt) {
		t.Error(text)
	}
	command(t, "umount", mnt)
	uses()

	reader := exec.Command("sleep", "1000")
	in, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	reader.Stdin = in
	if err := errors.Join(reader.Start(), in.Close()); err != nil {
		t.Fatal(err)
	}
	uses(fmt.Sprintf("open in process %d (sleep)", reader.Process.Pid))
	_ = reader.Process.Kill()
	_ = reader.Wait() // it was killed

	t.Run("below another device", func(t *testing.T) {
		above := loop(t, device)
		uses("below " + above)
	})
	command(t, "mkswap", device)
	command(t, "swapon", device)
	uses("swap")
	command(t, "swapoff", device)
	uses()
}
