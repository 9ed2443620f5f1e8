package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	humanize "github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// fileSystem tells what the directory lies on.
func (e *examination) fileSystem(dir string) error {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return err
	}
	e.report.Directory = abs
	var st unix.Stat_t
	if err := unix.Stat(abs, &st); err != nil {
		return &os.PathError{Op: "stat", Path: abs, Err: err}
	}
	path := e.o.MountInfo
	if path == "" {
		path = "/proc/self/mountinfo"
	}
	m, err := findMount(path, abs, fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		e.add("file system", Warn, fmt.Sprintf("what it is cannot be told: %v", err))
		return nil
	}
	e.report.FileSystem, e.report.Device, e.report.Options = m.kind, m.device, m.options
	status, text := judgeMount(m)
	e.add("file system", status, text)
	return nil
}

// mount is a mounted file system.
type mount struct{ kind, device, options, point string }

var errNoMount = errors.New("it is not in the list of mounts")

// findMount returns the mount that a path lies in: of those of its device, or of all if the device is in none (btrfs shows other numbers), the
// one that is mounted deepest, and of these the last.
func findMount(mountinfo, path, device string) (mount, error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return mount{}, err
	}
	defer f.Close() // only read
	var byDevice, byPath mount
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		number, m, ok := parseMount(lines.Text())
		if !ok || !below(path, m.point) {
			continue
		}
		if len(m.point) >= len(byPath.point) {
			byPath = m
		}
		if number == device && len(m.point) >= len(byDevice.point) {
			byDevice = m
		}
	}
	if err := lines.Err(); err != nil {
		return mount{}, err
	}
	switch {
	case byDevice.point != "":
		return byDevice, nil
	case byPath.point != "":
		return byPath, nil
	}
	return mount{}, errNoMount
}

// parseMount reads a line of /proc/self/mountinfo (proc(5)).
func parseMount(line string) (device string, m mount, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	head, tail := strings.Fields(before), strings.Fields(after)
	if !ok || len(head) < 6 || len(tail) < 3 {
		return "", mount{}, false
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	options := strings.Split(head[5], ",")
	for o := range strings.SplitSeq(tail[2], ",") {
		if !slices.Contains(options, o) {
			options = append(options, o)
		}
	}
	return head[2], mount{tail[0], unescape.Replace(tail[1]), strings.Join(options, ","), unescape.Replace(head[4])}, true
}

func below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// judgeMount says what a file system means for a pool.
func judgeMount(m mount) (Status, string) {
	text := fmt.Sprintf("%s on %s", m.kind, m.device)
	options := strings.Split(m.options, ",")
	if slices.Contains(options, "ro") {
		return Fail, text + ", mounted read-only: mount it read-write"
	}
	switch {
	case m.kind == "nfs" || m.kind == "nfs4" || m.kind == "cifs" || m.kind == "smb3" || m.kind == "9p" || m.kind == "ceph" || strings.HasPrefix(m.kind, "fuse.") && m.kind != "fuse.skerry":
		return Warn, text + ": a pool on a network file system is not safe, as another machine can write it too and locks may be lost"
	case m.kind == "tmpfs" || m.kind == "ramfs":
		return Warn, text + ": it lies in memory, and is gone when the machine is off"
	case m.kind == "overlay":
		return Warn, text + ": it is a layer of a container, and usually goes with it; use a volume of the container's host"
	case m.kind == "vfat" || m.kind == "msdos" || m.kind == "exfat" || strings.HasPrefix(m.kind, "ntfs"):
		return Warn, text + ": it has no owners and modes, so that anybody here can read the volumes"
	}
	for _, o := range []string{"nobarrier", "barrier=0"} {
		if slices.Contains(options, o) {
			return Warn, text + ", mounted with " + o + ": what is flushed may not survive a loss of power"
		}
	}
	return OK, text
}

// Space below which it is told that there is little.
const (
	littleSpace = 1 << 30
	fewFiles    = 10_000
)

// space tells how much more fits.
func (e *examination) space() {
	var st unix.Statfs_t
	if err := unix.Statfs(e.report.Directory, &st); err != nil {
		e.add("free space", Warn, fmt.Sprintf("it cannot be told: %v", err))
		return
	}
	e.report.Free = int64(st.Bavail) * st.Frsize
	text := humanize.IBytes(uint64(max(e.report.Free, 0)))
	switch {
	case e.report.Free < littleSpace:
		e.add("free space", Warn, text+": writes fail when it is used up")
	case st.Files > 0 && st.Ffree < fewFiles:
		e.add("free space", Warn, fmt.Sprintf("%s, but only %d more files: each chunk is one", text, st.Ffree))
	default:
		e.add("free space", OK, text)
	}
}
