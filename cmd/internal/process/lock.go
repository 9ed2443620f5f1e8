package process

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrMayNotLock says that the process is not allowed to lock as much memory as it may need.
var ErrMayNotLock = errors.New("it needs CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK (LimitMEMLOCK=infinity, ulimit -l unlimited)")

// lockMemory keeps in memory what the process has in use, and will have. Pages are locked when they are first used: the large
// ranges of addresses that the runtime keeps for later cost nothing.
func lockMemory() error {
	ok, err := mayLock()
	if err != nil {
		return err
	}
	// Below a limit the call might succeed, and a later growth of the heap end the process.
	if !ok {
		return ErrMayNotLock
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("mlockall: %w", err)
	}
	return nil
}

// mayLock reports whether nothing bounds the memory that the process locks.
func mayLock() (bool, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return false, fmt.Errorf("RLIMIT_MEMLOCK: %w", err)
	}
	if limit.Cur == unix.RLIM_INFINITY {
		return true, nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // capabilities 0 to 31 and 32 to 63
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return false, fmt.Errorf("capget: %w", err)
	}
	return sets[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0, nil
}
