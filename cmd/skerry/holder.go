package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skerry/cmd/internal/control"
	"skerry/locking"
)

// viaHolder does something with a volume in this process, or, if another process of this host holds the volume, has that
// one do it.
func viaHolder[T any](ctx context.Context, s *session, do func(context.Context) (T, error), ask func(context.Context, *control.Client) (T, error)) (T, error) {
	v, err := do(ctx)
	c, ok := s.holder(err)
	if !ok {
		return v, err
	}
	held := err
	// A process that is stopped or hangs is told from one that takes its time.
	if _, err = c.Process(ctx); err == nil {
		v, err = ask(ctx, c)
	}
	if !errors.Is(err, control.ErrGone) {
		return v, err
	}
	// The holder may have ended since: then the volume is free.
	gone := err
	v, err = do(ctx)
	if errors.Is(err, locking.ErrHeld) {
		return v, advised{
			fmt.Errorf("%w. It was asked to do this and did not answer (%w)", held, gone),
			"see whether that process is stopped or its storage hangs; when it has ended, also by kill -9, the volume is free and all that it answered is there",
		}
	}
	return v, err
}

// holder returns a client of the process that holds a volume, if err says so and that process can be reached.
func (s *session) holder(err error) (*control.Client, bool) {
	var held *locking.HeldError
	if !errors.As(err, &held) {
		return nil, false
	}
	return s.client(held.Holder, 0)
}

// client returns a client of a process that holds volumes, if that can be reached from here.
func (s *session) client(h locking.Holder, limit time.Duration) (*control.Client, bool) {
	// The boot id is the kernel's: the socket is reachable on the same kernel, whatever the machine calls itself.
	if h.Socket == "" || h.Boot != s.identity.Boot {
		return nil, false
	}
	return control.NewClient(h.Socket, limit), true
}
