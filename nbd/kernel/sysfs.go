package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const sysBlock = "/sys/block"

// Device is what /sys/block tells of an nbd device.
type Device struct {
	Index int
	// Attached says that a client is configured; its connections may be dead. The fields after it have no meaning without.
	Attached bool
	// PID is the process that attached the device, which may be gone.
	PID       int
	Size      int64 // bytes
	BlockSize int   // bytes
	ReadOnly  bool
	// Connections counts those that requests are spread over: all of the device's, but at most as many as there are CPUs.
	Connections int
	// Backend is what Config.Backend was.
	Backend string
}

// Path returns /dev/nbdN.
func Path(index int) string { return "/dev/nbd" + strconv.Itoa(index) }

// ParsePath returns the N of /dev/nbdN or nbdN.
func ParsePath(path string) (int, error) {
	digits, ok := strings.CutPrefix(strings.TrimPrefix(path, "/dev/"), "nbd")
	index, err := strconv.Atoi(digits)
	if !ok || err != nil || index < 0 || index > maxIndex || strconv.Itoa(index) != digits {
		return 0, fmt.Errorf("%w: %q is no /dev/nbdN", ErrConfig, path)
	}
	return index, nil
}

// Devices returns all nbd devices that the kernel has, by index.
func Devices() ([]Device, error) { return devices(sysBlock) }

// Look returns one device. If the kernel has none with the index, nothing is attached to it.
func Look(index int) (Device, error) { return look(sysBlock, index) }

// RaiseRequestSize lets the kernel make larger requests than the 128 KiB or so that it begins with: as large as the driver can, but at most limit bytes,
// the server's largest payload.
func RaiseRequestSize(index int, limit int64) error { return raise(sysBlock, index, limit) }

func devices(root string) ([]Device, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	var all []Device
	for _, e := range entries {
		index, err := ParsePath(e.Name())
		if err != nil {
			continue
		}
		d, err := look(root, index)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Device) int { return a.Index - b.Index })
	return all, nil
}

func look(root string, index int) (Device, error) {
	d := Device{Index: index}
	dir := filepath.Join(root, "nbd"+strconv.Itoa(index))
	pid, err := number(dir, "pid")
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	size, err2 := number(dir, "size")
	block, err3 := number(dir, "queue/logical_block_size")
	ro, err4 := number(dir, "ro")
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return d, fmt.Errorf("look at %s: %w", Path(index), err)
	}
	if size > (1<<63-1)/sectorSize {
		return d, fmt.Errorf("look at %s: %w: %d sectors", Path(index), ErrAnswer, size)
	}
	d.Attached, d.PID, d.Size, d.BlockSize, d.ReadOnly = true, int(pid), size*sectorSize, int(block), ro != 0
	backend, err := os.ReadFile(filepath.Join(dir, "backend"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, fmt.Errorf("look at %s: %w", Path(index), err)
	}
	d.Backend = strings.TrimSuffix(string(backend), "\n")
	queues, err := os.ReadDir(filepath.Join(dir, "mq"))
	if err != nil {
		return d, fmt.Errorf("look at %s: %w", Path(index), err)
	}
	d.Connections = len(queues)
	return d, nil
}

// number reads a file that holds one number.
func number(dir, file string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %s is %q", ErrAnswer, file, b)
	}
	return n, nil
}

func raise(root string, index int, limit int64) error {
	dir := filepath.Join(root, "nbd"+strconv.Itoa(index), "queue")
	now, err := number(dir, "max_sectors_kb")
	most, err2 := number(dir, "max_hw_sectors_kb")
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("raise the request size of %s: %w", Path(index), err)
	}
	want := min(most, limit>>10)
	if want <= now {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, "max_sectors_kb"), strconv.AppendInt(nil, want, 10), 0); err != nil {
		return fmt.Errorf("raise the request size of %s: %w", Path(index), err)
	}
	return nil
}
