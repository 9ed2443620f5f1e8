package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of times in /proc/PID/stat, the same on all Linux systems (USER_HZ).
const ticksPerSecond = 100

// procStat is what /proc/PID/stat says of a process.
type procStat struct {
	pid, parent int
	cpu         time.Duration // its own, and that of children that it has waited for
}

// parseStat reads the content of /proc/PID/stat. The name of the program, in parentheses, may hold anything.
func parseStat(text []byte) (procStat, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return procStat{}, errors.New("no name in parentheses")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:open])))
	if err != nil {
		return procStat{}, err
	}
	f := strings.Fields(string(text[end+1:]))
	if len(f) < 15 {
		return procStat{}, fmt.Errorf("%d fields behind the name", len(f))
	}
	s := procStat{pid: pid}
	if s.parent, err = strconv.Atoi(f[1]); err != nil { // proc(5) counts it as field 4
		return procStat{}, err
	}
	for _, t := range f[11:15] { // utime, stime, cutime, cstime
		ticks, err := strconv.ParseInt(t, 10, 64)
		if err != nil {
			return procStat{}, err
		}
		s.cpu += time.Duration(ticks) * time.Second / ticksPerSecond
	}
	return s, nil
}

// processTree returns a process and all that descend from it.
func processTree(pid int) ([]procStat, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := map[int]procStat{}
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			continue // it has ended
		}
		s, err := parseStat(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		all[s.pid] = s
	}
	if _, ok := all[pid]; !ok {
		return nil, fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	var tree []procStat
	for _, s := range all {
		for at := s; ; at = all[at.parent] {
			if at.pid == pid {
				tree = append(tree, s)
			}
			if at.pid == pid || at.parent == 0 {
				break
			}
		}
	}
	return tree, nil
}

// treeCPU returns the processor time that a process and its descendants have used.
func treeCPU(pid int) (time.Duration, error) {
	tree, err := processTree(pid)
	var sum time.Duration
	for _, s := range tree {
		sum += s.cpu
	}
	return sum, err
}

// treeMemory returns the sum of the peaks of resident memory of a process and its descendants, bytes.
func treeMemory(pid int) (int64, error) {
	tree, err := processTree(pid)
	var sum int64
	for _, s := range tree {
		text, rerr := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
		if rerr != nil {
			continue // it has ended
		}
		n, rerr := parsePeak(string(text))
		err = errors.Join(err, rerr)
		sum += n
	}
	return sum, err
}

// parsePeak returns VmHWM of the content of /proc/PID/status, bytes.
func parsePeak(text string) (int64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "VmHWM:")
		if !ok {
			continue
		}
		kib, ok := strings.CutSuffix(strings.TrimSpace(rest), " kB")
		if !ok {
			return 0, fmt.Errorf("VmHWM is %q", rest)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(kib), 10, 64)
		return n << 10, err
	}
	return 0, nil // a kernel thread, or a process that has just ended
}

// resetPeaks makes peaks of memory count from now on.
func resetPeaks(pid int) error {
	tree, err := processTree(pid)
	for _, s := range tree {
		werr := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.pid), []byte("5"), 0)
		if werr != nil && !errors.Is(werr, fs.ErrNotExist) {
			err = errors.Join(err, werr)
		}
	}
	return err
}
