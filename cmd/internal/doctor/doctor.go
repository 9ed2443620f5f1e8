// Package doctor finds out what a directory promises to a pool: each check does a thing that the local backend builds on, in a
// directory of its own below the one that is examined, and that goes in the end.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Status says how a check ended.
type Status string

// How a check ends.
const (
	OK   Status = "ok"
	No   Status = "no"   // an ability is missing that nothing depends on
	Warn Status = "warn" // a pool works, with a disadvantage that Text names
	Fail Status = "fail" // a pool is not safe here, or does not work
)

// Check is what one check found.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Text   string `json:"text"` // what was seen, and what follows of it
}

// SyncTime is how long an append of 4 KiB and fdatasync took.
type SyncTime struct {
	Count  int   `json:"count"`
	Median int64 `json:"median_ns"`
	Worst  int64 `json:"worst_ns"`
}

// Report is what a directory promises.
type Report struct {
	Directory  string   `json:"directory"` // absolute
	FileSystem string   `json:"file_system"`
	Device     string   `json:"device,omitempty"`
	Options    string   `json:"mount_options,omitempty"`
	Free       int64    `json:"free"`     // bytes that the user may use
	MaxFile    int64    `json:"max_file"` // bytes, the largest power of two that a file was extended to
	Sync       SyncTime `json:"sync"`
	Fit        bool     `json:"fit"` // no check failed
	Checks     []Check  `json:"checks"`
}

// Options are what an examination needs.
type Options struct {
	// Locked asks another process whether a file is locked (flock), as [Locked] tells it.
	Locked func(ctx context.Context, path string) (bool, error)
	Syncs  int // how many syncs are timed; 0: 64
	// MountInfo is the file that says what is mounted; empty: /proc/self/mountinfo.
	MountInfo string
}

// examination is one run.
type examination struct {
	o      Options
	dir    string // of its own
	report Report
}

// probe is one check. Its error says what does not work, as far as the status asks for a reason.
type probe struct {
	name   string
	run    func(context.Context) (string, error)
	broken Status // if it ends with an error
	means  string // what follows then
}

// Examine examines a directory, which must exist. The error is for what kept it from being examined. It leaves nothing behind, also
// when ctx ends.
func Examine(ctx context.Context, dir string, o Options) (r Report, err error) {
	st, err := os.Stat(dir)
	if err != nil {
		return r, err
	}
	if !st.IsDir() {
		return r, fmt.Errorf("%s: %w", dir, syscall.ENOTDIR)
	}
	if o.Syncs == 0 {
		o.Syncs = 64
	}
	e := &examination{o: o}
	if err := e.fileSystem(dir); err != nil {
		return r, err
	}
	if e.dir, err = os.MkdirTemp(dir, ".skerry-doctor-"); err != nil {
		e.add("write", Fail, fmt.Sprintf("nothing can be made here: %v", err))
		return e.done(), nil
	}
	defer func() { err = errors.Join(err, os.RemoveAll(e.dir)) }()
	for _, p := range e.probes() {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		text, err := p.run(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return r, ctx.Err()
		case err != nil:
			e.add(p.name, p.broken, fmt.Sprintf("%v: %s", err, p.means))
		default:
			e.add(p.name, OK, text)
		}
	}
	e.space()
	e.judgeSync()
	return e.done(), nil
}

func (e *examination) probes() []probe {
	return []probe{
		{"exclusive create", e.exclusive, Fail, "two processes could take one volume"},
		{"link", e.link, Fail, "records cannot be made atomically"},
		{"rename", e.rename, Fail, "records cannot be replaced atomically"},
		{"names", e.names, Fail, "names of volumes differ in case and have up to 127 characters"},
		{"sync", e.sync, Fail, "what is flushed would not be durable"},
		{"sync of directories", e.syncDir, Fail, "new objects would not be durable"},
		{"locks", e.locks, Fail, "a dead holder cannot be told from a living one"},
		{"file size", e.maxFile, Fail, "journals and chunks need files of 64 MiB"},
		{"sparse files", e.sparse, Warn, "holes take space"},
		{"punch hole", e.punch, Warn, "discarded data takes space until its chunk goes"},
		{"preallocation", e.preallocate, Warn, "a full disk shows at a flush, not before"},
		{"reflink", e.reflink, No, "an image is copied where it is imported"},
		{"cached reads", e.nowait, No, "all reads take the way over a worker"},
		{"notices of changes", e.notices, No, "changes are seen by looking again"},
	}
}

func (e *examination) add(name string, s Status, text string) {
	e.report.Checks = append(e.report.Checks, Check{name, s, text})
}

func (e *examination) done() Report {
	e.report.Fit = true
	for _, c := range e.report.Checks {
		e.report.Fit = e.report.Fit && c.Status != Fail
	}
	return e.report
}

// Times beyond which a sync is told to be slow, and below which no storage is durable.
const (
	slowSync   = 20 * time.Millisecond
	oddlyQuick = 2 * time.Microsecond
)

// judgeSync says what the time of a sync means.
func (e *examination) judgeSync() {
	median := time.Duration(e.report.Sync.Median)
	switch {
	case e.report.Sync.Count == 0:
	case median > slowSync:
		e.add("time of a sync", Warn, fmt.Sprintf("%v: every flush of a guest takes at least as long", median))
	case median < oddlyQuick:
		e.add("time of a sync", Warn, fmt.Sprintf("%v: no storage is as quick as that; what is flushed may not survive a loss of power", median))
	default:
		e.add("time of a sync", OK, fmt.Sprintf("%v, at worst %v", median, time.Duration(e.report.Sync.Worst)))
	}
}
