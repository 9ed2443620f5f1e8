package service

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Check asks whether the service still does its work. An answer, of whatever kind, ends it; it may wait for one until the end of ctx.
type Check func(ctx context.Context) error

// Unit is this process as a service of systemd.
type Unit struct {
	log      *slog.Logger
	interval time.Duration // within which the watchdog wants to hear; 0: there is none

	cancel context.CancelFunc // of what runs in the background
	wg     sync.WaitGroup

	mu      sync.Mutex // also the order of messages
	stopped bool       // it was told that the service stops
}

// Start begins to answer the watchdog, if systemd has one for this process: alive is asked three times within its interval, and the
// watchdog hears of each answer. If none comes systemd ends the process and may start it anew. The end of ctx is told to systemd as that of the
// service; the watchdog is answered until Stop.
func Start(ctx context.Context, alive Check, log *slog.Logger) *Unit {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	u := &Unit{log: log, cancel: cancel}
	var err error
	if u.interval, err = daemon.SdWatchdogEnabled(false); err != nil {
		log.Warn("the watchdog hears nothing", "err", err)
	}
	u.wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-background.Done():
		}
		u.stopping()
	})
	if u.interval > 0 {
		u.wg.Go(func() { u.watch(background, alive) }) // also while requests end
	}
	return u
}

// Ready tells that clients can connect, and what the service does, in a line for people.
func (u *Unit) Ready(status string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.stopped {
		u.notify(daemon.SdNotifyReady, "STATUS="+status)
	}
}

// Stop tells that the service ends, unless that was told, and returns when nothing runs in the background.
func (u *Unit) Stop() {
	u.cancel()
	u.wg.Wait()
}

func (u *Unit) stopping() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	u.notify(daemon.SdNotifyStopping, "STATUS=ending requests, flushing and releasing volumes")
}

// watch asks alive for as long as ctx lasts.
func (u *Unit) watch(ctx context.Context, alive Check) {
	tick := time.NewTicker(max(u.interval/3, time.Millisecond))
	defer tick.Stop()
	for {
		u.answer(ctx, alive)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// answer tells the watchdog if alive answers in time.
func (u *Unit) answer(ctx context.Context, alive Check) {
	asked, cancel := context.WithTimeout(ctx, u.interval)
	defer cancel()
	err := alive(asked)
	if asked.Err() != nil {
		if ctx.Err() == nil {
			u.log.Error("the storage does not answer: the watchdog will end this process", "after", u.interval, "err", err)
		}
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.notify(daemon.SdNotifyWatchdog)
}

// notify sends one message. That systemd does not hear it is no reason to end a service that works.
func (u *Unit) notify(lines ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		u.log.Warn("systemd cannot be told", "what", lines[0], "err", err)
	}
}
