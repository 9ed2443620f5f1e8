package fuse

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/hanwen/go-fuse/v2/fuse"

	"skerry/volume"
)

// request is a request to a device. It is shared by who waits for its end and the device, and returns to its pool when
// both are done with it. A request that was answered because its deadline passed keeps its buffer as long as the storage does, so
// the buffers of the kernel's connection, which end with the answer, serve only what ends before Submit returns.
type request struct {
	volume.Request
	ended  chan error
	buffer []byte
	slices [1][]byte // of the result of a read
	class  int
	owners atomic.Int32
	pool   *buffers
	limits *limits
	charge int64
}

// limits bound the bytes in flight of a file, and those of all files.
type limits struct{ file, all *semaphore.Weighted }

// acquire waits without regard to signals, as programs expect it of files. Requests in flight end by their deadline.
func (l *limits) acquire(n int64) error {
	ctx := context.Background()
	if err := l.file.Acquire(ctx, n); err != nil {
		return err
	}
	if err := l.all.Acquire(ctx, n); err != nil {
		l.file.Release(n)
		return err
	}
	return nil
}

func (l *limits) release(n int64) {
	l.all.Release(n)
	l.file.Release(n)
}

// newRequest returns a request for n bytes, without data. It waits while too many bytes are in flight.
func (f *file) newRequest(kind volume.Kind, off int64, n int) (*request, error) {
	charge := int64(1) << (minShift + classOf(n))
	if err := f.limits.acquire(charge); err != nil {
		return nil, err
	}
	q := f.tree.buffers.get(n)
	q.pool, q.limits, q.charge = &f.tree.buffers, &f.limits, charge
	q.Kind, q.Flags, q.Offset, q.Length, q.Err = kind, 0, off, int64(n), nil
	q.owners.Store(1)
	return q, nil
}

// do hands the request to a device and waits for its answer. The caller drops it afterwards.
func (q *request) do(d Device) error {
	q.owners.Store(2)
	if d.Submit(&q.Request) {
		q.owners.Store(1)
		return q.Err
	}
	return <-q.ended
}

// Keep implements [volume.Keeper]: what is written lies in a buffer of the connection.
func (q *request) Keep(*volume.Request) {
	if q.Kind == volume.Write {
		own := q.room(len(q.Data))
		copy(own, q.Data)
		q.Data = own
	}
}

// Answered implements [volume.Completer].
func (q *request) Answered(_ *volume.Request, err error) { q.ended <- err }

// Released implements [volume.Completer].
func (q *request) Released(*volume.Request) { q.drop() }

// drop ends one owner's use.
func (q *request) drop() {
	if q.owners.Add(-1) > 0 {
		return
	}
	q.Data = nil
	q.limits.release(q.charge)
	q.pool.put(q)
}

// A request is also the result of a read: its buffer goes to the kernel as it is. A result without Slices is done before it is
// sent where splicing is off, and another request would change the buffer meanwhile.
var _ interface {
	fuse.ReadResult
	Slices() ([][]byte, fuse.Status)
} = (*request)(nil)

// Slices tells the server to send the buffer before it calls Done.
func (q *request) Slices() ([][]byte, fuse.Status) {
	q.slices[0] = q.Data
	return q.slices[:], fuse.OK
}

// Bytes implements [fuse.ReadResult].
func (q *request) Bytes([]byte) ([]byte, fuse.Status) { return q.Data, fuse.OK }

// Size implements [fuse.ReadResult].
func (q *request) Size() int { return len(q.Data) }

// Done implements [fuse.ReadResult].
func (q *request) Done() { q.drop() }
