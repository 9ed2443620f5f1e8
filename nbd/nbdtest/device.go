// Package nbdtest holds devices and exports for tests of what speaks NBD.
package nbdtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"skerry/chunk"
	"skerry/nbd"
	"skerry/volume"
)

// Memory is a device in memory that knows which of its blocks were written. Requests end inline.
type Memory struct {
	readOnly bool

	mu      sync.RWMutex
	data    []byte
	written chunk.Bitmap // by block
	flushes int
	flushed []byte // data at the last flush, FUA writes included; nil if not kept
}

// NewMemory returns a device of size bytes, all zeros.
func NewMemory(size int) *Memory {
	return &Memory{data: make([]byte, size), written: chunk.NewBitmap((size + chunk.BlockSize - 1) / chunk.BlockSize)}
}

// NewReadOnly returns a device with this content that refuses changes.
func NewReadOnly(data []byte) *Memory {
	m := NewMemory(len(data))
	copy(m.data, data)
	m.written.Set(0, (len(data)+chunk.BlockSize-1)/chunk.BlockSize)
	m.readOnly = true
	return m
}

// KeepFlushed makes the device remember what is durable. It must be called before the first request.
func (m *Memory) KeepFlushed() { m.flushed = slices.Clone(m.data) }

// Bytes returns a copy of the content.
func (m *Memory) Bytes() []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Clone(m.data)
}

// Durable returns a copy of what flushes and FUA writes have made durable, see KeepFlushed.
func (m *Memory) Durable() []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Clone(m.flushed)
}

// Flushes returns how many flushes there were.
func (m *Memory) Flushes() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.flushes
}

// Size implements [nbd.Device].
func (m *Memory) Size() int64 { return int64(len(m.data)) }

// ReadOnly implements [nbd.Device].
func (m *Memory) ReadOnly() bool { return m.readOnly }

// FastZero implements [nbd.FastZeroer]: zeroing is quick where space need not be kept.
func (m *Memory) FastZero(_, _ int64, flags volume.Flags) bool { return flags&volume.NoHole == 0 }

// Submit implements [nbd.Device].
func (m *Memory) Submit(r *volume.Request) bool {
	r.Err = m.Do(r)
	return true
}

// Do carries out a request and returns its outcome.
func (m *Memory) Do(r *volume.Request) error {
	if r.Kind == volume.Flush {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.flushes++
		copy(m.flushed, m.data)
		return nil
	}
	if r.Offset < 0 || r.Length <= 0 || r.Offset > m.Size()-r.Length {
		return fmt.Errorf("memory device: %d bytes at %d: %w", r.Length, r.Offset, volume.ErrOutOfRange)
	}
	if (r.Kind == volume.Read || r.Kind == volume.Write) && r.Length != int64(len(r.Data)) {
		return fmt.Errorf("memory device: length %d, data %d: %w", r.Length, len(r.Data), volume.ErrInvalid)
	}
	switch r.Kind {
	case volume.Read:
		m.mu.RLock()
		defer m.mu.RUnlock()
		m.read(r)
		return nil
	case volume.Cache:
		return nil
	}
	if m.readOnly {
		return fmt.Errorf("memory device: %w", volume.ErrReadOnly)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.change(r)
	return nil
}

func (m *Memory) read(r *volume.Request) {
	copy(r.Data, m.data[r.Offset:])
	if r.Flags&volume.WantHoles == 0 {
		return
	}
	m.extents(r.Offset, r.Length, func(e volume.Extent) bool {
		if e.Flags&volume.Zero == 0 {
			return true
		}
		if len(r.Holes) == cap(r.Holes) {
			return false
		}
		r.Holes = append(r.Holes, e)
		for i := range r.Data[e.Offset-r.Offset:][:e.Length] { // undefined, so not zero here
			r.Data[e.Offset-r.Offset+int64(i)] = 0xdb
		}
		return true
	})
}

func (m *Memory) change(r *volume.Request) {
	end := r.Offset + r.Length
	first, last := int(r.Offset/chunk.BlockSize), int((end+chunk.BlockSize-1)/chunk.BlockSize)
	switch r.Kind {
	case volume.Write:
		copy(m.data[r.Offset:], r.Data)
		m.written.Set(first, last)
	case volume.WriteZeroes, volume.Discard:
		clear(m.data[r.Offset:end])
		if r.Flags&volume.NoHole != 0 {
			m.written.Set(first, last)
			break
		}
		if r.Offset%chunk.BlockSize != 0 {
			first++
		}
		if end%chunk.BlockSize != 0 && end != m.Size() {
			last--
		}
		if first < last {
			m.written.Clear(first, last)
		}
	}
	if r.Flags&volume.FUA != 0 && m.flushed != nil {
		copy(m.flushed[r.Offset:end], m.data[r.Offset:end])
	}
}

// Extents implements [nbd.Device].
func (m *Memory) Extents(_ context.Context, off, n int64, fn func(volume.Extent) bool) error {
	if off < 0 || n <= 0 || off > m.Size()-n {
		return fmt.Errorf("memory device: extents of %d bytes at %d: %w", n, off, volume.ErrOutOfRange)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.extents(off, n, fn)
	return nil
}

func (m *Memory) extents(off, n int64, fn func(volume.Extent) bool) {
	end := off + n
	for off < end {
		first := int(off / chunk.BlockSize)
		last := int((end + chunk.BlockSize - 1) / chunk.BlockSize)
		e := volume.Extent{Offset: off}
		run, stop := m.written.Run(first, last)
		to := int64(stop) * chunk.BlockSize
		if run > first {
			e.Flags = volume.Zero | volume.Hole
			to = int64(run) * chunk.BlockSize
		}
		e.Length = min(to, end) - off
		if !fn(e) {
			return
		}
		off += e.Length
	}
}

// Null is a device that does nothing, inline: reads return what the buffer held.
type Null int64

// Submit implements [nbd.Device].
func (Null) Submit(r *volume.Request) bool {
	r.Err = nil
	return true
}

// Extents implements [nbd.Device]: all is data.
func (Null) Extents(_ context.Context, off, n int64, fn func(volume.Extent) bool) error {
	fn(volume.Extent{Offset: off, Length: n})
	return nil
}

// Size implements [nbd.Device].
func (n Null) Size() int64 { return int64(n) }

// ReadOnly implements [nbd.Device].
func (Null) ReadOnly() bool { return false }

// Held is a device whose requests a test ends one by one.
type Held struct {
	*Memory
	// Requests delivers what was submitted. Its capacity bounds what may be outstanding.
	Requests chan *volume.Request
}

// NewHeld returns a device over m that may hold n requests.
func NewHeld(m *Memory, n int) *Held {
	return &Held{Memory: m, Requests: make(chan *volume.Request, n)}
}

// Submit implements [nbd.Device].
func (h *Held) Submit(r *volume.Request) bool {
	h.Requests <- r
	return false
}

// Finish carries out a request and completes it.
func (h *Held) Finish(r *volume.Request) {
	r.Done.Answered(r, h.Do(r))
	r.Done.Released(r)
}

// Later is a device whose requests end on other goroutines, in any order.
type Later struct {
	*Memory
	queue   chan *volume.Request
	workers sync.WaitGroup
}

// NewLater returns a device over m with some goroutines. Close must be called.
func NewLater(m *Memory, goroutines int) *Later {
	l := &Later{Memory: m, queue: make(chan *volume.Request, 4096)}
	for range goroutines {
		l.workers.Go(func() {
			for r := range l.queue {
				r.Done.Answered(r, l.Do(r))
				r.Done.Released(r)
			}
		})
	}
	return l
}

// Submit implements [nbd.Device].
func (l *Later) Submit(r *volume.Request) bool {
	l.queue <- r
	return false
}

// Close ends the goroutines when all requests have ended.
func (l *Later) Close() {
	close(l.queue)
	l.workers.Wait()
}

// Exports serves fixed devices by name and counts how often each is open.
type Exports struct {
	devices map[string]nbd.Device

	mu     sync.Mutex
	open   map[string]int
	closed chan struct{} // replaced and closed at each release
}

// NewExports returns exports of these devices.
func NewExports(devices map[string]nbd.Device) *Exports {
	return &Exports{devices: devices, open: make(map[string]int), closed: make(chan struct{})}
}

// ErrRefused is what Open returns for the export "refused".
var ErrRefused = errors.New("leased by another host")

func (e *Exports) find(name string) (nbd.Device, error) {
	if d := e.devices[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("%q: %w", name, nbd.ErrUnknownExport)
}

// Open implements [nbd.Exports].
func (e *Exports) Open(_ context.Context, name string) (nbd.Device, func(), error) {
	if name == "refused" {
		return nil, nil, ErrRefused
	}
	d, err := e.find(name)
	if err != nil {
		return nil, nil, err
	}
	e.add(name, 1)
	return d, func() { e.add(name, -1) }, nil
}

// Describe implements [nbd.Exports].
func (e *Exports) Describe(_ context.Context, name string) (nbd.Info, error) {
	d, err := e.find(name)
	if err != nil {
		return nbd.Info{}, err
	}
	return nbd.Info{Size: d.Size(), ReadOnly: d.ReadOnly(), Description: "the volume " + name}, nil
}

// List implements [nbd.Exports].
func (e *Exports) List(context.Context) ([]string, error) {
	var names []string
	for name := range e.devices {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// OpenCount returns how often an export is open now.
func (e *Exports) OpenCount(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open[name]
}

// WaitClosed waits until an export is not open, for a time at most.
func (e *Exports) WaitClosed(name string, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		e.mu.Lock()
		n, closed := e.open[name], e.closed
		e.mu.Unlock()
		if n == 0 {
			return true
		}
		select {
		case <-closed:
		case <-timer.C:
			return false
		}
	}
}

func (e *Exports) add(name string, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open[name] += n
	if n < 0 {
		close(e.closed)
		e.closed = make(chan struct{})
	}
}
