package main

import (
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSignalsDoNotInterruptCallsOnFiles(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.ok("create", "vm1", "--size", "8M")
	m := w.mountFiles()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	process, thread := unix.Getpid(), unix.Gettid()
	done := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := unix.Tgkill(process, thread, unix.SIGURG); err != nil { // which Go has a handler for
				t.Error(err)
				return
			}
		}
	})
	for i := 0; i < 50 && !t.Failed(); i++ {
		var st unix.Stat_t
		if err := unix.Stat(m.path("vm1.raw"), &st); err != nil {
			t.Errorf("stat: %v", err)
		}
		// Each is the first and the last to use the volume.
		fd, err := unix.Open(m.path("vm1.raw"), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Errorf("open: %v", err)
			continue
		}
		if err := unix.Ftruncate(fd, 8*mib); err != nil {
			t.Errorf("truncate: %v", err)
		}
		if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096); err != nil {
			t.Errorf("fallocate: %v", err)
		}
		if _, err := unix.Seek(fd, 0, unix.SEEK_DATA); err != nil && err != unix.ENXIO {
			t.Errorf("seek: %v", err)
		}
		if err := unix.Fsync(fd); err != nil {
			t.Errorf("fsync: %v", err)
		}
		if err := unix.Close(fd); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	close(done)
	sender.Wait()
	m.umount()
}
