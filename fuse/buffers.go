package fuse

import (
	"math/bits"
	"sync"
)

const (
	minShift = 12 // 4 KiB
	maxShift = 20 // the largest request: 1 MiB
	classes  = maxShift - minShift + 1
)

// maxRequest is the largest read or write of the kernel in bytes.
const maxRequest = 1 << maxShift

// buffers keeps requests with buffers in classes, the powers of two from 4 KiB to 1 MiB.
type buffers struct{ class [classes]sync.Pool }

func classOf(n int) int {
	if n <= 1<<minShift {
		return 0
	}
	return bits.Len(uint(n-1)) - minShift
}

// get returns a request for n bytes, at most maxRequest. It may have a buffer, see room.
func (b *buffers) get(n int) *request {
	c := classOf(n)
	q, ok := b.class[c].Get().(*request)
	if !ok {
		q = &request{ended: make(chan error, 1), class: c}
		q.Request.Done = q
	}
	return q
}

func (b *buffers) put(q *request) { b.class[q.class].Put(q) }

// room returns n bytes, at most as many as the request was got for, that are the request's until it is dropped.
func (q *request) room(n int) []byte {
	if q.buffer == nil {
		q.buffer = make([]byte, 1<<(minShift+q.class))
	}
	return q.buffer[:n]
}
