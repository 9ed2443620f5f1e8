package attach

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skerry/cmd/internal/failure"
	"skerry/nbd/kernel"
	"skerry/volume/catalog"
)

// Options say how a device is attached.
type Options struct {
	Device      string // path of the device; empty: any that is free
	ReadOnly    bool
	Connections int           // 1 to MaxConnections; one, if the server allows only one
	Dead        time.Duration // for which I/O waits while there is no server
	Request     time.Duration // after which a request that was not answered is sent again
}

// Attached is the outcome of an attach.
type Attached struct {
	Record
	Before bool // the device was there
}

// Attach makes a device of a target and starts a keeper for it, or finds the device that there is and sees to it that it has a
// keeper. If foreground is not nil no process is started: the keeper runs in this one until ctx ends, and foreground is called when the
// device can be used.
func (h *Host) Attach(ctx context.Context, t Target, o Options, foreground func(Attached) error) (Attached, error) {
	if err := h.makeDir(); err != nil {
		return Attached{}, err
	}
	unlock, err := lock(ctx, h.files(t.key()).lock)
	if err != nil {
		return Attached{}, err
	}
	locked := true
	free := func() {
		if locked {
			unlock()
			locked = false
		}
	}
	defer free()
	r, before, err := h.prepare(ctx, t, o, foreground != nil)
	if err != nil {
		return Attached{}, err
	}
	if foreground != nil {
		var told error
		err := h.RunKeeper(ctx, t.key(), func(now Record, err error) {
			free()
			if err == nil {
				told = foreground(Attached{now, before})
			}
		})
		return Attached{r, before}, errors.Join(err, told)
	}
	if h.kept(t.key()) {
		return Attached{r, before}, nil
	}
	r, err = h.spawn(ctx, t.key())
	return Attached{r, before}, err
}

// prepare writes the record that a keeper begins with, unless the device has a keeper, which with afresh is ended. before says that the device is there.
func (h *Host) prepare(ctx context.Context, t Target, o Options, afresh bool) (r Record, before bool, err error) {
	key := t.key()
	if r, err = h.settled(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, false, err
	}
	known := err == nil
	if !known {
		r = Record{Target: t}
	}
	found, err := h.find(t)
	if err != nil {
		return r, false, err
	}
	if len(found) > 1 {
		return r, false, fmt.Errorf("%s has several devices, %s and %s: detach one: %w", t.Name(), kernel.Path(found[0].Index), kernel.Path(found[1].Index), catalog.ErrInUse)
	}
	if len(found) == 1 {
		if known && r.Detached {
			return r, true, fmt.Errorf("%s: %s was detached by force and is still in use: %s: end that first: %w",
				t.Name(), kernel.Path(found[0].Index), h.System.usesText(kernel.Path(found[0].Index)), catalog.ErrInUse)
		}
		if err := same(found[0], t, o); err != nil {
			return r, true, err
		}
	}
	if len(found) == 1 && h.kept(key) {
		if known && !afresh && (r.Server.Own || r.URI != "" || r.Connected) {
			return r, true, nil
		}
		// Its server was somebody's, who is gone; the volume may be free for one of the own by now. Or its record is lost.
		if err := h.endKeeper(ctx, r); err != nil {
			return r, true, err
		}
	}
	if err := h.free(o.Device, len(found) == 1); err != nil {
		return r, false, err
	}
	r.Target, r.Want, r.Detached = t, o.Device, false
	if len(found) == 0 || !known {
		r.ReadOnly, r.Connections, r.Dead, r.Request = o.ReadOnly || t.Snapshot != "", o.Connections, o.Dead, o.Request
	}
	if len(found) == 1 {
		d := found[0]
		r.Device, r.Index, r.Size, r.ReadOnly = kernel.Path(d.Index), d.Index, d.Size, d.ReadOnly
	} else {
		r.Device, r.Index, r.Size = "", 0, 0
	}
	if r.Server, err = h.chooseServer(ctx, t, r.Server, r.ReadOnly); err != nil {
		return r, false, err
	}
	return r, len(found) == 1, h.save(r)
}

// settled returns the record of a key when no keeper is about to make its device or to end.
func (h *Host) settled(ctx context.Context, key string) (Record, error) {
	const pause = 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		r, err := h.load(key)
		if err != nil || !h.kept(key) {
			return r, err
		}
		if _, there, err := h.device(r.Index, r.Target); err != nil || r.Device != "" && there {
			return r, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return r, fmt.Errorf("%s: process %d has begun to attach it and does not end: %w", r.Name(), r.Keeper.PID, ctx.Err())
		}
	}
}

// same fails if a device that is there is not what is asked for.
func same(d kernel.Device, t Target, o Options) error {
	path := kernel.Path(d.Index)
	of, _ := parseBackend(d.Backend)
	switch {
	case of.Pool != t.Pool:
		return fmt.Errorf("%s: the volume with the same id of pool %s is attached as %s: detach that: %w", t.Name(), of.Pool, path, catalog.ErrInUse)
	case o.Device != "" && o.Device != path:
		return fmt.Errorf("%s is attached as %s: detach it to have it as %s: %w", t.Name(), path, o.Device, catalog.ErrInUse)
	case o.ReadOnly && !d.ReadOnly:
		return fmt.Errorf("%s is attached as %s and can be written: detach it to have it read-only: %w", t.Name(), path, catalog.ErrInUse)
	case !o.ReadOnly && d.ReadOnly && t.Snapshot == "" && t.URI == "":
		return fmt.Errorf("%s is attached as %s read-only: detach it to write: %w", t.Name(), path, catalog.ErrInUse)
	}
	return nil
}

// free fails if the wanted device is something else's.
func (h *Host) free(want string, ours bool) error {
	if want == "" || ours {
		return nil
	}
	index, err := kernel.ParsePath(want)
	if err != nil {
		return err
	}
	all, err := h.Kernel.Devices()
	if err != nil {
		return err
	}
	for _, d := range all {
		if d.Index == index && d.Attached {
			return fmt.Errorf("%s: %s; choose another device, or none: %w", want, whose(d), catalog.ErrInUse)
		}
	}
	return nil
}

// chooseServer returns where a target is served: by the server that it had, by the process that holds it, or by one of the own.
func (h *Host) chooseServer(ctx context.Context, t Target, had Server, readOnly bool) (Server, error) {
	if t.URI != "" {
		// It is not asked first: there are servers that end after one connection.
		return Server{URI: t.URI, Single: had.Single}, nil
	}
	own := Server{Own: true, URI: socketURI(h.files(t.key()).socket, t.Name()), Process: had.Process}
	if !had.Own {
		own.Process = Process{}
	}
	if _, p, err := probe(ctx, own.URI); err == nil {
		own.Process = p
		return own, nil
	}
	if t.Snapshot != "" {
		return own, nil // needs no lease
	}
	f, err := h.Lookup(ctx, t)
	if err != nil || f.Holder == nil || own.Process.alive() && f.Holder.PID == own.Process.PID {
		return own, err
	}
	uri, err := h.servedBy(ctx, t, f, readOnly)
	if err != nil || uri == "" {
		return own, err
	}
	return Server{URI: uri}, nil
}

// kept reports whether a keeper lives.
func (h *Host) kept(key string) bool {
	return isLocked(h.files(key).keeper)
}

// endKeeper ends the keeper of a record, if one lives. Device and server go on.
func (h *Host) endKeeper(ctx context.Context, r Record) error {
	const pause = 10 * time.Millisecond
	key := r.key()
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	if !h.kept(key) {
		return nil
	}
	h.mu.Lock()
	here := h.running[key]
	h.mu.Unlock()
	if here != nil {
		here.end()
		select {
		case <-here.ended:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("the keeper of %s does not end: %w", r.Name(), ctx.Err())
		}
	}
	// One that was started a moment ago may not have written who it is.
	for r.Keeper.PID == 0 || !r.Keeper.alive() {
		if !h.kept(key) {
			return nil
		}
		if now, err := h.keeperOf(key); err != nil {
			return err
		} else {
			r.Keeper = now
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("the keeper of %s is not known: %w", r.Name(), ctx.Err())
		}
	}
	if err := r.Keeper.end(ctx, unix.SIGTERM); err != nil {
		// It has nothing that could be lost.
		killing, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
		defer cancel()
		return r.Keeper.end(killing, unix.SIGKILL)
	}
	return nil
}

// answer is what a keeper that is a process of its own tells the one who started it.
type answer struct {
	Record *Record `json:"record,omitempty"`
	Code   string  `json:"code,omitempty"` // class of the error
	Error  string  `json:"error,omitempty"`
	Next   string  `json:"next,omitempty"`
}

// Failed is an error that a keeper told of.
type Failed struct {
	*failure.Remote
	Next string // step; may be empty
}

// Unwrap returns the error that keeps the class.
func (f *Failed) Unwrap() error { return f.Remote }

// spawn starts a keeper and waits until the device can be used.
func (h *Host) spawn(ctx context.Context, key string) (r Record, err error) {
	cmd, err := h.Keep(key)
	if err != nil {
		return r, err
	}
	log, err := h.openLog(key)
	if err != nil {
		return r, err
	}
	defer func() { _ = log.Close() }() // the keeper has its own
	tell, told, err := os.Pipe()
	if err != nil {
		return r, err
	}
	defer func() { _ = tell.Close() }() // only read from
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr, cmd.ExtraFiles, cmd.Dir = log, []*os.File{told}, "/"
	err = cmd.Start()
	if err = errors.Join(err, told.Close()); err != nil {
		return r, fmt.Errorf("start a keeper: %w", err)
	}
	// Who waits for the device no more wants none.
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(cmd.Process.Pid, unix.SIGTERM) })
	line, err := bufio.NewReader(io.LimitReader(tell, maxLog)).ReadString('\n')
	ended := !stop()
	if err != nil {
		outcome := cmd.Wait()
		return r, fmt.Errorf("the keeper ended before the device was there (%v); see %s", outcome, log.Name())
	}
	var a answer
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		return r, fmt.Errorf("the keeper's answer: %w", err)
	}
	if a.Record == nil {
		_ = cmd.Wait() // it has told why
		return r, &Failed{failure.FromWire(a.Code, a.Error), a.Next}
	}
	if ended {
		// The signal came when the device was there already, and has ended the keeper.
		_ = cmd.Wait()
		return *a.Record, errors.Join(ctx.Err(), h.undo(context.WithoutCancel(ctx), *a.Record))
	}
	return *a.Record, cmd.Process.Release()
}

// Tell writes what RunKeeper says of its beginning to the one who started the keeper as a process, and closes the file.
func Tell(to *os.File, r Record, err error) error {
	a := answer{Record: &r}
	if err != nil {
		a = answer{Code: failure.Of(err).Code, Error: strings.ReplaceAll(err.Error(), "\n", "; ")}
		var with *ServerError
		if errors.As(err, &with) {
			a.Next = with.Next
		}
	}
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = to.Write(append(b, '\n'))
	return errors.Join(err, to.Close())
}
