package process

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// KeepFiles sees to it that programs which this process starts get no files but those that they are given. Whoever started this
// process may have left it more than it knows of: a lock, or the end of a pipe, that a program which goes on for days would hold as long.
func KeepFiles() error {
	const first = 3 // after stdin, stdout and stderr
	if err := unix.CloseRange(first, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	return nil
}
