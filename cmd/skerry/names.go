package main

import (
	"fmt"
	"strings"

	"skerry/volume/catalog"
)

// ref reads [POOL/]VOL[@SNAP]. The pool, which is all before the last slash, becomes the pool of the command.
func (a *app) ref(arg string) (catalog.Ref, error) {
	name := arg
	if i := strings.LastIndexByte(arg, '/'); i >= 0 {
		pool := arg[:i]
		if pool == "" {
			return catalog.Ref{}, usage("%q: no pool before the slash", arg)
		}
		if a.pool != "" && a.pool != pool {
			return catalog.Ref{}, usage("%q: the command works on pool %q already; a command has one pool", arg, a.pool)
		}
		a.pool, name = pool, arg[i+1:]
	}
	r, err := catalog.ParseRef(name)
	if err != nil {
		return catalog.Ref{}, usageError(err)
	}
	return r, nil
}

// elsewhere reads [POOL/]VOL[@SNAP] for a command that works on two pools: it returns the pool that the name begins with, else
// that of the command.
func (a *app) elsewhere(arg string) (pool string, r catalog.Ref, err error) {
	pool = a.pool
	name := arg
	if i := strings.LastIndexByte(arg, '/'); i >= 0 {
		if pool, name = arg[:i], arg[i+1:]; pool == "" {
			return "", r, usage("%q: no pool before the slash", arg)
		}
	}
	if r, err = catalog.ParseRef(name); err != nil {
		return "", r, usageError(err)
	}
	return pool, r, nil
}

// volume reads [POOL/]VOL.
func (a *app) volume(arg string) (string, error) {
	r, err := a.ref(arg)
	if err != nil {
		return "", err
	}
	if r.Snapshot != "" {
		return "", usage("%q is a snapshot, want a volume", arg)
	}
	return r.Volume, nil
}

// snapshot reads [POOL/]VOL@SNAP.
func (a *app) snapshot(arg string) (catalog.Ref, error) {
	r, err := a.ref(arg)
	if err != nil {
		return r, err
	}
	if r.Snapshot == "" {
		return r, usage("%q is a volume, want a snapshot: %s@NAME", arg, arg)
	}
	return r, nil
}

// aboutRef is about, for a volume or a snapshot.
func aboutRef(r catalog.Ref, err error) error {
	if r.Snapshot == "" {
		return about("volume", r.String(), err)
	}
	return about("snapshot", r.String(), err)
}

// about puts a name in front of an error that might lack it.
func about(what, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", what, name, err)
}
