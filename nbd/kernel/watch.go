package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/genetlink"
	"golang.org/x/sys/unix"
)

// Watcher hears of connections that break, of all devices. One is used by one goroutine; another one may close it.
type Watcher struct {
	conn *genetlink.Conn
}

// Watch begins to listen. What breaks from its return on is told of.
func Watch() (*Watcher, error) {
	conn, family, err := dial()
	if err != nil {
		return nil, err
	}
	for _, g := range family.Groups {
		if g.Name == familyGroup {
			if err := conn.JoinGroup(g.ID); err != nil {
				conn.Close()
				return nil, fmt.Errorf("join the netlink group %s: %w", familyGroup, err)
			}
			return &Watcher{conn: conn}, nil
		}
	}
	conn.Close()
	return nil, fmt.Errorf("%w: no group %s", ErrAnswer, familyGroup)
}

// Close ends the watcher, and a Next that waits.
func (w *Watcher) Close() error { return w.conn.Close() }

// Next waits until a connection of a device breaks and returns the device's index. AnyIndex says that notices were lost: it may have been any device.
// The notice comes just before the kernel takes a new socket in the place of the broken one; Reconfigure tells whether it did.
func (w *Watcher) Next(ctx context.Context) (index int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := w.conn.SetReadDeadline(time.Time{}); err != nil {
		return 0, fmt.Errorf("wait for nbd's notices: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.conn.SetReadDeadline(time.Unix(1, 0)) }) // fails only once closed
	defer stop()
	for {
		messages, _, err := w.conn.Receive()
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOBUFS):
			return AnyIndex, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
			return 0, ctx.Err()
		default:
			return 0, fmt.Errorf("wait for nbd's notices: %w", err)
		}
		for _, m := range messages {
			if m.Header.Command == cmdLinkDead {
				return getIndex(m.Data)
			}
		}
	}
}
