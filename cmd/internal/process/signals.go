package process

import (
	"context"
	"errors"
	"os"
	"os/signal"
)

// Signals are what a process has handlers for, so that the first of them ends a context.
type Signals struct {
	kinds  []os.Signal
	cancel context.CancelCauseFunc
	came   chan os.Signal
	ended  chan struct{} // the goroutine that waits for the first one
}

// NotifyContext returns a context that ends with the first signal of some kinds, or with its parent. A second signal does what it does without
// a handler. It is signal.NotifyContext, but Stop leaves the context as it is.
func NotifyContext(parent context.Context, kinds ...os.Signal) (context.Context, *Signals) {
	ctx, cancel := context.WithCancelCause(parent)
	s := &Signals{kinds: kinds, cancel: cancel}
	s.start()
	return ctx, s
}

func (s *Signals) start() {
	came, ended := make(chan os.Signal, 1), make(chan struct{})
	s.came, s.ended = came, ended
	signal.Notify(came, s.kinds...)
	go func() {
		defer close(ended)
		if sig, ok := <-came; ok {
			signal.Stop(came)
			s.cancel(errors.New(sig.String() + " signal received"))
		}
	}()
}

// Stop takes the handlers away. A signal that came before has ended the context when Stop returns; one that comes later does what it
// does without a handler. So none is forgotten. It is not for several goroutines at a time.
func (s *Signals) Stop() {
	if s.came == nil {
		return
	}
	signal.Stop(s.came) // nothing is sent to it from now on
	close(s.came)
	<-s.ended
	s.came = nil
}
