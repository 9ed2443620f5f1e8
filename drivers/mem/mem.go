package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"skerry/drivers"
)

// Options say how a [Backend] behaves.
type Options struct {
	DurableWrites bool // writes are durable when they return; names still need SyncGroup
	NoInline      bool // objects never do I/O on the caller's goroutine
	CloneFiles    bool // files can be cloned, by copying them
}

// Backend is a [drivers.Backend] in memory.
type Backend struct {
	o     Options
	space atomic.Int64 // bytes; 0: no bound
	used  atomic.Int64 // pages of all objects that have a name
	seq   atomic.Uint64

	world sync.RWMutex
	mu    sync.RWMutex
	names map[string]*object
	// durable is names as after a crash that keeps no naming; the rest is in namings, by group.
	durable map[string]*object
	namings map[string][]naming
}

// object is what a name stands for.
type object struct {
	mu      sync.RWMutex
	content content
	synced  *content // the durable content if it differs
	log     []change // from synced to content
	unnamed bool     // counts no space
	locked  bool     // guarded by Backend.mu instead
}

var (
	_ drivers.Backend    = (*Backend)(nil)
	_ drivers.Locker     = (*Backend)(nil)
	_ drivers.FileCloner = (*Backend)(nil)
)

// New returns an empty backend.
func New(o Options) *Backend {
	return &Backend{o: o, names: map[string]*object{}, durable: map[string]*object{}, namings: map[string][]naming{}}
}

func (b *Backend) emptyLocked() *Backend {
	n := New(b.o)
	n.space.Store(b.space.Load())
	return n
}

// putDurable enters an object into a backend that nobody uses yet.
func (b *Backend) putDurable(name string, o *object) {
	b.names[name], b.durable[name] = o, o
	b.used.Add(o.content.pages)
}

// SetSpace bounds the space to n bytes, in pages of 4 KiB; 0 ends the bound.
func (b *Backend) SetSpace(n int64) { b.space.Store(n) }

// Used returns the bytes in use, in pages of 4 KiB.
func (b *Backend) Used() int64 { return b.used.Load() * pageSize }

// take takes pages of the space.
func (b *Backend) take(pages int64) error {
	if n := b.used.Add(pages); pages > 0 {
		if space := b.space.Load(); space > 0 && n*pageSize > space {
			b.used.Add(-pages)
			return drivers.ErrNoSpace
		}
	}
	return nil
}

// Properties implements [drivers.Backend].
func (b *Backend) Properties() drivers.Properties {
	return drivers.Properties{Kind: "mem", DurableWrites: b.o.DurableWrites, AtomicCondition: true}
}

// enter checks a name and enters the world; leave it by b.world.RUnlock.
func (b *Backend) enter(what, name string) error {
	if !drivers.ValidName(name) {
		return fmt.Errorf("%s %q: %w", what, name, drivers.ErrInvalid)
	}
	b.world.RLock()
	return nil
}

func (b *Backend) enterGroup(what, group string) error {
	if group == "" {
		b.world.RLock()
		return nil
	}
	return b.enter(what, group)
}

// Open implements [drivers.Backend].
func (b *Backend) Open(_ context.Context, name string, mode drivers.Mode) (drivers.Object, error) {
	if mode > drivers.Create {
		return nil, fmt.Errorf("open %s: mode %d: %w", name, mode, drivers.ErrInvalid)
	}
	if err := b.enter("open", name); err != nil {
		return nil, err
	}
	defer b.world.RUnlock()
	if mode != drivers.Create {
		b.mu.RLock()
		o := b.names[name]
		b.mu.RUnlock()
		if o == nil {
			return nil, fmt.Errorf("open %s: %w", name, drivers.ErrNotFound)
		}
		return b.file(name, o, mode), nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o, err := b.createLocked(name)
	if err != nil {
		return nil, err
	}
	return b.file(name, o, mode), nil
}

func (b *Backend) createLocked(name string) (*object, error) {
	if b.names[name] != nil {
		return nil, fmt.Errorf("create %s: %w", name, drivers.ErrExists)
	}
	o := &object{content: newContent()}
	b.names[name] = o
	b.logLocked(naming{kind: drivers.OpCreate, name: name, obj: o})
	return o, nil
}

func (b *Backend) logLocked(n naming) {
	n.seq = b.seq.Add(1)
	g := drivers.Group(n.name)
	b.namings[g] = append(b.namings[g], n)
}

// Stat implements [drivers.Backend].
func (b *Backend) Stat(_ context.Context, name string) (drivers.Info, error) {
	if err := b.enter("stat", name); err != nil {
		return drivers.Info{}, err
	}
	defer b.world.RUnlock()
	b.mu.RLock()
	o := b.names[name]
	b.mu.RUnlock()
	if o == nil {
		return drivers.Info{}, fmt.Errorf("stat %s: %w", name, drivers.ErrNotFound)
	}
	return o.info(name), nil
}

func (o *object) info(name string) drivers.Info {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return drivers.Info{Name: name, Size: o.content.size, Allocated: o.content.pages * pageSize}
}

// Unlink implements [drivers.Backend].
func (b *Backend) Unlink(_ context.Context, name string) error {
	if err := b.enter("unlink", name); err != nil {
		return err
	}
	defer b.world.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.names[name]
	if o == nil {
		return fmt.Errorf("unlink %s: %w", name, drivers.ErrNotFound)
	}
	delete(b.names, name)
	b.freeLocked(o)
	b.logLocked(naming{kind: drivers.OpUnlink, name: name})
	return nil
}

// freeLocked gives back the space of an object that has no name any more.
func (b *Backend) freeLocked(o *object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unnamed = true
	b.used.Add(-o.content.pages)
}

// List implements [drivers.Backend].
func (b *Backend) List(_ context.Context, group string, fn func(drivers.Info) error) error {
	if err := b.enterGroup("list", group); err != nil {
		return err
	}
	var infos []drivers.Info
	prefix := group + "/"
	b.mu.RLock()
	for name, o := range b.names {
		if group == "" || strings.HasPrefix(name, prefix) {
			infos = append(infos, o.info(name))
		}
	}
	b.mu.RUnlock()
	b.world.RUnlock()
	sortInfos(infos)
	for _, i := range infos {
		if err := fn(i); err != nil {
			return err
		}
	}
	return nil
}

// Load implements [drivers.Backend].
func (b *Backend) Load(_ context.Context, name string) ([]byte, error) {
	if err := b.enter("load", name); err != nil {
		return nil, err
	}
	defer b.world.RUnlock()
	b.mu.RLock()
	o := b.names[name]
	b.mu.RUnlock()
	if o == nil {
		return nil, fmt.Errorf("load %s: %w", name, drivers.ErrNotFound)
	}
	data, err := o.load()
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	return data, nil
}

func (o *object) load() ([]byte, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.content.size > drivers.MaxSmall {
		return nil, fmt.Errorf("%d bytes: %w", o.content.size, drivers.ErrInvalid)
	}
	p := make([]byte, o.content.size)
	o.content.read(p, 0)
	return p, nil
}

// Replace implements [drivers.Backend].
func (b *Backend) Replace(_ context.Context, name string, data []byte, cond drivers.Condition) error {
	if err := drivers.CheckReplace(name, data, cond); err != nil {
		return err
	}
	b.world.RLock()
	defer b.world.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.names[name]
	if err := check(old, cond); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	o := &object{content: newContent()}
	if err := b.take((int64(len(data)) + pageSize - 1) / pageSize); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	o.content.write(data, 0)
	if old != nil {
		b.freeLocked(old)
	}
	b.names[name], b.durable[name] = o, o
	b.settleLocked(drivers.Group(name), func(n naming) bool { return n.name == name })
	return nil
}

func check(old *object, cond drivers.Condition) error {
	switch {
	case cond.Absent && old != nil:
		return drivers.ErrExists
	case len(cond.Prefix) == 0:
		return nil
	case old == nil:
		return drivers.ErrNotFound
	}
	old.mu.RLock()
	defer old.mu.RUnlock()
	p := make([]byte, len(cond.Prefix))
	old.content.read(p, 0)
	if old.content.size < int64(len(p)) || !bytes.Equal(p, cond.Prefix) {
		return drivers.ErrConflict
	}
	return nil
}

// settleLocked forgets the unsynced namings of a group for which done is true.
func (b *Backend) settleLocked(group string, done func(naming) bool) {
	var rest []naming
	for _, n := range b.namings[group] {
		if !done(n) {
			rest = append(rest, n)
		}
	}
	if rest == nil {
		delete(b.namings, group)
	} else {
		b.namings[group] = rest
	}
}

// SyncGroup implements [drivers.Backend].
func (b *Backend) SyncGroup(_ context.Context, group string) error {
	if err := b.enterGroup("sync group", group); err != nil {
		return err
	}
	defer b.world.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.namings[group] {
		if n.kind == drivers.OpCreate {
			b.durable[n.name] = n.obj
		} else {
			delete(b.durable, n.name)
		}
	}
	delete(b.namings, group)
	return nil
}

// Lock implements [drivers.Locker].
func (b *Backend) Lock(_ context.Context, name string) (io.Closer, error) {
	if err := b.enter("lock", name); err != nil {
		return nil, err
	}
	defer b.world.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.names[name]
	if o == nil {
		var err error
		if o, err = b.createLocked(name); err != nil {
			return nil, err
		}
	}
	if o.locked {
		return nil, fmt.Errorf("lock %s: %w", name, drivers.ErrLocked)
	}
	o.locked = true
	return &lock{b: b, o: o, name: name}, nil
}

type lock struct {
	b    *Backend
	o    *object
	name string
	free bool // guarded by Backend.mu
}

// Close ends the lock.
func (l *lock) Close() error {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	if l.free {
		return fmt.Errorf("unlock %s: %w", l.name, drivers.ErrClosed)
	}
	l.free, l.o.locked = true, false
	return nil
}

// Close implements [drivers.Backend]. The storage stays, for other users of it.
func (b *Backend) Close() error { return nil }
