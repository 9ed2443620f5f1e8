package kernel

import (
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
)

// connectData returns the attributes of NBD_CMD_CONNECT.
func connectData(c Config, fds []uint32) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	if c.Index != AnyIndex {
		ae.Uint32(attrIndex, uint32(c.Index))
	}
	ae.Uint64(attrSize, uint64(c.Size))
	ae.Uint64(attrBlockSize, uint64(c.BlockSize))
	ae.Uint64(attrTimeout, seconds(c.RequestTimeout))
	ae.Uint64(attrDeadTimeout, seconds(c.DeadTimeout))
	ae.Uint64(attrServerFlags, uint64(c.Flags))
	var flags uint64
	if c.DestroyOnDisconnect {
		flags |= clientDestroyOnDisconnect
	}
	if c.DisconnectOnClose {
		flags |= clientDisconnectOnClose
	}
	ae.Uint64(attrClientFlags, flags)
	if c.Backend != "" {
		ae.String(attrBackend, c.Backend)
	}
	putSockets(ae, fds)
	return ae.Encode()
}

// reconfigureData returns the attributes of NBD_CMD_RECONFIGURE.
func reconfigureData(index int, c Change, fds []uint32) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIndex, uint32(index))
	if c.Backend != "" {
		ae.String(attrBackend, c.Backend)
	}
	if c.Size != 0 {
		ae.Uint64(attrSize, uint64(c.Size))
	}
	if c.RequestTimeout != 0 {
		ae.Uint64(attrTimeout, seconds(c.RequestTimeout))
	}
	if c.DeadTimeout != 0 {
		ae.Uint64(attrDeadTimeout, seconds(c.DeadTimeout))
	}
	if len(fds) > 0 {
		putSockets(ae, fds)
	}
	return ae.Encode()
}

// indexData returns the one attribute of NBD_CMD_DISCONNECT.
func indexData(index int) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIndex, uint32(index))
	return ae.Encode()
}

func putSockets(ae *netlink.AttributeEncoder, fds []uint32) {
	ae.Nested(attrSockets, func(list *netlink.AttributeEncoder) error {
		for _, fd := range fds {
			list.Nested(itemSocket, func(item *netlink.AttributeEncoder) error {
				item.Uint32(socketFD, fd)
				return nil
			})
		}
		return nil
	})
}

// seconds rounds up: no time-out is shorter than asked for.
func seconds(d time.Duration) uint64 { return uint64((d + time.Second - 1) / time.Second) }

// getIndex reads NBD_ATTR_INDEX from an answer or a notice.
func getIndex(b []byte) (int, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	index := -1
	for ad.Next() {
		if ad.Type() == attrIndex {
			index = int(ad.Uint32())
		}
	}
	if err := ad.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if index < 0 || index > maxIndex {
		return 0, fmt.Errorf("%w: index %d", ErrAnswer, index)
	}
	return index, nil
}

// getStatus reads NBD_ATTR_DEVICE_LIST: the indexes of all devices, and whether each is connected.
func getStatus(b []byte) (map[int]bool, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	all := make(map[int]bool)
	for ad.Next() {
		if ad.Type() == attrDeviceList {
			ad.Nested(func(list *netlink.AttributeDecoder) error { return getDevices(list, all) })
		}
	}
	if err := ad.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return all, nil
}

func getDevices(list *netlink.AttributeDecoder, all map[int]bool) error {
	for list.Next() {
		if list.Type() != itemDevice {
			continue
		}
		list.Nested(func(item *netlink.AttributeDecoder) error {
			index, connected, found := 0, false, 0
			for item.Next() {
				switch item.Type() {
				case deviceIndex:
					index = int(item.Uint32())
					found |= 1
				case deviceConnected:
					connected = item.Uint8() != 0
					found |= 2
				}
			}
			if found != 3 || index > maxIndex {
				return fmt.Errorf("%w: device %d in the list, attributes %d", ErrAnswer, index, found)
			}
			all[index] = connected
			return nil
		})
	}
	return nil
}
