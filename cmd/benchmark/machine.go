package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine says where and with what was measured.
type machine struct {
	Date       time.Time `json:"date"`
	Commit     string    `json:"commit"`
	CPU        string    `json:"cpu"`
	Processors int       `json:"processors"`
	Memory     int64     `json:"memory"` // bytes
	Kernel     string    `json:"kernel"`
	FileSystem string    `json:"file_system"`
	Go         string    `json:"go"`
	Nbdkit     string    `json:"nbdkit"`
	Qemu       string    `json:"qemu"`
	Fio        string    `json:"fio"`
	LoadBefore string    `json:"load_before"` // average load of the minute before the first measurement
	LoadAfter  string    `json:"load_after"`  // and of the last minute
}

func describe(ctx context.Context, b *bed) machine {
	m := machine{
		Date: time.Now().UTC().Truncate(time.Second), Processors: runtime.NumCPU(), Go: runtime.Version(),
		Commit:     b.said(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12"),
		CPU:        field("/proc/cpuinfo", "model name"),
		FileSystem: fileSystem(b.dir),
		Nbdkit:     b.said(ctx, "nbdkit", "--version"),
		Qemu:       b.said(ctx, "qemu-nbd", "--version"),
		Fio:        b.said(ctx, "fio", "--version"),
		LoadBefore: averageLoad(),
	}
	if kib, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.Memory = kib << 10
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = string(bytes.TrimRight(u.Release[:], "\x00"))
	}
	return m
}

// said returns the first line that a program prints, or that it is unknown.
func (b *bed) said(ctx context.Context, name string, args ...string) string {
	out, err := b.run(ctx, name, args...)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// field returns the value of the first line "name: value" of a file.
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func averageLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// fileSystem returns type and options of the file system that holds a directory.
func fileSystem(dir string) string {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "unknown"
	}
	best, found := "", "unknown"
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		rel, err := filepath.Rel(f[1], dir)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") || len(f[1]) < len(best) {
			continue
		}
		best, found = f[1], fmt.Sprintf("%s (%s)", f[2], f[3])
	}
	return found
}
