package kernel

import (
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
)

// maxSockets bounds the connections of one device.
const maxSockets = 64

// Control is a connection to the kernel's nbd. Its methods may be called concurrently; a command takes no context, as the
// kernel carries it out before the call returns, and nothing cancels that.
type Control struct {
	conn   *genetlink.Conn
	family uint16
}

// Open connects to the kernel's nbd; ErrNoModule if there is none.
func Open() (*Control, error) {
	conn, family, err := dial()
	if err != nil {
		return nil, err
	}
	return &Control{conn: conn, family: family.ID}, nil
}

func dial() (*genetlink.Conn, genetlink.Family, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, genetlink.Family{}, fmt.Errorf("open generic netlink: %w", err)
	}
	family, err := conn.GetFamily(familyName)
	if err != nil {
		conn.Close()
		if errors.Is(err, os.ErrNotExist) {
			err = ErrNoModule
		}
		return nil, family, fmt.Errorf("find the netlink family %s: %w", familyName, err)
	}
	return conn, family, nil
}

// Close ends the connection. Devices stay attached.
func (c *Control) Close() error { return c.conn.Close() }

// Connect attaches an export to a device and returns its index. The sockets have been through the handshake; the kernel takes references of its
// own, and the caller closes its files. More than one socket needs an export that says CAN_MULTI_CONN. Those of another kind than
// TCP and Unix streams are refused. A device that is attached already, or open with a configuration from before, is ErrInUse.
func (c *Control) Connect(config Config, sockets []*os.File) (index int, err error) {
	if err := config.check(); err != nil {
		return 0, err
	}
	switch {
	case len(sockets) == 0 || len(sockets) > maxSockets:
		return 0, fmt.Errorf("%w: %d connections, want 1 to %d", ErrConfig, len(sockets), maxSockets)
	case len(sockets) > 1 && config.Flags&proto.FlagCanMultiConn == 0:
		return 0, fmt.Errorf("%w: %d connections to a server that allows one", ErrConfig, len(sockets))
	}
	data, err := connectData(config, numbers(sockets))
	if err != nil {
		return 0, fmt.Errorf("encode NBD_CMD_CONNECT: %w", err)
	}
	// Without NLM_F_ACK the one answer is the reply or the error.
	replies, err := c.execute(cmdConnect, data, 0)
	if err != nil {
		return 0, fmt.Errorf("attach %s: %w", name(config.Index), classify(err))
	}
	if len(replies) != 1 {
		return 0, fmt.Errorf("%w: %d replies to NBD_CMD_CONNECT", ErrAnswer, len(replies))
	}
	return getIndex(replies[0].Data)
}

// Reconfigure changes a device that is attached. Each socket replaces a dead connection; taken tells how many the kernel took, from
// the first on: it takes none while all connections live, and has no error for that. A device whose requests have failed because
// DeadTimeout was over works again, but what was mounted has seen the errors.
//
// taken is counted by the time-out that the kernel sets on a socket, so it is right only for devices that have a request
// time-out, as those of Connect do.
func (c *Control) Reconfigure(index int, change Change, sockets []*os.File) (taken int, err error) {
	if err := checkIndex(index); err != nil {
		return 0, err
	}
	if err := change.check(); err != nil {
		return 0, err
	}
	if len(sockets) > maxSockets {
		return 0, fmt.Errorf("%w: %d connections", ErrConfig, len(sockets))
	}
	data, err := reconfigureData(index, change, numbers(sockets))
	if err != nil {
		return 0, fmt.Errorf("encode NBD_CMD_RECONFIGURE: %w", err)
	}
	if _, err := c.execute(cmdReconfigure, data, netlink.Acknowledge); err != nil {
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w, or is not %q: %w", ErrNotAttached, change.Backend, err)
		}
		return 0, fmt.Errorf("reconfigure %s: %w", name(index), classify(err))
	}
	for _, s := range sockets {
		ours, err := adopted(s)
		if err != nil {
			return taken, fmt.Errorf("look at a socket of %s: %w", name(index), err)
		}
		if ours {
			taken++
		}
	}
	return taken, nil
}

// adopted reports whether the kernel has taken a socket: nbd_reconnect_socket in drivers/block/nbd.c sets its time-out for sending.
func adopted(s *os.File) (bool, error) {
	conn, err := s.SyscallConn()
	if err != nil {
		return false, err
	}
	var tv *unix.Timeval
	var got error
	if err := conn.Control(func(fd uintptr) { tv, got = unix.GetsockoptTimeval(int(fd), unix.SOL_SOCKET, unix.SO_SNDTIMEO) }); err != nil {
		return false, err
	}
	if got != nil {
		return false, os.NewSyscallError("getsockopt", got)
	}
	return tv.Nano() != 0, nil
}

// Disconnect ends a device at once: requests under way and requests to come fail, and what only the page cache holds is lost. Nothing is
// wrong with a device to which nothing is attached. If others have it open, it is free only once they have closed it.
func (c *Control) Disconnect(index int) error {
	if err := checkIndex(index); err != nil {
		return err
	}
	data, err := indexData(index)
	if err != nil {
		return fmt.Errorf("encode NBD_CMD_DISCONNECT: %w", err)
	}
	if _, err := c.execute(cmdDisconnect, data, netlink.Acknowledge); err != nil {
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w: %w", ErrNotAttached, err)
		}
		return fmt.Errorf("detach %s: %w", name(index), classify(err))
	}
	return nil
}

// Status returns the index of each device that the kernel has, and whether it is attached. One with dead connections is attached, and so
// is one that was disconnected and is still open.
func (c *Control) Status() (map[int]bool, error) {
	replies, err := c.execute(cmdStatus, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("list nbd devices: %w", classify(err))
	}
	if len(replies) != 1 {
		return nil, fmt.Errorf("%w: %d replies to NBD_CMD_STATUS", ErrAnswer, len(replies))
	}
	return getStatus(replies[0].Data)
}

func (c *Control) execute(command uint8, data []byte, flags netlink.HeaderFlags) ([]genetlink.Message, error) {
	m := genetlink.Message{Header: genetlink.Header{Command: command, Version: version}, Data: data}
	return c.conn.Execute(m, c.family, netlink.Request|flags)
}

func numbers(sockets []*os.File) []uint32 {
	var all []uint32
	for _, s := range sockets {
		all = append(all, uint32(s.Fd()))
	}
	return all
}

func checkIndex(index int) error {
	if index < 0 || index > maxIndex {
		return fmt.Errorf("%w: no device /dev/nbd%d", ErrConfig, index)
	}
	return nil
}

// name is what messages call a device.
func name(index int) string {
	if index == AnyIndex {
		return "a free device"
	}
	return Path(index)
}

// CanMultiConn reports whether an export may be attached with several connections.
func CanMultiConn(e client.Export) bool { return e.Flags&proto.FlagCanMultiConn != 0 }

// IsReadOnly reports whether the server of an export takes no writes.
func IsReadOnly(e client.Export) bool { return e.Flags&proto.FlagReadOnly != 0 }
