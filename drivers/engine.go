package drivers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options say how an [Engine] works. The zero value of each field means its default.
type Options struct {
	// Workers bounds the backend calls at once in each lane: lease 4, guest 64, meta 16,
	// background 8. Properties.MaxWorkers caps each. Guest syncs, and guest I/O on objects that are not open
	// yet, have as many more each, at most meta's for the latter.
	Workers [LaneCount]int
	// MaxOps bounds the operations that wait in one lane: 65,536.
	MaxOps int
	// MaxBytes bounds the payload of reads and writes waiting or running in one lane: 256 MiB.
	// A larger operation is done alone.
	MaxBytes int64
	// MaxHandles bounds the open objects: 4,096, or three quarters of RLIMIT_NOFILE if that is less.
	MaxHandles int
	// MaxDirty bounds the open objects with unsynced changes: 1,024, or half of MaxHandles if that is less.
	MaxDirty int
	// Deadline is how long an operation may wait before it is handed to the backend: 30 s.
	Deadline time.Duration
	// SlowLog is how long an operation may take before it is logged; 0 logs none.
	SlowLog time.Duration
	// Logger receives slow operations and failed background syncs; nil discards them.
	Logger *slog.Logger
}

// Engine is the asynchronous driver over a [Backend]. Its methods may be called concurrently.
// See the package comment for what it promises.
type Engine struct {
	backend Backend
	props   Properties
	o       Options
	ctx     context.Context // of all backend calls

	lanes   [allLanes]*lane
	handles handles
	dirty   dirtySet
	failed  failedSyncs
	calls   sync.Pool // *call
	zeros   []byte    // for punches that must be written

	poke    chan struct{}
	swept   chan struct{}
	closing atomic.Bool
	tasks   sync.WaitGroup // workers, cleaners, late closes
	counts  [lanes]laneCounts
}

// Lanes of the engine's own, for parts of the guest lane's work.
const (
	laneOpen = lanes + iota // I/O on objects that are not open yet, so that slow opens hold up no I/O on open ones
	laneSync                // syncs, so that slow ones hold up no reads and writes
	allLanes
)

// NewEngine returns an engine over b. The engine does not own b: close b after the engine.
func NewEngine(b Backend, o Options) *Engine {
	e := &Engine{
		backend: b,
		props:   b.Properties(),
		ctx:     context.Background(),
		poke:    make(chan struct{}, 1),
		swept:   make(chan struct{}),
		zeros:   make([]byte, 64<<10),
	}
	e.o = o.withDefaults(e.props)
	e.handles.init(e)
	e.dirty.init(e)
	for i := range e.lanes {
		workers := e.o.Workers[LaneGuest]
		switch Lane(i) {
		case laneSync:
		case laneOpen:
			workers = min(workers, e.o.Workers[LaneMeta])
		default:
			workers = e.o.Workers[i]
		}
		e.lanes[i] = newLane(e, workers)
	}
	go e.sweep()
	return e
}

func (o Options) withDefaults(p Properties) Options {
	for i, n := range [LaneCount]int{LaneLease: 4, LaneGuest: 64, LaneMeta: 16, LaneBackground: 8} {
		o.Workers[i] = orDefault(o.Workers[i], n)
		if p.MaxWorkers > 0 {
			o.Workers[i] = min(o.Workers[i], p.MaxWorkers)
		}
	}
	o.MaxOps = orDefault(o.MaxOps, 65536)
	o.MaxBytes = orDefault(o.MaxBytes, 256<<20)
	o.MaxHandles = orDefault(o.MaxHandles, 4096)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur < 1<<40 {
		o.MaxHandles = max(1, min(o.MaxHandles, int(files.Cur)*3/4))
	}
	o.MaxDirty = max(1, min(orDefault(o.MaxDirty, 1024), o.MaxHandles/2))
	o.Deadline = orDefault(o.Deadline, 30*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func orDefault[N int | int64 | time.Duration](n, d N) N {
	if n <= 0 {
		return d
	}
	return n
}

// Properties returns the facts about the backend.
func (e *Engine) Properties() Properties { return e.props }

// Submit hands op to the engine. It returns true if the operation has ended already: op.Err says
// how, and op.Done is not called. Else op belongs to the engine until op.Done.Complete is called.
//
// Submit blocks while the lane has no room, at longest until op's deadline, unless op.NoWait is set.
// The payload belongs to the backend until the end, whatever the deadline: it fails
// only what was not yet handed to the backend.
func (e *Engine) Submit(op *Op) (inline bool) { return e.submit(op, nil, false) }

// submit is Submit until cancel is closed. A caller that waits for the end in any case, as attend says, does the operation itself
// if a worker would begin with it at once. It is completed all the same.
func (e *Engine) submit(op *Op, cancel <-chan struct{}, attend bool) bool {
	op.Err = nil
	if op.Lane >= lanes || op.Kind >= kinds {
		op.Err = fmt.Errorf("submit: lane %d, kind %d: %w", op.Lane, op.Kind, ErrInvalid)
		return true
	}
	l := e.lanes[op.Lane]
	if op.Kind <= OpSync {
		done, open := e.tryInline(op)
		switch {
		case done:
			return true
		case op.Lane != LaneGuest:
		case op.Kind == OpSync:
			l = e.lanes[laneSync]
		case !open:
			l = e.lanes[laneOpen]
		}
	}
	op.at = time.Now()
	op.due = op.Deadline
	if op.due.IsZero() {
		op.due = op.at.Add(e.o.Deadline)
	}
	if attend && l.begin(op) {
		n := payload(op) // op is its caller's as soon as it has been completed
		e.run(op)
		l.end(n)
		return false
	}
	if err := l.enqueue(op, cancel); err != nil {
		op.Err = opError(op, err)
		return true
	}
	return false
}

// tryInline does a read or a write if that will not block, and reports whether the object is open.
func (e *Engine) tryInline(op *Op) (done, open bool) {
	if op.Kind > OpWrite || e.closing.Load() {
		return false, e.handles.isOpen(op.Name)
	}
	write := op.Kind == OpWrite
	h, open := e.handles.peek(op.Name, write)
	if h == nil {
		return false, open
	}
	if write {
		if err := guardError(op); err != nil {
			done, op.Err = true, opError(op, err)
		} else {
			done, op.Err = h.writer.TryWriteAt(op.Data, op.Off)
		}
	} else {
		done, op.Err = h.reader.TryReadAt(op.Data, op.Off)
	}
	if closeIt := e.handles.put(h, write); closeIt {
		// Closing the last handle of a removed object can take long.
		e.tasks.Go(func() { e.handles.close(h) })
	}
	if done {
		e.counts[op.Lane].inline.Add(1)
		if op.Err != nil {
			e.counts[op.Lane].errors.Add(1)
		}
	}
	return done, true
}

// run does a queued operation on a worker and completes it.
func (e *Engine) run(op *Op) {
	op.Err = e.do(op)
	e.finish(op)
}

func (e *Engine) finish(op *Op) {
	took := time.Since(op.at)
	e.counts[op.Lane].add(took, op.Err)
	if e.o.SlowLog > 0 && took >= e.o.SlowLog {
		e.o.Logger.Warn("slow operation", "driver", e.props.Kind, "lane", op.Lane.String(), "kind", op.Kind.String(),
			"object", string(op.Name), "took", took, "err", op.Err)
	}
	if op.Done != nil {
		op.Done.Complete(op)
	}
}

// Close refuses new operations with [ErrClosed], waits for all that were submitted, syncs what is
// dirty and closes all handles. It returns the errors of these syncs and closes. It waits for as
// long as the backend takes. The backend stays open.
func (e *Engine) Close() error {
	if e.closing.Swap(true) {
		return fmt.Errorf("close engine: %w", ErrClosed)
	}
	for _, l := range e.lanes {
		l.close()
	}
	for _, l := range e.lanes {
		l.drain()
	}
	err := errors.Join(e.dirty.syncAll(), e.handles.closeAll())
	e.tasks.Wait()
	close(e.poke)
	<-e.swept
	return err
}

func guardError(op *Op) error {
	if op.Guard == nil {
		return nil
	}
	return op.Guard.Err()
}

// opError adds what was done to an error of the engine's own.
func opError(op *Op, err error) error { return fmt.Errorf("%s %s: %w", op.Kind, op.Name, err) }
