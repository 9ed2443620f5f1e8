package journal

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// mergeLimit bounds the entries in bytes of a frame that several batches share; a larger batch has its own
// frame, and is written from where it lies.
const mergeLimit = 256 << 10

// Writer appends to one journal. Its methods may be called concurrently. A failed write
// or sync is final: all later calls of Append and Sync return that error.
type Writer struct {
	store Store
	lease context.Context
	name  string
	size  int64
	id    header // what all frames have in common

	mu    sync.Mutex
	err   error
	start int64 // bytes since lap 0 began, like head: where live space begins
	head  int64
	seq   uint64 // of the next frame
	check uint32 // of the last frame

	leading     bool // an appender writes, or is about to
	first, last *Batch
	merged      []byte // the leader's

	synced  uint64        // sequence that is known durable
	syncing uint64        // what the sync that runs will make durable; 0: none runs
	ended   chan struct{} // closed when it ends; nil: nobody waits
}

func newWriter(c Config, name string) *Writer {
	return &Writer{
		store: c.Store, lease: c.Lease, name: name, size: c.Size,
		id: header{
			version: formatVersion, generation: c.Generation, volume: c.Volume, boot: c.Boot, object: c.Object,
		},
		start: firstLap * c.Size, head: firstLap * c.Size,
		seq: c.FirstSeq, synced: c.FirstSeq - 1,
	}
}

// Append writes the entries of b in one frame, which it may share with batches of concurrent calls, and returns the
// frame's sequence. When it returns nil, this frame and all before it have been written,
// which is to say that they have left the process; they are durable after [Writer.Sync]. With [ErrFull] and
// [ErrTooLarge] nothing was appended. ctx is looked at before anything is written;
// after that Append waits for the storage.
func (w *Writer) Append(ctx context.Context, b *Batch) (seq uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.checkLocked(b); err != nil {
		return 0, err
	}
	w.enqueueLocked(b)
	if w.leading {
		if b.wake == nil {
			b.wake = make(chan bool, 1)
		}
		w.mu.Unlock()
		lead := <-b.wake
		w.mu.Lock()
		if !lead {
			return b.seq, b.fail
		}
	}
	w.leading = true
	w.leadLocked()
	return b.seq, b.fail
}

// TryAppend appends as Append does, unless another call is appending: then it returns false and has done nothing.
func (w *Writer) TryAppend(b *Batch) (seq uint64, done bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leading {
		return 0, false, nil
	}
	if err := w.checkLocked(b); err != nil {
		return 0, true, err
	}
	w.enqueueLocked(b)
	w.leading = true
	w.leadLocked()
	return b.seq, true, b.fail
}

// enqueueLocked puts b at the end of the queue.
func (w *Writer) enqueueLocked(b *Batch) {
	b.seq, b.fail, b.next = 0, nil, nil
	if w.first == nil {
		w.first = b
	} else {
		w.last.next = b
	}
	w.last = b
}

// checkLocked returns the reason why b can never be appended.
func (w *Writer) checkLocked(b *Batch) error {
	switch {
	case w.err != nil:
		return w.err
	case b.err != nil:
		return fmt.Errorf("append to journal: %w", b.err)
	case int64(frameLen(b.Len())) > w.size:
		return fmt.Errorf("append %d bytes to journal of %d: %w", b.Len(), w.size, ErrTooLarge)
	case b.newest >= w.seq:
		return fmt.Errorf("append to journal: frame %d named before it was written: %w", b.newest, ErrInvalid)
	}
	return nil
}

// leadLocked appends one frame with the first batch of the queue and as many more as fit, tells their
// appenders, and hands the lead on.
func (w *Writer) leadLocked() {
	b := w.first
	at, fits := w.placeLocked(b.Len())
	switch {
	case w.err != nil:
		b.fail = w.err
		w.takeLocked(b)
	case !fits:
		b.fail = fmt.Errorf("append %d bytes to journal: %w", b.Len(), ErrFull)
		w.takeLocked(b)
	default:
		w.writeLocked(at)
	}
	if w.leading = w.first != nil; w.leading {
		w.first.wake <- true
	}
}

// writeLocked writes the frame of the first batches of the queue; it unlocks meanwhile.
func (w *Writer) writeLocked(at int64) {
	first, last := w.first, w.first
	body := first.Len()
	for b := first.next; b != nil && body+b.Len() <= mergeLimit; b = b.next {
		to, fits := w.placeLocked(body + b.Len())
		if !fits {
			break
		}
		at, last, body = to, b, body+b.Len()
	}
	w.takeLocked(last)
	h := w.id
	h.seq, h.synced, h.previous = w.seq, w.synced, w.check
	h.lap, h.body = uint32(at/w.size), uint32(body)
	w.mu.Unlock()

	f := w.frame(first, body)
	check := h.seal(f)
	err := w.store.WriteAt(w.lease, w.name, f, at%w.size)

	w.mu.Lock()
	if err != nil {
		err = w.failLocked(fmt.Errorf("append to journal %s: %w", w.name, err))
	} else {
		if w.start == w.head {
			w.start = at // nothing is live, also not the end of the lap that was left free
		}
		w.head, w.check = at+int64(len(f)), check
		w.seq++
	}
	for b := first; b != nil; {
		next := b.next // b is its appender's again once told
		b.seq, b.fail = h.seq, err
		if err != nil {
			b.seq = 0
		}
		if b != first {
			b.wake <- false
		}
		b = next
	}
}

// frame returns the memory of a frame with the entries of the list of batches.
func (w *Writer) frame(first *Batch, body int) []byte {
	n := frameLen(body)
	if first.next == nil {
		first.buf = slices.Grow(first.buf, n-len(first.buf))
		return first.buf[:n]
	}
	w.merged = slices.Grow(w.merged[:0], n)[:headerSize]
	for b := first; b != nil; b = b.next {
		if !b.Empty() {
			w.merged = append(w.merged, b.buf[headerSize:]...)
		}
	}
	return w.merged[:n]
}

// takeLocked removes the queue's batches up to and including last.
func (w *Writer) takeLocked(last *Batch) {
	w.first, last.next = last.next, nil
	if w.first == nil {
		w.last = nil
	}
}

// placeLocked returns where a frame with so many bytes of entries goes, and whether it fits there. A frame
// that does not fit before the end begins the next lap.
func (w *Writer) placeLocked(body int) (at int64, fits bool) {
	n := int64(frameLen(body))
	at = w.head
	if at%w.size+n > w.size {
		at += w.size - at%w.size
	}
	start := w.start
	if start == w.head {
		start = at
	}
	return at, at+n-start <= w.size
}

// failLocked makes err final, if nothing else is, and returns err.
func (w *Writer) failLocked(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

// Last returns the sequence of the last frame that was written.
func (w *Writer) Last() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq - 1
}

// Head returns where the next frame goes: the start of a journal after a cut taken now. A
// frame that is being written lies after it.
func (w *Writer) Head() Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Position{
		Object: w.id.object, Offset: w.head % w.size, Lap: uint32(w.head / w.size),
		Seq: w.seq, Check: w.check, Size: w.size,
	}
}

// Release says that a durable root names p, once a Head of this journal, as start: the space before it is used again.
// A position before the present start changes nothing; one that the journal never had is
// final like a failed write.
func (w *Writer) Release(p Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := int64(p.Lap)*w.size + p.Offset
	if p.Object != w.id.object || p.Size != w.size || at > w.head || p.Seq > w.seq {
		w.failLocked(fmt.Errorf("release journal %s up to %+v: %w", w.name, p, ErrInvalid))
		return
	}
	w.start = max(w.start, at)
}

// Live returns the bytes between start and head, with what was left free at the end of a lap.
func (w *Writer) Live() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.head - w.start
}

// Size returns the size of the journal in bytes.
func (w *Writer) Size() int64 { return w.size }

// Err returns the error that is final for this writer, or nil.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close makes later calls of Append and Sync fail with [ErrClosed]. It does no I/O and waits for none: calls that
// run end by themselves. The journal's object stays.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(ErrClosed)
}
