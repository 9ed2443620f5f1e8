package main

import (
	"fmt"
	"testing"

	"skerry/locking"
	"skerry/nbd"
	"skerry/volume"
)

func TestLeaseErrno(t *testing.T) {
	for err, want := range map[error]uint32{locking.ErrLost: nbd.EIO, locking.ErrReleased: nbd.ESHUTDOWN, locking.ErrClosed: nbd.ESHUTDOWN} {
		if got, ok := leaseErrno(fmt.Errorf("write: %w", err)); !ok || got != want {
			t.Errorf("%v: %d, %v", err, got, ok)
		}
	}
	if _, ok := leaseErrno(volume.ErrReadOnly); ok {
		t.Error("knows an error that is none of a lease")
	}
}
