// Package drivertest is the conformance suite of backends: each sentence of the contract in package drivers is
// a test, and every backend and every wrapper passes all of them.
package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"skerry/drivers"
)

// Options say what of the contract a backend leaves out. All else is demanded.
type Options struct {
	// Reopen returns another backend over the same storage, as after a restart. The first one is not used
	// any more; make's cleanup still closes it.
	Reopen func(t *testing.T, b drivers.Backend) drivers.Backend

	// CloneDir returns a directory whose files the backend can clone; nil: it is no FileCloner.
	CloneDir func(t *testing.T) string

	NoPunch    bool // objects are no Punchers
	NoAllocate bool // objects are no Allocators
	NoLock     bool // the backend is no Locker
	NoFree     bool // Info.Allocated does not show that a punch gives space back
	NoSparse   bool // offsets beyond some GiB do not work
}

// Make returns a new, empty backend and closes it by t.Cleanup.
type Make func(t *testing.T) drivers.Backend

// Run tests the backends that newBackend returns. The scenarios that a test covers are part of its name.
func Run(t *testing.T, newBackend Make, o Options) {
	tests := map[string]func(*fixture){
		"R01MissingObject":           missing,
		"R01OpenIsIdempotent":        openMany,
		"R01SecondCloseFails":        closeTwice,
		"R02InfoIsRightConcurrent":   infoConcurrent,
		"R03UnalignedRoundTrip":      unaligned,
		"R16Copy":                    copyObject,
		"R16Delete":                  deleteObject,
		"R16Sizes":                   sizes,
		"CreateIsExclusive":          createRace,
		"InvalidNames":               invalidNames,
		"LongestName":                longestName,
		"InvalidRanges":              invalidRanges,
		"InvalidMode":                invalidMode,
		"NothingIsDoneWithNoBytes":   noBytes,
		"ReadsPastEndAreZero":        pastEnd,
		"HolesAreZero":               holes,
		"WritesAreWhole":             overwrite,
		"ReadOnlyRefusesChanges":     readOnly,
		"DisjointWritesConcurrent":   disjoint,
		"RandomIO":                   randomIO,
		"SyncWhileWriting":           syncWhileWriting,
		"TryIsTheSame":               try,
		"DropCacheKeepsContent":      dropCache,
		"UnlinkedStaysUsable":        unlinkOpen,
		"UnlinkRace":                 unlinkRace,
		"ListGroups":                 listGroups,
		"ListStops":                  listStops,
		"ListWhileChanging":          listWhileChanging,
		"SyncGroupOfNothing":         syncGroup,
		"ReplaceAndLoad":             replaceLoad,
		"ReplaceIsAtomic":            replaceAtomic,
		"ReplaceAbsentIsExclusive":   replaceAbsent,
		"ReplacePrefix":              replacePrefix,
		"ReplaceInvalid":             replaceInvalid,
		"ReplaceKeepsOpenObjects":    replaceOpen,
		"PropertiesNeverChange":      properties,
		"ManyObjects":                manyObjects,
		"NamesDoNotMix":              namesApart,
		"ReplaceLeavesNothingElse":   replaceClean,
		"LoadOfLargeObjectIsRefused": loadLarge,
	}
	optional := []struct {
		on    bool
		tests map[string]func(*fixture)
	}{
		{o.Reopen != nil, map[string]func(*fixture){"R16PersistsAcrossRestart": persists}},
		{!o.NoPunch, map[string]func(*fixture){"PunchHole": punch, "PunchPastEnd": punchPastEnd}},
		{!o.NoPunch && !o.NoFree, map[string]func(*fixture){"PunchFreesSpace": punchFrees}},
		{!o.NoAllocate, map[string]func(*fixture){"Allocate": allocate}},
		{!o.NoSparse, map[string]func(*fixture){"FarOffsets": far}},
		{!o.NoLock, map[string]func(*fixture){
			"R17LockIsExclusive":  lockExclusive,
			"LockRace":            lockRace,
			"LockOfRemovedName":   lockRemoved,
			"LockInvalidNames":    lockInvalid,
			"LockKeepsTheContent": lockContent,
		}},
		{o.CloneDir != nil, map[string]func(*fixture){"CloneFile": cloneFile}},
		{!o.NoLock && o.Reopen != nil, map[string]func(*fixture){"LockAfterRestart": lockReopen}},
	}
	for _, s := range optional {
		if s.on {
			maps.Copy(tests, s.tests)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			tests[name](&fixture{T: t, b: newBackend(t), o: o, ctx: t.Context()})
		})
	}
}

// fixture is what a test works on.
type fixture struct {
	*testing.T
	b   drivers.Backend
	o   Options
	ctx context.Context
}

// must ends the test at an error.
func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// is reports an error that is not the one wanted.
func (f *fixture) is(err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("got error %v, want %v", err, want)
	}
}

func (f *fixture) equal(got, want []byte) {
	f.Helper()
	if bytes.Equal(got, want) {
		return
	}
	if len(got) != len(want) {
		f.Fatalf("got %d bytes, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			f.Fatalf("byte %d of %d is %#x, want %#x", i, len(got), got[i], want[i])
		}
	}
}

func (f *fixture) open(name string, mode drivers.Mode) drivers.Object {
	f.Helper()
	o, err := f.b.Open(f.ctx, name, mode)
	f.must(err)
	return o
}

// create makes an object with content. The test closes it at its end.
func (f *fixture) create(name string, content []byte) drivers.Object {
	f.Helper()
	o := f.open(name, drivers.Create)
	f.closeLater(o)
	if len(content) > 0 {
		f.must(o.WriteAt(content, 0))
	}
	return o
}

func (f *fixture) closeLater(c io.Closer) {
	f.Cleanup(func() {
		if err := c.Close(); err != nil {
			f.Errorf("close: %v", err)
		}
	})
}

func (f *fixture) read(o drivers.Object, off int64, n int) []byte {
	f.Helper()
	p := bytes.Repeat([]byte{0xEE}, n) // so that what is not filled shows
	f.must(o.ReadAt(p, off))
	return p
}

// content reads all of an object by its name.
func (f *fixture) content(name string) []byte {
	f.Helper()
	o := f.open(name, drivers.ReadOnly)
	size, err := o.Size()
	f.must(err)
	p := f.read(o, 0, int(size))
	f.must(o.Close())
	return p
}

func (f *fixture) list(group string) []string {
	f.Helper()
	var names []string
	f.must(f.b.List(f.ctx, group, func(i drivers.Info) error {
		names = append(names, i.Name)
		return nil
	}))
	slices.Sort(names)
	return names
}

// rng returns random numbers that the test's name decides, so that a failure repeats.
func (f *fixture) rng() *rand.Rand {
	h := fnv.New64a()
	io.WriteString(h, f.Name())
	return rand.New(rand.NewPCG(h.Sum64(), 1))
}

// bytesOf returns n bytes that differ from place to place and from seed to seed, and are never zero.
func bytesOf(seed, n int) []byte {
	p := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x>>24) | 1
	}
	return p
}

// parallel runs fn n times at once and returns the errors.
func parallel(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	done := make(chan struct{})
	for i := range n {
		go func() {
			defer func() { done <- struct{}{} }()
			<-start
			errs[i] = fn(i)
		}()
	}
	close(start)
	for range n {
		<-done
	}
	return errs
}

// one reports that not exactly one error is nil, or that another is not want.
func (f *fixture) one(errs []error, want error) {
	f.Helper()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			f.is(err, want)
		}
	}
	if won != 1 {
		f.Errorf("%d of %d won, want 1", won, len(errs))
	}
}

func numbered(i int) string { return fmt.Sprintf("o%03d", i) }
