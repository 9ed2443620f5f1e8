package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"skerry/cmd/internal/control"
	"skerry/nbd/kernel"
)

// MaxConnections is the largest number of connections of a device.
const MaxConnections = 64

// Kernel is what this package needs of the kernel's NBD client. Its methods may be called concurrently.
type Kernel interface {
	// Connect attaches sockets to a device and returns its index, see [kernel.Control.Connect].
	Connect(config kernel.Config, sockets []*os.File) (index int, err error)
	// Reconfigure gives a device new sockets for dead ones, or a new size, see [kernel.Control.Reconfigure].
	Reconfigure(index int, change kernel.Change, sockets []*os.File) (taken int, err error)
	// Disconnect ends a device at once, see [kernel.Control.Disconnect].
	Disconnect(index int) error
	// Devices returns all devices, see [kernel.Devices].
	Devices() ([]kernel.Device, error)
	// RaiseRequestSize lets a device make large requests, see [kernel.RaiseRequestSize].
	RaiseRequestSize(index int, limit int64) error
	// Breaks calls fn whenever a connection of any device breaks, with the device's index or kernel.AnyIndex, until ctx ends.
	Breaks(ctx context.Context, fn func(index int)) error
	// Open opens a device; if alone is set, such that nothing else can mount it or use it exclusively until the file is closed. It
	// fails with [unix.EBUSY] then if something does already.
	Open(index int, readOnly, alone bool) (*os.File, error)
}

// Found is what a pool has under a name at the moment.
type Found struct {
	ID      string
	Created time.Time       // of a snapshot; zero for a volume
	Holder  *control.Holder // process that the volume is leased to; nil: none
	Reach   *control.Client // of the holder; nil: it cannot be reached from here
}

// Host attaches volumes to this host. Its methods may be called concurrently.
type Host struct {
	Dir    string // of the records; made if it is missing
	Kernel Kernel
	// Lookup returns what the pool of a target has under its name. It is not called for a Target with a URI.
	Lookup func(ctx context.Context, t Target) (Found, error)
	// Serve returns the command that serves a target at a Unix socket. It prints a line to stdout when clients can connect; the last
	// line of its stderr is a failure as JSON if it fails.
	Serve func(t Target, readOnly bool, socket string) (*exec.Cmd, error)
	// Keep returns the command that calls RunKeeper with a key.
	Keep func(key string) (*exec.Cmd, error)
	Log  *slog.Logger
	Note func(format string, args ...any) // tells a person something
	// Tick is how often a keeper looks at server and device.
	Tick time.Duration
	// System has the kernel's tables about who uses a device.
	System System

	mu      sync.Mutex
	running map[string]*running // keepers in this process, by key
}

// running is a keeper in this process.
type running struct {
	end   context.CancelFunc
	ended chan struct{}
}

// The time-outs of what is not the storage's matter.
const (
	// DefaultTick is for Host.Tick.
	DefaultTick = time.Second
	probeTime   = 3 * time.Second        // for a server to say how large an export is
	dialTime    = 20 * time.Second       // for new connections
	startTime   = 3 * time.Minute        // for a server to begin, replay of a journal included
	leaveTime   = 10 * time.Second       // for a keeper to end
	serverTime  = 100 * time.Second      // for a server to flush and end
	firstPause  = 200 * time.Millisecond // before a server that died at once is started again
	lastPause   = 15 * time.Second
)

// RealKernel is the kernel of this host.
type RealKernel struct{ control *kernel.Control }

// OpenKernel returns the kernel of this host.
func OpenKernel() (*RealKernel, error) {
	c, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	return &RealKernel{control: c}, nil
}

// Close ends the connection to the kernel; devices stay.
func (k *RealKernel) Close() error { return k.control.Close() }

// Connect does what the interface says.
func (k *RealKernel) Connect(config kernel.Config, sockets []*os.File) (int, error) {
	return k.control.Connect(config, sockets)
}

// Reconfigure does what the interface says.
func (k *RealKernel) Reconfigure(index int, change kernel.Change, sockets []*os.File) (int, error) {
	return k.control.Reconfigure(index, change, sockets)
}

// Disconnect does what the interface says.
func (k *RealKernel) Disconnect(index int) error { return k.control.Disconnect(index) }

// Devices does what the interface says.
func (k *RealKernel) Devices() ([]kernel.Device, error) { return kernel.Devices() }

// RaiseRequestSize does what the interface says.
func (k *RealKernel) RaiseRequestSize(index int, limit int64) error {
	return kernel.RaiseRequestSize(index, limit)
}

// Breaks does what the interface says.
func (k *RealKernel) Breaks(ctx context.Context, fn func(index int)) error {
	w, err := kernel.Watch()
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // only read from
	for {
		index, err := w.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		fn(index)
	}
}

// Open does what the interface says.
func (k *RealKernel) Open(index int, readOnly, alone bool) (*os.File, error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	if alone {
		mode |= unix.O_EXCL // without O_CREAT, what mount(2) does with block devices
	}
	return os.OpenFile(kernel.Path(index), mode, 0)
}

// find returns the devices that are of a target, by what the kernel says.
func (h *Host) find(t Target) ([]kernel.Device, error) {
	all, err := h.Kernel.Devices()
	if err != nil {
		return nil, err
	}
	var found []kernel.Device
	for _, d := range all {
		if of, ours := parseBackend(d.Backend); d.Attached && ours && of.identity() == t.identity() {
			found = append(found, d)
		}
	}
	return found, nil
}

// device returns the device with an index if it is attached and of a target.
func (h *Host) device(index int, t Target) (kernel.Device, bool, error) {
	found, err := h.find(t)
	for _, d := range found {
		if d.Index == index {
			return d, true, err
		}
	}
	return kernel.Device{}, false, err
}

// whose says what a device is of that is not of the target that was meant.
func whose(d kernel.Device) string {
	if of, ours := parseBackend(d.Backend); ours && of.URI != "" {
		return "it is attached to " + of.URI
	} else if ours {
		of.Volume = of.ID // the name is not known
		return fmt.Sprintf("it is of volume %s of pool %s", of.Name(), of.Pool)
	}
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", d.PID)); err == nil {
		return fmt.Sprintf("it was attached by process %d (%s)", d.PID, trim(name))
	}
	return fmt.Sprintf("another program attached it, as process %d", d.PID)
}

func trim(b []byte) string {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return string(b)
}

var errGone = errors.New("the device is not attached any more")
