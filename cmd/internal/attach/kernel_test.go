package attach

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"skerry/nbd/client"
	"skerry/nbd/kernel"
)

// fakeKernel stands for the kernel's nbd, as its documentation and source say that it behaves. What it does with sockets is real: its
// devices read and write through them, wait while all are dead, and send again what was not answered.
type fakeKernel struct {
	t *testing.T

	mu      sync.Mutex
	change  sync.Cond
	devices map[int]*fakeDevice
	breaks  []func(int)
}

type fakeDevice struct {
	config kernel.Config
	conns  []*client.Client // nil: dead
	opens  int
	ended  bool // disconnected, and open
}

func newKernel(t *testing.T) *fakeKernel {
	k := &fakeKernel{t: t, devices: map[int]*fakeDevice{}}
	k.change.L = &k.mu
	t.Cleanup(func() {
		for _, d := range must(k.Devices()) {
			_ = k.Disconnect(d.Index)
		}
	})
	return k
}

// take makes a client of a socket, as number n of a device.
func (k *fakeKernel) take(index, n int, socket *os.File) (*client.Client, error) {
	conn, err := net.FileConn(socket)
	if err != nil {
		return nil, err
	}
	c := (&client.Handshake{Conn: conn}).Client(client.Export{Size: 1 << 40, Flags: k.devices[index].config.Flags})
	go func() {
		c.Wait()
		k.mu.Lock()
		d := k.devices[index]
		if d != nil && d.conns[n] == c {
			d.conns[n] = nil
		}
		tell := slices.Clone(k.breaks)
		k.change.Broadcast()
		k.mu.Unlock()
		for _, fn := range tell {
			fn(index)
		}
	}()
	return c, nil
}

func (k *fakeKernel) Connect(config kernel.Config, sockets []*os.File) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	index := config.Index
	for index = max(index, 0); config.Index == kernel.AnyIndex && k.devices[index] != nil; index++ {
	}
	if k.devices[index] != nil {
		return 0, kernel.ErrInUse
	}
	d := &fakeDevice{config: config, conns: make([]*client.Client, len(sockets))}
	k.devices[index] = d
	for i, s := range sockets {
		var err error
		if d.conns[i], err = k.take(index, i, s); err != nil {
			return 0, err
		}
	}
	return index, nil
}

func (k *fakeKernel) Reconfigure(index int, change kernel.Change, sockets []*os.File) (taken int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[index]
	if d == nil || d.config.Backend != change.Backend {
		return 0, kernel.ErrNotAttached
	}
	if change.Size != 0 {
		d.config.Size = change.Size
	}
	for _, s := range sockets {
		i := slices.Index(d.conns, nil)
		if i < 0 {
			break
		}
		if d.conns[i], err = k.take(index, i, s); err != nil {
			return taken, err
		}
		taken++
	}
	k.change.Broadcast()
	return taken, nil
}

func (k *fakeKernel) Disconnect(index int) error {
	k.mu.Lock()
	d := k.devices[index]
	if d == nil {
		k.mu.Unlock()
		return kernel.ErrNotAttached
	}
	d.ended = true
	conns := slices.Clone(d.conns)
	if d.opens == 0 {
		delete(k.devices, index)
	}
	k.change.Broadcast()
	k.mu.Unlock()
	for _, c := range conns {
		if c != nil {
			_ = c.Close() // it may be dead
		}
	}
	return nil
}

func (k *fakeKernel) Devices() ([]kernel.Device, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []kernel.Device
	for index, d := range k.devices {
		all = append(all, kernel.Device{
			Index: index, Attached: true, PID: os.Getpid(), Size: d.config.Size, BlockSize: d.config.BlockSize,
			ReadOnly: d.config.Flags&flagReadOnly != 0, Connections: len(d.conns), Backend: d.config.Backend,
		})
	}
	slices.SortFunc(all, func(a, b kernel.Device) int { return a.Index - b.Index })
	return all, nil
}

func (k *fakeKernel) RaiseRequestSize(int, int64) error { return nil }

func (k *fakeKernel) Breaks(ctx context.Context, fn func(int)) error {
	k.mu.Lock()
	k.breaks = append(k.breaks, fn)
	k.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (k *fakeKernel) Open(index int, _, alone bool) (*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.devices[index]; d == nil || alone && d.opens > 0 {
		return nil, fmt.Errorf("open nbd%d: %w", index, unix.EBUSY)
	}
	return os.CreateTemp(k.t.TempDir(), "device")
}

// hold opens a device as a mount does, until release is called.
func (k *fakeKernel) hold(index int) (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[index]
	d.opens++
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if d.opens--; d.opens == 0 && d.ended {
			delete(k.devices, index)
		}
	}
}

// do makes a request on some living connection, and again on another one if it was not answered. It fails when the device is gone.
func (k *fakeKernel) do(index int, request func(*client.Client) error) error {
	for {
		k.mu.Lock()
		d := k.devices[index]
		for d != nil && !d.ended && !slices.ContainsFunc(d.conns, func(c *client.Client) bool { return c != nil }) {
			k.change.Wait()
		}
		if d == nil || d.ended {
			k.mu.Unlock()
			return unix.EIO
		}
		i := slices.IndexFunc(d.conns, func(c *client.Client) bool { return c != nil })
		c := d.conns[i]
		k.mu.Unlock()
		err := request(c)
		if err == nil || c.Err() == nil {
			return err
		}
		k.mu.Lock()
		if d.conns[i] == c {
			d.conns[i] = nil
		}
		k.mu.Unlock()
	}
}

func (k *fakeKernel) write(index int, p []byte, off int64) error {
	return k.do(index, func(c *client.Client) error { return c.Write(p, off, 0) })
}

func (k *fakeKernel) read(index int, p []byte, off int64) error {
	return k.do(index, func(c *client.Client) error { return c.Read(p, off) })
}

var _ Kernel = (*fakeKernel)(nil)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
