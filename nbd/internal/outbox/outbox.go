package outbox

import (
	"net"
	"sync"
)

// maxRounds is how many system calls one that must not block makes for others' messages.
const maxRounds = 4

// Box collects the messages of one connection and sends them in the order in which they were put in.
type Box[T any] struct {
	render func(v *Vec, item T)
	sent   func(items []T)

	kick   chan struct{} // tells the goroutine to go on sending
	closed chan struct{} // the goroutine has ended

	mu      sync.Mutex
	idle    sync.Cond // sending became false
	queue   []T
	closing bool
	sending bool // someone is sending, and owns all below

	batch []T // what is being sent
	next  int // of batch: the first that is not rendered
	freed int // of batch: the first that was not given to sent
	vec   *Vec
	out   *sender
	dead  bool // the connection is broken: nothing is sent any more
}

// New returns a box for a connection. render adds an item's message to v; sent, which may be nil, gets items
// after they were sent, or dropped because the connection is broken, and must not keep the slice. Neither may block or use the box.
func New[T any](conn net.Conn, render func(v *Vec, item T), sent func(items []T)) *Box[T] {
	b := &Box[T]{
		render: render,
		sent:   sent,
		kick:   make(chan struct{}, 1),
		closed: make(chan struct{}),
		vec:    newVec(),
		out:    newSender(conn),
	}
	b.idle.L = &b.mu
	go func() {
		defer close(b.closed)
		for range b.kick {
			b.drain(true)
		}
	}()
	return b
}

// Put adds one message. If nobody is sending, it sends until none wait; without block
// only what the kernel takes at once.
func (b *Box[T]) Put(item T, block bool) {
	b.mu.Lock()
	if !b.closing {
		b.queue = append(b.queue, item)
	}
	b.send(block)
}

// PutAll is Put for many messages.
func (b *Box[T]) PutAll(items []T, block bool) {
	b.mu.Lock()
	if !b.closing {
		b.queue = append(b.queue, items...)
	}
	b.send(block)
}

// Close returns when nothing waits or is being sent, and ends the box. What is put in from then on is
// dropped, and sent does not hear of it.
func (b *Box[T]) Close() {
	b.mu.Lock()
	first := !b.closing
	b.closing = true
	for b.sending {
		b.idle.Wait()
	}
	b.mu.Unlock()
	if first {
		close(b.kick)
	}
	<-b.closed
}

// send is called with mu held and releases it.
func (b *Box[T]) send(block bool) {
	if b.sending || len(b.queue) == 0 {
		b.mu.Unlock()
		return
	}
	b.sending = true
	b.mu.Unlock()
	b.drain(block)
}

// drain sends until nothing waits. If it must not block it may leave the rest to the goroutine.
func (b *Box[T]) drain(block bool) {
	for round := 0; ; round++ {
		if len(b.out.rest) == 0 && !b.fill() {
			return
		}
		if b.out.send(block) != nil {
			b.broken()
		}
		if len(b.out.rest) > 0 {
			b.kick <- struct{}{} // has room: only the one who sends kicks
			return
		}
		b.finish()
		if !block && round >= maxRounds {
			b.kick <- struct{}{}
			return
		}
	}
}

// fill renders messages into vec. It returns false, and sending has ended, if there are none.
func (b *Box[T]) fill() bool {
	if b.next == len(b.batch) {
		b.next, b.freed = 0, 0
		b.mu.Lock()
		b.batch, b.queue = b.queue, b.batch[:0]
		if len(b.batch) == 0 {
			b.sending = false
			b.idle.Broadcast()
			b.mu.Unlock()
			return false
		}
		b.mu.Unlock()
	}
	if b.dead {
		b.next = len(b.batch)
		return true
	}
	for b.next < len(b.batch) && !b.vec.full() {
		b.render(b.vec, b.batch[b.next])
		b.next++
	}
	b.out.rest = b.vec.bufs
	return true
}

// finish gives back what was sent.
func (b *Box[T]) finish() {
	b.vec.reset()
	done := b.batch[b.freed:b.next]
	b.freed = b.next
	if b.sent != nil {
		b.sent(done)
	}
	clear(done)
}

// broken makes all messages from now on count as sent.
func (b *Box[T]) broken() { b.out.rest, b.dead = nil, true }
