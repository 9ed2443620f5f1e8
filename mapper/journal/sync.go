package journal

import (
	"context"
	"fmt"
)

// Sync returns nil once all frames up to seq, which must have been appended, are durable. Calls that
// overlap share one sync of the storage. ctx ends the waiting for a sync that another call does; a sync of
// its own goes on to its end.
func (w *Writer) Sync(ctx context.Context, seq uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case w.err != nil:
			return w.err
		case seq <= w.synced:
			return nil
		case seq >= w.seq:
			return fmt.Errorf("sync journal up to frame %d of %d: %w", seq, w.seq-1, ErrInvalid)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if w.syncing == 0 {
			w.syncLocked()
			continue
		}
		if w.ended == nil {
			w.ended = make(chan struct{})
		}
		ended := w.ended
		w.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
		}
		w.mu.Lock()
	}
}

// syncLocked makes all frames durable that are written now; it unlocks meanwhile.
func (w *Writer) syncLocked() {
	w.syncing = w.seq - 1
	w.mu.Unlock()
	err := w.store.Sync(w.lease, w.name)
	w.mu.Lock()
	if err != nil {
		w.failLocked(fmt.Errorf("sync journal %s: %w", w.name, err))
	} else {
		w.synced = w.syncing
	}
	w.syncing = 0
	if w.ended != nil {
		close(w.ended)
		w.ended = nil
	}
}
