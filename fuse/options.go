package fuse

import (
	"log/slog"
	"os"
	"time"
)

// Options say how a directory shows volumes. The zero value means the defaults.
type Options struct {
	Logger *slog.Logger // nil: none
	Source string       // first column of df and of /proc/self/mounts; empty: skerry
	// ReadOnly refuses every change.
	ReadOnly bool
	// Fixed refuses what would make a new name: creation and renaming.
	Fixed bool
	// AllowOther lets other users in, as far as owner and mode of the directory allow.
	AllowOther bool
	// MaxInFlight bounds the bytes of requests that the devices work on, of all files together; 0: 256 MiB. One file takes at most an eighth.
	MaxInFlight int64
	// Expiry is how long the kernel keeps names and sizes; 0: 500 ms. Below 0: not at all.
	Expiry time.Duration
}

const (
	defaultInFlight = 256 << 20
	defaultExpiry   = 500 * time.Millisecond
)

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Source == "" {
		o.Source = "skerry"
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = defaultInFlight
	}
	if o.Expiry == 0 {
		o.Expiry = defaultExpiry
	}
	o.Expiry = max(o.Expiry, 0)
	return o
}

// access is who may do what: the directory's owner, and its mode without the right to search.
type access struct {
	uid, gid  uint32
	dir, file uint32 // modes
}

// accessOf returns what the directory that is mounted on says. Without other users only the owner of the mount counts.
func accessOf(st os.FileInfo, uid, gid uint32, o Options) access {
	a := access{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), dir: 0o700}
	if o.AllowOther {
		a.uid, a.gid, a.dir = uid, gid, uint32(st.Mode().Perm())
	}
	a.file = a.dir & 0o666
	if o.ReadOnly {
		a.dir &^= 0o222
		a.file &^= 0o222
	}
	return a
}
