package kernel

import (
	"fmt"
	"time"

	"skerry/nbd/client"
)

// AnyIndex stands for a device that is free; if there is none, the kernel makes one.
const AnyIndex = -1

// Sectors of block devices, and the largest blocks that every kernel takes, in bytes.
const (
	sectorSize   = 512
	maxBlockSize = 4096
)

// The time-outs of [ConfigFor].
const (
	DefaultRequestTimeout = 30 * time.Second
	DefaultDeadTimeout    = time.Hour
)

// maxIndex is the largest index whose minor numbers fit into 20 bits, without partitions.
const maxIndex = 1<<20 - 1

// maxBackend bounds the identifier, which sysfs shows in one page.
const maxBackend = 1024

// Config says how a device is attached.
type Config struct {
	// Index is the N of /dev/nbdN, or AnyIndex.
	Index int
	// Size in bytes, a multiple of BlockSize.
	Size int64
	// BlockSize is the logical and physical block size in bytes, a power of two from 512 to 4096.
	BlockSize int
	// Flags are the export's transmission flags, from its handshake.
	Flags uint16
	// RequestTimeout is when a request is sent again on another connection, and its own is given up; whole seconds, at least one.
	RequestTimeout time.Duration
	// DeadTimeout is how long requests wait when all connections are dead; whole seconds, 0: they fail at once.
	DeadTimeout time.Duration
	// DisconnectOnClose ends the device when the last who has it open closes it.
	DisconnectOnClose bool
	// DestroyOnDisconnect removes /dev/nbdN when the device is disconnected.
	DestroyOnDisconnect bool
	// Backend identifies what is attached. If it is not empty, Reconfigure must give the same one, and
	// sysfs shows it (kernels from 5.14 on).
	Backend string
}

// ConfigFor returns what suits an export: its size and flags, blocks of 512 bytes or the smallest that the server takes, any free device,
// the default time-outs.
func ConfigFor(e client.Export) (Config, error) {
	c := Config{
		Index:          AnyIndex,
		Size:           e.Size,
		BlockSize:      max(sectorSize, int(e.MinBlock)),
		Flags:          e.Flags,
		RequestTimeout: DefaultRequestTimeout,
		DeadTimeout:    DefaultDeadTimeout,
	}
	return c, c.check()
}

func (c Config) check() error {
	switch {
	case c.Index < AnyIndex || c.Index > maxIndex:
		return fmt.Errorf("%w: no device /dev/nbd%d", ErrConfig, c.Index)
	case c.BlockSize < sectorSize || c.BlockSize > maxBlockSize || c.BlockSize&(c.BlockSize-1) != 0:
		return fmt.Errorf("%w: blocks of %d bytes, the kernel takes %d to %d", ErrConfig, c.BlockSize, sectorSize, maxBlockSize)
	case c.RequestTimeout < time.Second || c.DeadTimeout < 0:
		return fmt.Errorf("%w: time-outs %v, %v", ErrConfig, c.RequestTimeout, c.DeadTimeout)
	}
	if err := checkBackend(c.Backend); err != nil {
		return err
	}
	return checkSize(c.Size, c.BlockSize)
}

func checkSize(size int64, block int) error {
	if size <= 0 || size%int64(block) != 0 {
		return fmt.Errorf("%w: %d bytes are not one or more whole blocks of %d", ErrConfig, size, block)
	}
	return nil
}

func checkBackend(s string) error {
	if len(s) > maxBackend {
		return fmt.Errorf("%w: identifier of %d bytes", ErrConfig, len(s))
	}
	for _, r := range s {
		if r < ' ' {
			return fmt.Errorf("%w: control character in the identifier %q", ErrConfig, s)
		}
	}
	return nil
}

// Change says what Reconfigure changes. Zero values leave things as they are.
type Change struct {
	// Backend must be the identifier that the device was attached with.
	Backend string
	// Size is the new size in bytes.
	Size int64
	// RequestTimeout and DeadTimeout as in Config. The request time-out is that of requests to come.
	RequestTimeout, DeadTimeout time.Duration
}

func (c Change) check() error {
	if c.RequestTimeout != 0 && c.RequestTimeout < time.Second || c.DeadTimeout < 0 {
		return fmt.Errorf("%w: time-outs %v, %v", ErrConfig, c.RequestTimeout, c.DeadTimeout)
	}
	if c.Size != 0 {
		if err := checkSize(c.Size, sectorSize); err != nil {
			return err
		}
	}
	return checkBackend(c.Backend)
}
