package load

import (
	"fmt"
	"sync/atomic"
	"time"

	"skerry/nbd/client"
)

// request is a place for one request at a time.
type request struct {
	client.Op
	index int           // of kinds, or flush
	begun time.Duration // on the session's clock
	slot  int64
	state uint32 // of the slot
}

// session keeps Config.Depth requests in flight and counts what comes of them. All but stop belongs to the goroutine on
// which requests end.
type session struct {
	cfg    *Config
	course course
	table  *table // nil: nothing is verified
	submit func(r *request)
	clock  func() time.Duration // since all sessions began
	stop   *atomic.Bool         // no more requests

	all      []request
	idle     []*request // that wait for the flush
	inFlight int
	left     int64 // requests to begin; ends at 0 if Config.Count bounds them
	pending  int64 // changes since the last flush began
	from, to time.Duration

	counted [allKinds]Histogram
	ended   int64         // requests, those that do not count included
	last    time.Duration // when the last request that counts ended
	found   [right + 1]int64
	err     error
	done    chan struct{} // closed when nothing is in flight and nothing will be
}

// newSession returns session i of n.
func newSession(c *Config, i, n int, t *table, clock func() time.Duration, stop *atomic.Bool) *session {
	s := &session{
		cfg: c, course: newCourse(c, i, n), table: t, clock: clock, stop: stop,
		all:  make([]request, c.Depth),
		idle: make([]*request, 0, c.Depth),
		left: c.Count*int64(i+1)/int64(n) - c.Count*int64(i)/int64(n),
		from: c.Warmup, to: 1<<63 - 1,
		done: make(chan struct{}),
	}
	if c.Time > 0 {
		s.to = c.Warmup + c.Time
	}
	buffers := make([]byte, int64(c.Depth)*c.Block)
	for at := 0; at+8 <= len(buffers) && c.Mix.Changes(); at += 8 { // so that nothing below can take the data for zeros, or pack it
		x := s.course.rng.Uint64()
		for k := range 8 {
			buffers[at+k] = byte(x >> (8 * k))
		}
	}
	for i := range s.all {
		r := &s.all[i]
		r.Data = buffers[int64(i)*c.Block:][:c.Block:c.Block]
		r.Done = func(*client.Op) { s.end(r) }
	}
	return s
}

// begin submits the first requests. It is called where requests end.
func (s *session) begin() {
	now := s.clock()
	s.inFlight++ // so that it does not end while it begins
	for i := range s.all {
		s.next(&s.all[i], now)
	}
	s.settle()
}

// settle ends one request in flight; the last one ends the session.
func (s *session) settle() {
	if s.inFlight--; s.inFlight == 0 {
		close(s.done)
	}
}

// end takes in a request that has ended, and begins the next one.
func (s *session) end(r *request) {
	now := s.clock()
	s.ended++
	s.took(r)
	if s.err == nil && now > s.from && now <= s.to {
		s.counted[r.index].Record(now - r.begun)
		s.last = now
	}
	if r.index == flush {
		// What waits was held back by this flush: nothing else is in flight.
		s.pending = 0
		waiting := s.idle
		s.idle = s.idle[:0]
		for _, w := range waiting {
			s.next(w, now)
		}
	}
	s.next(r, now)
	s.settle()
}

// took looks at the outcome of a request.
func (s *session) took(r *request) {
	if s.table != nil && r.index != flush {
		if r.Err == nil && r.index == read {
			found, err := s.table.check(r.Data, r.Offset, r.state)
			if err != nil {
				s.fail(err)
			} else {
				s.found[found]++
			}
		} else if r.Err == nil {
			r.state = changed(r.state, r.index)
		}
		s.table.give(r.slot, r.state)
	}
	if r.Err != nil {
		s.fail(fmt.Errorf("%s %d bytes at %d: %w", name(r.index), r.Length, r.Offset, r.Err))
	}
}

func (s *session) fail(err error) {
	if s.err == nil {
		s.err = err
		s.stop.Store(true) // also the other sessions
	}
}

// next begins a request, or puts it aside until a flush has ended or for good.
func (s *session) next(r *request, now time.Duration) {
	switch {
	case s.err != nil || s.stop.Load() || now >= s.to:
		return
	case s.cfg.FlushEvery > 0 && s.pending >= s.cfg.FlushEvery:
		// The request that has just ended, or the place where all begin, is still counted: at 1 nothing else is in flight.
		if s.inFlight > 1 {
			s.idle = append(s.idle, r)
			return
		}
		r.index, r.Kind, r.Flags, r.Offset, r.Length = flush, client.Flush, 0, 0, 0
	case !s.choose(r):
		return
	}
	r.begun = now
	s.inFlight++
	s.submit(r)
}

// choose decides what a request does. It returns false if nothing is left to do.
func (s *session) choose(r *request) bool {
	if s.cfg.Count > 0 && s.left == 0 {
		return false
	}
	slot, ok := s.course.next()
	if !ok {
		return false
	}
	s.left--
	r.index = s.pick()
	if s.table != nil {
		slot, r.state = s.table.take(slot)
		r.slot = slot
	}
	r.Kind, r.Flags = kind(r.index), 0
	r.Offset, r.Length = s.cfg.Offset+slot*s.cfg.Block, s.cfg.Block
	if r.index == read {
		return true
	}
	s.pending++
	if s.cfg.FUA {
		r.Flags = client.FUA
	}
	if s.table != nil && r.index == write {
		s.table.fill(r.Data, r.Offset, changed(r.state, write)&versionMask)
	}
	return true
}

func (s *session) pick() int {
	for i, share := range s.cfg.Mix.shares() {
		if share == 100 {
			return i
		}
	}
	return s.cfg.Mix.pick(s.course.rng.IntN(100))
}

// name returns what an index of kinds is called.
func name(i int) string {
	if i == flush {
		return "flush"
	}
	return kinds[i].name
}
