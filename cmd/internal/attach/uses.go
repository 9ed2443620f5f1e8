package attach

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// System says where the kernel shows its tables. The zero value is this host's.
type System struct {
	Proc string // "/proc" if empty
	Sys  string // "/sys" if empty
}

func (s System) proc(path ...string) string {
	return filepath.Join(append([]string{orElse(s.Proc, "/proc")}, path...)...)
}

func (s System) sys(path ...string) string {
	return filepath.Join(append([]string{orElse(s.Sys, "/sys")}, path...)...)
}

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// part is a block device: a whole one or a partition of it.
type part struct {
	name   string // as in /sys/block
	number string // major:minor
}

// parts returns a block device, given by its path, and its partitions.
func (s System) parts(device string) ([]part, error) {
	name := filepath.Base(device)
	dirs, err := filepath.Glob(s.sys("block", name, name+"*", "dev"))
	if err != nil {
		return nil, err
	}
	var all []part
	for _, file := range append([]string{s.sys("block", name, "dev")}, dirs...) {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a device that the kernel does not have, or a partition that goes
		}
		if err != nil {
			return nil, err
		}
		all = append(all, part{filepath.Base(filepath.Dir(file)), trim(b)})
	}
	return all, nil
}

// Mounts returns where a block device or a partition of it is mounted, in this namespace.
func (s System) Mounts(device string) ([]string, error) {
	parts, err := s.parts(device)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(s.proc("self", "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	mounts, err := mountinfo.GetMountsFromReader(f, func(m *mountinfo.Info) (skip, stop bool) {
		// File systems on several devices have numbers of their own, and tell only the source.
		number := fmt.Sprintf("%d:%d", m.Major, m.Minor)
		return !slices.ContainsFunc(parts, func(p part) bool { return number == p.number || m.Source == "/dev/"+p.name }), false
	})
	if err != nil {
		return nil, err
	}
	var all []string
	for _, m := range mounts {
		all = append(all, m.Mountpoint)
	}
	return all, nil
}

// Uses returns what uses a block device or a partition of it, in words: mounts, swap, devices on top of it, and programs that have it
// open, but this one. It sees what this process may see.
func (s System) Uses(device string) ([]string, error) {
	parts, err := s.parts(device)
	if err != nil {
		return nil, err
	}
	mounts, err := s.Mounts(device)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, m := range mounts {
		all = append(all, "mounted on "+m)
	}
	swaps, err := os.ReadFile(s.proc("swaps"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, p := range parts {
		for line := range bytes.Lines(swaps) {
			if f := strings.Fields(string(line)); len(f) > 0 && f[0] == "/dev/"+p.name {
				all = append(all, "swap")
			}
		}
		holders, err := filepath.Glob(s.sys("class", "block", p.name, "holders", "*"))
		if err != nil {
			return nil, err
		}
		for _, holder := range holders {
			all = append(all, "below /dev/"+filepath.Base(holder))
		}
	}
	loops, err := s.loops(parts)
	if err != nil {
		return nil, err
	}
	return append(append(all, loops...), s.openers(parts)...), nil
}

// loops returns the loop devices that have one of the devices as their file.
func (s System) loops(parts []part) ([]string, error) {
	files, err := filepath.Glob(s.sys("block", "loop*", "loop", "backing_file"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // detached since
		}
		if slices.ContainsFunc(parts, func(p part) bool { return trim(b) == "/dev/"+p.name }) {
			all = append(all, "below /dev/"+filepath.Base(filepath.Dir(filepath.Dir(file))))
		}
	}
	return all, nil
}

// openIn begins what openers says of a program.
const openIn = "open in process "

// openers returns the programs that have one of the devices open.
func (s System) openers(parts []part) []string {
	fds, err := filepath.Glob(s.proc("[0-9]*", "fd", "*"))
	if err != nil {
		return nil
	}
	var all []string
	for _, fd := range fds {
		pid := filepath.Base(filepath.Dir(filepath.Dir(fd)))
		// Asking for the name first spares a look at files that may hang.
		if to, err := os.Readlink(fd); err != nil || !strings.HasPrefix(to, "/dev/") || pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
			continue
		}
		number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		if !slices.ContainsFunc(parts, func(p part) bool { return p.number == number }) {
			continue
		}
		text := openIn + pid
		if name, err := os.ReadFile(s.proc(pid, "comm")); err == nil {
			text += " (" + trim(name) + ")"
		}
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

// usesText says in words what uses a device.
func (s System) usesText(device string) string {
	uses, err := s.Uses(device)
	if err != nil || len(uses) == 0 {
		return "in use by something that cannot be seen from here, for example in another mount namespace"
	}
	return strings.Join(uses, ", ")
}
