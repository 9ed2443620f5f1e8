package fuse

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"skerry/volume/catalog"
)

// suffix ends the names of all files.
const suffix = ".raw"

// maxPending bounds the files that have no volume yet.
const maxPending = 1024

// tree is what one mount knows of the files that it shows.
type tree struct {
	volumes Volumes
	o       Options
	access  access
	log     *slog.Logger
	buffers buffers
	all     *semaphore.Weighted
	born    time.Time
	warned  atomic.Int64 // when a failed request was last logged, in nanoseconds

	mu      sync.Mutex
	files   map[uint64]*file // by Entry.ID
	pending map[string]*file // by the name of the volume to be
	handles map[*handle]struct{}
}

func newTree(v Volumes, a access, o Options) *tree {
	return &tree{
		volumes: v, o: o, access: a, log: o.Logger, all: semaphore.NewWeighted(o.MaxInFlight), born: time.Now(),
		files: map[uint64]*file{}, pending: map[string]*file{}, handles: map[*handle]struct{}{},
	}
}

// volumeName returns the name of the volume or snapshot that a file name stands for.
func volumeName(name string) (string, bool) {
	ref, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return "", false
	}
	r, err := catalog.ParseRef(ref)
	return ref, err == nil && r.String() == ref
}

// find returns the file of a name.
func (t *tree) find(ctx context.Context, name string) (*file, syscall.Errno) {
	ref, ok := volumeName(name)
	if !ok {
		return nil, syscall.ENOENT
	}
	t.mu.Lock()
	f := t.pending[ref]
	t.mu.Unlock()
	e, err := t.volumes.Lookup(ctx, ref)
	if f != nil && (err != nil || f.inUse()) {
		return f, 0
	}
	if f != nil {
		t.dropPending(f) // somebody else has made a volume of that name
	}
	if err != nil {
		n := errno(err)
		if n != syscall.ENOENT {
			t.refuse("file cannot be looked up", ref, err)
		}
		return nil, n
	}
	return t.file(e), 0
}

// file returns the file of an entry.
func (t *tree) file(e Entry) *file {
	t.mu.Lock()
	f := t.files[e.ID]
	if f == nil {
		f = t.newFile(e.Name)
		f.ino = e.ID
		t.files[e.ID] = f
	}
	t.mu.Unlock()
	f.refresh(e)
	return f
}

func (t *tree) newFile(name string) *file {
	f := &file{tree: t, turn: make(chan struct{}, 1), snapshot: strings.Contains(name, "@"), name: name}
	f.limits = limits{file: semaphore.NewWeighted(max(t.o.MaxInFlight/8, maxRequest)), all: t.all}
	f.length.Store(wholeDevice)
	return f
}

// makePending enters a file without a volume. It fails if there is one.
func (t *tree) makePending(name string) (*file, syscall.Errno) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending[name] != nil {
		return nil, syscall.EEXIST
	}
	if len(t.pending) >= maxPending {
		return nil, syscall.ENOSPC
	}
	f := t.newFile(name)
	f.ino = rand.Uint64()
	f.pending = true
	f.length.Store(0)
	f.mtime.Store(time.Now().UnixNano())
	t.pending[name] = f
	return f, 0
}

// dropPending forgets a file without a volume.
func (t *tree) dropPending(f *file) {
	name := f.label()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending[name] == f {
		delete(t.pending, name)
	}
}

// forgetGone drops what is known of files that are not there any more.
func (t *tree) forgetGone(all []Entry) {
	there := make(map[uint64]bool, len(all))
	for _, e := range all {
		there[e.ID] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, f := range t.files {
		if !there[id] && !f.inUse() {
			delete(t.files, id)
		}
	}
}

// refuse logs why a program gets an error that does not say it.
func (t *tree) refuse(what, name string, err error) {
	t.log.Warn(what, "volume", name, "err", err)
}

// warnInterval is the time between two messages about failed requests: an outage fails many.
const warnInterval = time.Second

// failed logs a request that failed.
func (t *tree) failed(what, name string, err error) {
	now := time.Now().UnixNano()
	last := t.warned.Load()
	if now-last < int64(warnInterval) || !t.warned.CompareAndSwap(last, now) {
		t.log.Debug(what, "volume", name, "err", err)
		return
	}
	t.refuse(what, name, err)
}
