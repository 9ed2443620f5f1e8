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
	sending bool  // someone is sending, and owns all below
	err     error // the connection is broken

	batch []T // what is being sent
	next  int // of batch: the first that is not rendered
	freed int // of batch: the first that was not given to sent
	vec   *Vec
	out   *sender
	dead  bool // err is set: nothing is sent any more
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

// Put adds one message and does not block.
func (b *Box[T]) Put(item T) {
	b.mu.Lock()
	b.queue = append(b.queue, item)
	b.leave(false)
}

// Send adds messages, and if nobody is sending, sends until none wait.
func (b *Box[T]) Send(items []T) {
	b.mu.Lock()
	b.queue = append(b.queue, items...)
	b.leave(true)
}

// SendNow is Send, but does not block.
func (b *Box[T]) SendNow(items []T) {
	b.mu.Lock()
	b.queue = append(b.queue, items...)
	b.leave(false)
}

// Wait returns when nothing waits or is being sent.
func (b *Box[T]) Wait() {
	b.mu.Lock()
	for b.sending {
		b.idle.Wait()
	}
	b.mu.Unlock()
}

// Close waits like Wait and ends the box. Nothing may be put in any more.
func (b *Box[T]) Close() {
	b.Wait()
	close(b.kick)
	<-b.closed
}

// Err returns the error that broke the connection, if any.
func (b *Box[T]) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// leave is called with mu held and releases it.
func (b *Box[T]) leave(block bool) {
	if b.sending {
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
		if err := b.out.send(block); err != nil {
			b.broken(err)
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
		b.mu.Lock()
		b.batch, b.queue = b.queue, b.batch[:0]
		if len(b.batch) == 0 {
			b.sending = false
			b.idle.Broadcast()
			b.mu.Unlock()
			return false
		}
		b.mu.Unlock()
		b.next, b.freed = 0, 0
	}
	for b.next < len(b.batch) && !b.vec.full() {
		b.render(b.vec, b.batch[b.next])
		b.next++
	}
	if !b.dead {
		b.out.rest = b.vec.bufs
	}
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
func (b *Box[T]) broken(err error) {
	b.mu.Lock()
	if b.err == nil {
		b.err = err
	}
	b.mu.Unlock()
	b.out.rest, b.dead = nil, true
}
