package main

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// delay holds callers up, all for the same time. One timer of the kernel wakes those whose time has come, as answers would that arrive on a
// connection. time.Sleep is no measure here: while nothing else runs it ends with the next whole millisecond.
type delay struct {
	time  time.Duration
	start time.Time
	fd    int
	clock *os.File // of fd, a timerfd
	ended chan struct{}
	done  sync.Pool // chan struct{}

	mu      sync.Mutex
	waiting []heldUp // in the order in which their time comes
}

type heldUp struct {
	due  time.Duration // since start
	done chan struct{}
}

func newDelay(d time.Duration) (*delay, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	w := &delay{time: d, start: time.Now(), fd: fd, clock: os.NewFile(uintptr(fd), "timerfd"), ended: make(chan struct{})}
	w.done.New = func() any { return make(chan struct{}, 1) }
	go w.run()
	return w, nil
}

// wait returns when the time has passed.
func (w *delay) wait() {
	done := w.done.Get().(chan struct{})
	w.mu.Lock()
	due := time.Since(w.start) + w.time
	w.waiting = append(w.waiting, heldUp{due, done})
	if len(w.waiting) == 1 {
		w.setLocked(w.time)
	}
	w.mu.Unlock()
	<-done
	w.done.Put(done)
}

// settle is the least time for which the timer is set, so that one wake-up serves several callers: nobody goes early, some this much late.
const settle = 100 * time.Microsecond

// setLocked sets the timer.
func (w *delay) setLocked(d time.Duration) {
	if err := unix.TimerfdSettime(w.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(d, settle)))}, nil); err != nil {
		panic(err) // the arguments are wrong
	}
}

// run lets go those whose time has come, until the timer is closed.
func (w *delay) run() {
	defer close(w.ended)
	buf := make([]byte, 8)
	for {
		if _, err := w.clock.Read(buf); err != nil {
			return
		}
		w.release()
	}
}

func (w *delay) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, n := time.Since(w.start), 0
	for n < len(w.waiting) && w.waiting[n].due <= now {
		w.waiting[n].done <- struct{}{} // it has room
		n++
	}
	w.waiting = w.waiting[:copy(w.waiting, w.waiting[n:])]
	if len(w.waiting) > 0 {
		w.setLocked(w.waiting[0].due - now)
	}
}

// close ends the timer. Nobody may wait.
func (w *delay) close() error {
	err := w.clock.Close()
	<-w.ended
	return err
}
