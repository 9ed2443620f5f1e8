package kernel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Detach ends a device that nobody uses: what the page cache holds is written back and flushed first. A device that is mounted, or that another program has
// to itself, is ErrInUse; readers and writers that have it open beside are not noticed, and get errors.
// It waits for the server; without a living one, only Disconnect ends a device.
func (c *Control) Detach(index int) (err error) {
	d, err := Look(index)
	if err != nil {
		return err
	}
	if !d.Attached {
		return fmt.Errorf("detach %s: %w", Path(index), ErrNotAttached)
	}
	mode := os.O_RDWR
	if d.ReadOnly {
		mode = os.O_RDONLY
	}
	// O_EXCL without O_CREAT: a block device to oneself, as mount(2) takes it.
	f, err := os.OpenFile(Path(index), mode|unix.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("detach: %w", classify(err))
	}
	// The last to close the device ends it.
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write back %s: %w", Path(index), err)
	}
	return c.Disconnect(index)
}
