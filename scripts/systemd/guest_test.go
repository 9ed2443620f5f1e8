package systemd

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"skerry/nbd/client"
)

const (
	volume  = "my-vm+1"
	block   = 4096
	blocks  = 10               // that are written
	patient = 60 * time.Second // what anything in the guest may take
)

// What the kernel has in the flags of a task that PR_SET_IO_FLUSHER was called for: PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of
// include/linux/sched.h.
const flusherFlags = 0x00080000 | 0x00100000

// guestMain is what happens in the guest. It ends at the first thing that is wrong.
func guestMain() (code int) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Println("WRONG:", r)
			show("journalctl", "--no-pager", "-n", "40")
			code = 1
		}
	}()
	service := "skerry-serve@" + sh("systemd-escape", volume) + ".service"
	socket := strings.TrimSuffix(service, ".service") + ".socket"
	where := "/run/skerry-nbd/" + volume + ".sock"
	sh("skerry", "create", volume, "--size", "16M")

	sh("systemctl", "start", service)
	check(property(service, "ActiveState") == "active", "not started")
	check(strings.Contains(property(service, "StatusText"), volume), "the status does not name the volume")
	first := mainPID(service)
	looksRight(first)

	for i := range uint64(blocks) {
		if i == blocks/2 {
			check(syscall.Kill(mainPID(service), syscall.SIGKILL) == nil, "kill")
		}
		write(where, volume, i)
	}
	check(mainPID(service) != first, "the server was not killed")
	check(property(service, "NRestarts") == "1", "%s restarts", property(service, "NRestarts"))
	looksRight(mainPID(service))
	holds(where, volume, blocks)
	fmt.Println("killed, all is there")

	sh("systemctl", "stop", service)
	check(property(service, "Result") == "success" && property(service, "ExecMainStatus") == "0", "no clean end")
	check(strings.Contains(sh("skerry", "lease", "show", volume), "free"), "the lease is not released")
	check(property(socket, "ActiveState") == "active", "the socket went with the server")
	holds(where, volume, blocks) // a connection starts the server
	check(property(service, "ActiveState") == "active", "a connection did not start the server")

	sh("skerry", "snapshot", volume+"@s")
	snapshot := "skerry-serve@" + sh("systemd-escape", volume+"@s")
	sh("systemctl", "start", snapshot+".socket")
	holds("/run/skerry-nbd/"+volume+"@s.sock", volume+"@s", blocks)
	sh("systemctl", "stop", socket, service, snapshot+".socket", snapshot+".service")
	_, err := os.Lstat(where)
	check(os.IsNotExist(err), "the socket is left: %v", err)

	attached()
	mounted()
	sh("skerry", "check") // fails if there is damage
	check(sh("systemctl", "list-units", "--failed", "--plain", "--no-legend", "skerry*") == "", "a unit failed")
	return 0
}

// attached has a block device whose keeper is killed, and then its server.
func attached() {
	unit := "skerry-attach@" + sh("systemd-escape", volume) + ".service"
	sh("systemctl", "start", unit)
	keeper := mainPID(unit)
	looksRight(keeper)
	device, err := os.OpenFile(attachedNow().Device, os.O_RDWR, 0)
	check(err == nil, "%v", err)
	put := func(i uint64) {
		_, err := device.WriteAt(content(i), int64(i)*block)
		check(err == nil && device.Sync() == nil, "write block %d of the device: %v", i, err)
	}
	put(blocks)
	check(syscall.Kill(keeper, syscall.SIGKILL) == nil, "kill")
	put(blocks + 1)
	check(mainPID(unit) != keeper, "the keeper was not killed")
	server := attachedNow().ServerPID
	looksRight(server)
	check(syscall.Kill(server, syscall.SIGKILL) == nil, "kill")
	put(blocks + 2)
	check(device.Close() == nil && attachedNow().ServerPID != server, "the server was not killed")
	sh("systemctl", "stop", unit)
	check(property(unit, "Result") == "success", "no clean end")
	check(strings.Contains(sh("skerry", "lease", "show", volume), "free"), "the lease is not released")
	fmt.Println("attached, keeper and server killed, detached")
}

// mounted has a directory of files whose process is killed.
func mounted() {
	const dir = "/srv/my-vms"
	unit := "skerry-mount@" + sh("systemd-escape", "-p", dir) + ".service"
	sh("systemctl", "start", unit)
	first := mainPID(unit)
	looksRight(first)
	name := filepath.Join(dir, volume+".raw")
	all := raw(name)
	for i := range uint64(blocks + 3) {
		check(strings.HasPrefix(all[i*block:], string(content(i))), "block %d is lost", i)
	}
	put := func(i uint64) {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		check(err == nil, "%v", err)
		_, err = f.WriteAt(content(i), int64(i)*block)
		check(err == nil && f.Close() == nil, "write block %d of the file: %v", i, err)
	}
	put(blocks + 3)
	check(syscall.Kill(first, syscall.SIGKILL) == nil, "kill")
	check(mainPID(unit) != first, "the process was not killed")
	check(strings.HasPrefix(raw(name)[(blocks+3)*block:], string(content(blocks+3))), "what was written is lost")
	sh("systemctl", "stop", unit)
	check(property(unit, "Result") == "success" && property(unit, "ExecMainStatus") == "0", "no clean end")
	_, err := os.Lstat(name)
	check(os.IsNotExist(err), "still mounted: %v", err)
	fmt.Println("mounted, killed, unmounted")
}

// looksRight checks what a process of the units is to the kernel.
func looksRight(pid int) {
	dir := "/proc/" + strconv.Itoa(pid)
	check(read(dir+"/comm") == "skerry", "the process is called %q", read(dir+"/comm"))
	check(read(dir+"/oom_score_adj") == "-900", "oom_score_adj is %s", read(dir+"/oom_score_adj"))
	tasks, err := filepath.Glob(dir + "/task/*/stat")
	check(err == nil && len(tasks) > 1, "%d threads, %v", len(tasks), err)
	for _, task := range tasks {
		_, after, _ := strings.Cut(read(task), ") ") // the name may have spaces
		flags, err := strconv.ParseUint(strings.Fields(after)[6], 10, 64)
		check(err == nil && flags&flusherFlags == flusherFlags, "%s: flags %#x: no I/O flusher", task, flags)
	}
	fmt.Println("process", pid, "has", len(tasks), "threads, all I/O flushers")
}

// connect makes one connection. The socket is always there, so that it waits for a server instead of failing.
func connect(where, export string) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	return client.Dial(ctx, "unix", where, client.Options{Export: export})
}

// write writes block i, as often as the server dies meanwhile.
func write(where, export string, i uint64) {
	for deadline := time.Now().Add(patient); ; {
		c, err := connect(where, export)
		if err == nil {
			err = c.Write(content(i), int64(i)*block, 0)
			_ = c.Close() // the server may be dead
		}
		if err == nil {
			return
		}
		check(time.Now().Before(deadline), "write %d: %v", i, err)
	}
}

// holds checks that the first n blocks are what was written.
func holds(where, export string, n uint64) {
	c, err := connect(where, export)
	check(err == nil, "%v", err)
	p := make([]byte, block)
	for i := range n {
		err := c.Read(p, int64(i)*block)
		check(err == nil && bytes.Equal(p, content(i)), "block %d is lost: %v", i, err)
	}
	check(c.Close() == nil, "close")
}

func content(i uint64) []byte {
	p := make([]byte, block)
	for n := 0; n < block; n += 8 {
		binary.LittleEndian.PutUint64(p[n:], i+1)
	}
	return p
}

// attachment is what skerry attached tells of a device.
type attachment struct {
	Device    string `json:"device"`
	ServerPID int    `json:"server_pid"`
}

// attachedNow returns the only device that is attached.
func attachedNow() attachment {
	var all []attachment
	err := json.Unmarshal([]byte(sh("skerry", "attached", "--json")), &all)
	check(err == nil && len(all) == 1, "attached: %+v, %v", all, err)
	return all[0]
}

func mainPID(service string) int {
	// Between two servers there is none.
	for deadline := time.Now().Add(patient); ; {
		if pid, _ := strconv.Atoi(property(service, "MainPID")); pid != 0 && property(service, "ActiveState") == "active" {
			return pid
		}
		check(time.Now().Before(deadline), "%s does not run", service)
	}
}

func property(unit, name string) string { return sh("systemctl", "show", "--value", "-p", name, unit) }

// sh runs a program that succeeds, and returns its output.
func sh(args ...string) string {
	c := exec.Command(args[0], args[1:]...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	check(err == nil, "%s: %v: %s%s", strings.Join(args, " "), err, out, errs.String())
	return strings.TrimSpace(string(out))
}

func show(args ...string) {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	fmt.Printf("%s%v\n", out, err)
}

func read(path string) string { return strings.TrimSpace(raw(path)) }

func raw(path string) string {
	b, err := os.ReadFile(path)
	check(err == nil, "%v", err)
	return string(b)
}

func check(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}
