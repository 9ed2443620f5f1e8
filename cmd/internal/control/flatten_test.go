package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"skerry/drivers"
	"skerry/volume/catalog"
)

func TestFlattenTellsOfProgress(t *testing.T) {
	h := &fakeHolds{block: make(chan struct{})}
	c := NewClient(start(t, h), 0)
	last := int64(0)
	v, err := c.Flatten(t.Context(), "vm1", func(done, total int64) {
		if done == 1 && last == 0 {
			close(h.block)
		}
		last = done
	})
	if err != nil || v.Name != "vm1" || last != 2 {
		t.Errorf("%+v, %v, %d bytes in the end", v, err, last)
	}
	h.err = fmt.Errorf("vm1: %w", drivers.ErrNoSpace)
	if _, err := c.Flatten(t.Context(), "vm1", func(int64, int64) {}); !errors.Is(err, drivers.ErrNoSpace) || err.Error() != h.err.Error() {
		t.Errorf("an error of the holder: %v", err)
	}
}

// TestFlattenEndsWithTheCaller: who interrupts the command stops the work.
func TestFlattenEndsWithTheCaller(t *testing.T) {
	h := &watchedHolds{fakeHolds: fakeHolds{block: make(chan struct{})}, ended: make(chan error, 1)}
	c := NewClient(start(t, h), 0)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Flatten(ctx, "vm1", func(done, _ int64) {
		if done == 1 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrGone) {
		t.Errorf("the caller is told %v", err)
	}
	if err := <-h.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the holder is told %v", err)
	}
}

type watchedHolds struct {
	fakeHolds
	ended chan error
}

func (h *watchedHolds) Flatten(ctx context.Context, volume string, progress func(done, total int64)) (Volume, error) {
	v, err := h.fakeHolds.Flatten(ctx, volume, progress)
	h.ended <- err
	return v, err
}

// TestFlattenEndsWithTheHolder: a process that is asked to end does not wait for hours.
func TestFlattenEndsWithTheHolder(t *testing.T) {
	l, err := Listen(t.Context(), filepath.Join(t.TempDir(), "skerry"))
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(&fakeHolds{block: make(chan struct{})}, slog.New(slog.DiscardHandler))
	done, stopped := make(chan error, 1), make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	begun := false
	_, err = NewClient(l.Addr().String(), 0).Flatten(t.Context(), "vm1", func(int64, int64) {
		if !begun {
			begun = true
			go func() { stopped <- s.Shutdown(context.Background()) }()
		}
	})
	if !errors.Is(err, catalog.ErrInUse) {
		t.Errorf("the caller is told %v", err)
	}
	if err := errors.Join(<-stopped, <-done); err != nil {
		t.Error(err)
	}
}

// TestCallsOutliveTheTimeForRequests: the time for a request is not that for its answer.
func TestCallsOutliveTheTimeForRequests(t *testing.T) {
	l, err := Listen(t.Context(), filepath.Join(t.TempDir(), "skerry"))
	if err != nil {
		t.Fatal(err)
	}
	h := &fakeHolds{block: make(chan struct{})}
	s := NewServer(h, slog.New(slog.DiscardHandler))
	s.http.ReadTimeout = time.Millisecond
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c := NewClient(l.Addr().String(), 0)
	info := make(chan error, 1)
	go func() {
		_, err := c.Info(context.Background(), "vm1")
		info <- err
	}()
	beats := 0
	_, err = c.Flatten(t.Context(), "vm1", func(int64, int64) {
		if beats++; beats == 2 {
			close(h.block)
		}
	})
	if err := errors.Join(err, <-info, s.Shutdown(t.Context()), <-done); err != nil {
		t.Error(err)
	}
}

func TestResizeReachesTheHolder(t *testing.T) {
	c := NewClient(start(t, &fakeHolds{}), 0)
	if v, err := c.Resize(t.Context(), "vm1", NewSize{Size: -512, By: true}); err != nil || v.Size != -512 {
		t.Errorf("%+v, %v", v, err)
	}
}
