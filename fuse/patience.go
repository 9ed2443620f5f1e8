package fuse

import (
	"context"
	"time"
)

// patience is how long a request goes on after a signal has reached the program that made it.
const patience = 10 * time.Second

// patient returns a context for a request whose own is ctx. The kernel tells of every signal that reaches a program which waits for a file,
// also of those that it handles, and no program expects that open or stat fail for that: QEMU does not start then. But one that
// is killed while the storage hangs is let go after a time.
func patient(ctx context.Context) (context.Context, context.CancelFunc) {
	steady, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(patience, cancel)
		context.AfterFunc(steady, func() { timer.Stop() })
	})
	return steady, func() {
		stop()
		cancel()
	}
}
