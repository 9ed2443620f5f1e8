package attach

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Target says what a device is of: a volume or a snapshot of a pool, or an export of somebody's server.
type Target struct {
	Pool     string `json:"pool,omitempty"`     // URL
	Volume   string `json:"volume,omitempty"`   // name
	Snapshot string `json:"snapshot,omitempty"` // name; empty: the volume itself
	ID       string `json:"id,omitempty"`       // of the volume
	// Created is when a snapshot was taken: one that was taken later under the same name is another one.
	Created time.Time `json:"created,omitzero"`

	URI string `json:"uri,omitempty"` // of a server that nobody here starts; the rest is empty then
}

// Name returns what a person calls it.
func (t Target) Name() string {
	switch {
	case t.URI != "":
		return t.URI
	case t.Snapshot != "":
		return t.Volume + "@" + t.Snapshot
	}
	return t.Volume
}

// identity is the same for the same volume, snapshot or export, whatever it is called now.
func (t Target) identity() string {
	switch {
	case t.URI != "":
		return t.URI
	case t.Snapshot != "":
		return t.ID + "@" + t.Snapshot + "@" + strconv.FormatInt(t.Created.UnixNano(), 10)
	}
	return t.ID
}

const backendPrefix = "skerry/"

// backend returns the identifier that the kernel keeps with a device.
func (t Target) backend() string {
	b := backendPrefix + t.identity()
	if t.Pool != "" {
		b += " " + t.Pool
	}
	return b
}

// parseBackend returns what the kernel's identifier of a device says of it: a Target without the volume's name.
func parseBackend(s string) (Target, bool) {
	rest, ours := strings.CutPrefix(s, backendPrefix)
	if !ours || rest == "" {
		return Target{}, false
	}
	identity, pool, ok := strings.Cut(rest, " ")
	if !ok {
		return Target{URI: identity}, true
	}
	id, rest, isSnapshot := strings.Cut(identity, "@")
	t := Target{Pool: pool, ID: id}
	if isSnapshot {
		snapshot, when, _ := strings.Cut(rest, "@")
		created, err := strconv.ParseInt(when, 10, 64)
		if err != nil || snapshot == "" {
			return Target{}, false
		}
		t.Snapshot, t.Created = snapshot, time.Unix(0, created).UTC()
	}
	return t, id != ""
}

// key returns the name of the target's files.
func (t Target) key() string {
	sum := sha256.Sum256([]byte(t.identity()))
	return hex.EncodeToString(sum[:8])
}

// Server is the process that a device gets its data from.
type Server struct {
	Own bool   `json:"own"` // the keeper starts and ends it
	URI string `json:"uri"` // where it serves
	// Single says that the server may have no time for a second connection beside the device's: it is not asked for anything.
	Single  bool    `json:"single,omitempty"`
	Process Process `json:"process,omitzero"`
}

// Record is what there is to know about an attached device.
type Record struct {
	Target
	Device      string        `json:"device,omitempty"` // path; empty: not connected yet
	Index       int           `json:"index"`            // of the device; counts only with Device
	Want        string        `json:"want,omitempty"`   // path that was asked for
	Size        int64         `json:"size"`             // bytes
	ReadOnly    bool          `json:"read_only"`
	Connections int           `json:"connections"`
	Dead        time.Duration `json:"dead"`    // nanoseconds that I/O waits for a server
	Request     time.Duration `json:"request"` // nanoseconds after which a request is sent again
	Server      Server        `json:"server"`
	Keeper      Process       `json:"keeper,omitzero"`
	Connected   bool          `json:"connected"`          // the keeper reached the server when it tried last
	Detached    bool          `json:"detached,omitempty"` // by force, while something used it: it goes when that ends
}

// files are the paths of a device's files.
type files struct{ record, lock, keeper, socket, log string }

func (h *Host) files(key string) files {
	base := filepath.Join(h.Dir, key)
	return files{base + ".json", base + ".lock", base + ".keeper", base + ".sock", base + ".log"}
}

// load returns a record, or an error that matches [fs.ErrNotExist].
func (h *Host) load(key string) (Record, error) {
	var r Record
	b, err := os.ReadFile(h.files(key).record)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w; remove it, the device is found without", h.files(key).record, err)
	}
	if r.key() != key || r.Connections < 1 || r.Connections > MaxConnections || r.Index < 0 || r.Server.URI == "" {
		return r, fmt.Errorf("%s is no record of a device of that key; remove it, the device is found without", h.files(key).record)
	}
	return r, nil
}

// save replaces a record. It need not survive a loss of power, which no device survives either.
func (h *Host) save(r Record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	path := h.files(r.key()).record
	f, err := os.CreateTemp(h.Dir, ".record-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// forget removes a record and the own server's socket and log.
func (h *Host) forget(key string) error {
	f := h.files(key)
	var errs []error
	for _, p := range []string{f.record, f.socket, f.log, f.log + oldLog} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// records returns all records, and what is wrong with those that cannot be read.
func (h *Host) records() ([]Record, error) {
	names, err := filepath.Glob(filepath.Join(h.Dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []Record
	var errs []error
	for _, n := range names {
		r, err := h.load(strings.TrimSuffix(filepath.Base(n), ".json"))
		switch {
		case err == nil:
			all = append(all, r)
		case !errors.Is(err, fs.ErrNotExist): // detached meanwhile
			errs = append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

// makeDir makes the directory of the records.
func (h *Host) makeDir() error {
	if err := os.MkdirAll(filepath.Dir(h.Dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(h.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := os.Lstat(h.Dir)
	if err != nil {
		return err
	}
	var raw unix.Stat_t
	if err := unix.Lstat(h.Dir, &raw); err != nil {
		return err
	}
	if !st.IsDir() || st.Mode().Perm()&0o077 != 0 || int(raw.Uid) != os.Geteuid() {
		return fmt.Errorf("%s must be a directory of this user with mode 0700", h.Dir)
	}
	return nil
}

// errLocked says that another process holds a lock.
var errLocked = errors.New("locked by another process")

// tryLock takes the lock of a file, which is made if it is missing and stays. It fails with errLocked if another process has it.
// The lock ends with the process.
func tryLock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, wholeFile()); err != nil {
		_ = f.Close() // it has no lock
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = errLocked
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil // ends the lock, whatever it returns
}

// wholeFile is a lock that keeps all others out. It is of the open file description: of flock(2) nobody could ask without
// taking it, and so keep out those who want it.
func wholeFile() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart} }

// isLocked reports whether somebody has the lock of a file. It keeps nobody from taking it.
func isLocked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // nothing was written
	l := wholeFile()
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, l) == nil && l.Type != unix.F_UNLCK
}

// lock waits for the lock of a file.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	const pause = 10 * time.Millisecond
	for {
		unlock, err = tryLock(path)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("another attach or detach of the same device has not ended: %w", ctx.Err())
		}
	}
}
