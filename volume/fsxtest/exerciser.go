package fsxtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
)

// maxSnapshots bounds the snapshots at a time.
const maxSnapshots = 4

// Options say how a disk is exercised. Those that say "every" are for about one operation in so many; 0: none.
type Options struct {
	Seed    uint64
	Stream  uint64 // exercisers with one seed and different streams do different things
	Content []byte // what the disk has at first; nil: zeros
	Chunk   int64  // bytes: ranges cluster around multiples of it
	Unit    int64  // offsets and lengths are multiples of it, as the size of the disk is; 0: 1
	Longest int64  // longest range, in bytes; 0: twice Chunk
	Beside  bool   // make operations at once that do not overlap

	// Of a Volume:
	MaxSize  int64 // bytes
	Resize   int   // every
	Snapshot int   // every, to take one; and to read and to remove one
	Rollback int   // every

	Actions []Action
}

// Action is something that must not change what a disk has. All is read after it.
type Action struct {
	Name  string
	Every int
	Do    func() error
}

// Exerciser exercises a disk. It is used by one goroutine.
type Exerciser struct {
	disk      Disk
	volume    Volume // nil: the disk is none
	options   Options
	rand      *rand.Rand
	number    int // of the next operation
	initial   []byte
	model     []byte
	snapshots map[string][]byte
	names     []string // of the snapshots, oldest first
	recent    [][2]int64
	log       []op
	open      []op // without an answer
	buf       []byte
}

// New returns an exerciser of a disk that nobody else writes.
func New(d Disk, o Options) (*Exerciser, error) {
	if o.Longest == 0 {
		o.Longest = 2 * o.Chunk
	}
	size, err := d.Size()
	if err != nil {
		return nil, err
	}
	if o.Content == nil {
		o.Content = make([]byte, size)
	}
	if size != int64(len(o.Content)) {
		return nil, fmt.Errorf("the disk has %d bytes, want %d", size, len(o.Content))
	}
	v, _ := d.(Volume)
	return &Exerciser{
		disk: d, volume: v, options: o, rand: rand.New(rand.NewPCG(o.Seed, o.Stream)), initial: bytes.Clone(o.Content), model: bytes.Clone(o.Content),
		snapshots: map[string][]byte{},
	}, nil
}

// Run makes so many operations, or a few more. The error has a *[Failure] for each that failed.
func (e *Exerciser) Run(operations int) error {
	for end := e.number + operations; e.number < end; {
		if err := e.do(e.next()); err != nil {
			return err
		}
	}
	return nil
}

// Content returns what the disk must have. It is the exerciser's.
func (e *Exerciser) Content() []byte { return e.model }

// Verify compares all there is: the disk and its snapshots. The error is a *[Failure].
func (e *Exerciser) Verify() error {
	o := op{number: e.number, kind: opVerify}
	if err := e.whole(o); err != nil {
		return err
	}
	for _, name := range e.names {
		if err := e.readsSnapshot(op{number: e.number, kind: opReadSnapshot, name: name}); err != nil {
			return err
		}
	}
	return nil
}

// Settle takes over what became of the operations for which Run failed since the disk gave no answer: of each sector what was there before, or what
// was to be. The error is a *[Failure].
func (e *Exerciser) Settle() error {
	open := e.open
	e.open = nil
	for _, o := range open {
		if err := e.settle(o); err != nil {
			return err
		}
	}
	return nil
}

func (e *Exerciser) settle(o op) error {
	now, meant := make([]byte, o.n), make([]byte, o.n)
	if err := e.disk.ReadAt(now, o.off); err != nil {
		return e.failed(o, err)
	}
	if o.kind == opWrite {
		fill(meant, o.number, o.off)
	}
	was := e.model[o.off : o.off+o.n]
	for from := int64(0); from < o.n; {
		to := min(o.n, (o.off+from)/sector*sector+sector-o.off)
		if got := now[from:to]; !bytes.Equal(got, was[from:to]) && !bytes.Equal(got, meant[from:to]) {
			return e.differs(o, o.off+from, got, was[from:to])
		}
		from = to
	}
	copy(was, now)
	return nil
}

// do makes operations, all at once if there are several.
func (e *Exerciser) do(ops []op) error {
	e.log = append(e.log, ops...)
	e.number += len(ops)
	if len(ops) == 1 {
		return e.single(ops[0])
	}
	total := int64(0)
	for _, o := range ops {
		total += o.n
	}
	buf := e.buffer(total)
	errs := make([]error, len(ops))
	var all sync.WaitGroup
	for i, o := range ops {
		p := buf[:o.n:o.n]
		buf = buf[o.n:]
		if o.kind == opWrite {
			fill(p, o.number, o.off)
		}
		all.Go(func() {
			if err := e.request(o, p); err != nil {
				errs[i] = e.failed(o, err)
			} else if want := e.model[o.off : o.off+o.n]; o.kind == opRead && !bytes.Equal(p, want) {
				errs[i] = e.differs(o, o.off, p, want)
			}
		})
	}
	all.Wait()
	for i, o := range ops {
		if errs[i] == nil {
			e.apply(o)
		} else {
			e.leave(o)
		}
	}
	return errors.Join(errs...)
}

// single makes an operation and applies it to the model.
func (e *Exerciser) single(o op) error {
	var err error
	switch o.kind {
	case opRead, opWrite, opZero, opPunch:
		p := e.buffer(o.n)
		if o.kind == opWrite {
			fill(p, o.number, o.off)
		}
		if err = e.request(o, p); err == nil && o.kind == opRead && !bytes.Equal(p, e.model[o.off:o.off+o.n]) {
			return e.differs(o, o.off, p, e.model[o.off:o.off+o.n])
		}
	case opSync:
		err = e.disk.Sync()
	case opExtents:
		return e.looksAt(o)
	case opVerify:
		return e.whole(o)
	case opAction:
		i := slices.IndexFunc(e.options.Actions, func(a Action) bool { return a.Name == o.name })
		if err = e.options.Actions[i].Do(); err == nil {
			return e.whole(o)
		}
	case opResize:
		err = e.volume.Resize(o.n)
	case opSnapshot:
		err = e.volume.Snapshot(o.name)
	case opReadSnapshot:
		return e.readsSnapshot(o)
	case opRemoveSnapshot:
		err = e.volume.RemoveSnapshot(o.name)
	case opRollback:
		err = e.volume.Rollback(o.name)
	}
	if err != nil {
		e.leave(o)
		return e.failed(o, err)
	}
	e.apply(o)
	if o.kind == opRollback || o.kind == opResize && e.one(4) {
		return e.whole(o)
	}
	return nil
}

// leave leaves an operation that failed to Settle.
func (e *Exerciser) leave(o op) {
	if o.kind == opWrite || o.kind == opZero || o.kind == opPunch {
		e.open = append(e.open, o)
	}
}

// request makes an operation on a range; p is what is written, or gets what is read.
func (e *Exerciser) request(o op, p []byte) error {
	switch o.kind {
	case opRead:
		junk(p)
		return e.disk.ReadAt(p, o.off)
	case opWrite:
		return e.disk.WriteAt(p, o.off, o.durable)
	case opZero:
		return e.disk.Zero(o.off, o.n)
	}
	return e.disk.Punch(o.off, o.n)
}

// apply makes the model what the disk must be after an operation.
func (e *Exerciser) apply(o op) {
	switch o.kind {
	case opWrite:
		fill(e.model[o.off:o.off+o.n], o.number, o.off)
	case opZero, opPunch:
		clear(e.model[o.off : o.off+o.n])
	case opResize:
		kept := min(o.n, int64(len(e.model)))
		e.model = append(e.model[:kept], make([]byte, o.n-kept)...)
	case opSnapshot:
		e.snapshots[o.name] = bytes.Clone(e.model)
		e.names = append(e.names, o.name)
	case opRemoveSnapshot:
		delete(e.snapshots, o.name)
		e.names = slices.DeleteFunc(e.names, func(n string) bool { return n == o.name })
	case opRollback:
		e.model = bytes.Clone(e.snapshots[o.name])
	}
}

// whole compares the size and all content of the disk.
func (e *Exerciser) whole(o op) error {
	size, err := e.disk.Size()
	if err != nil {
		return e.failed(o, err)
	}
	if size != int64(len(e.model)) {
		return e.failed(o, fmt.Errorf("the disk has %d bytes, want %d", size, len(e.model)))
	}
	p := e.buffer(min(size, 1<<20))
	for off := int64(0); off < size; off += int64(len(p)) {
		p = p[:min(int64(len(p)), size-off)]
		if err := e.disk.ReadAt(p, off); err != nil {
			return e.failed(o, err)
		}
		if want := e.model[off : off+int64(len(p))]; !bytes.Equal(p, want) {
			return e.differs(o, off, p, want)
		}
	}
	return nil
}

// readsSnapshot compares the content of a snapshot.
func (e *Exerciser) readsSnapshot(o op) error {
	got, err := e.volume.ReadSnapshot(o.name)
	if err != nil {
		return e.failed(o, err)
	}
	if want := e.snapshots[o.name]; !bytes.Equal(got, want) {
		return e.differs(o, 0, got, want)
	}
	return nil
}

// looksAt compares what the disk says that a range consists of.
func (e *Exerciser) looksAt(o op) error {
	list, err := e.disk.Extents(o.off, o.n)
	if err != nil {
		return e.failed(o, err)
	}
	at := o.off
	for _, x := range list {
		if x.Offset != at || x.Length <= 0 {
			return e.failed(o, fmt.Errorf("an extent of %d bytes begins at %d, want it at %d: %+v", x.Length, x.Offset, at, list))
		}
		at += x.Length
		if end := min(at, int64(len(e.model))); x.Zero && x.Offset < end {
			if want := e.model[x.Offset:end]; len(bytes.Trim(want, "\x00")) > 0 {
				return e.differs(o, x.Offset, make([]byte, len(want)), want)
			}
		}
	}
	if at < o.off+o.n {
		return e.failed(o, fmt.Errorf("the extents end at %d, want at least %d: %+v", at, o.off+o.n, list))
	}
	return nil
}

// freeName returns a name that no snapshot has now. One had it before, as likely as not.
func (e *Exerciser) freeName() string {
	for {
		name := fmt.Sprintf("s%d", 1+e.rand.IntN(2*maxSnapshots))
		if e.snapshots[name] == nil {
			return name
		}
	}
}

// buffer returns n bytes, which hold until the next call.
func (e *Exerciser) buffer(n int64) []byte {
	if int64(len(e.buf)) < n {
		e.buf = make([]byte, n)
	}
	return e.buf[:n]
}
