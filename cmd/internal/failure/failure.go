// Package failure sorts errors into classes: what a program sees of them as exit code and on the
// wire of the control socket, and what a person can do next.
package failure

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"skerry/cmd/internal/config"
	"skerry/cmd/internal/process"
	"skerry/cmd/internal/socket"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
	"skerry/mapper/journal"
	"skerry/nbd/kernel"
	"skerry/nbd/load"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/hash"
	"skerry/volume/transfer"
)

// The exit codes of the program.
const (
	ExitError       = 1
	ExitUsage       = 2
	ExitNotFound    = 10
	ExitHeld        = 11
	ExitExists      = 12
	ExitInUse       = 13
	ExitUnavailable = 14
	ExitNoSpace     = 15
	ExitDamaged     = 16
	ExitInterrupted = 130
)

// Exit is what an exit code of the program says.
type Exit struct {
	Code    int
	Meaning string
}

// Exits returns the exit codes of the program, in ascending order.
func Exits() []Exit {
	return []Exit{
		{0, "done"},
		{ExitError, "error"},
		{ExitUsage, "wrong usage"},
		{ExitNotFound, "no such pool, volume or snapshot"},
		{ExitHeld, "leased elsewhere; the message names the holder"},
		{ExitExists, "exists already"},
		{ExitInUse, "in use: by a holder, snapshots or clones"},
		{ExitUnavailable, "storage unavailable"},
		{ExitNoSpace, "no space"},
		{ExitDamaged, "damaged data"},
		{ExitInterrupted, "interrupted"},
	}
}

// Class is a class of errors.
type Class struct {
	Code string // name on the wire
	Exit int    // exit code of the program
	Next string // the next step for a person; empty if the errors of this class say it themselves

	is []error // an error is of this class if it matches one of these; the first stands for the class
}

// ErrUsage says that a command was not used as its help says.
var ErrUsage = errors.New("wrong usage")

// says stands for the next step of a class whose errors name it themselves, with the names of the things.
const says = ""

// classes returns all classes. An error is of the first that it matches, so the more telling ones come first: an
// error of the storage below prevails over what it made impossible.
func classes() []Class {
	return []Class{
		{"usage", ExitUsage, "see the command's --help", []error{ErrUsage}},
		{"journal_damaged", ExitDamaged, "its snapshots can be read, cloned and exported, and skerry rollback to one does without the journal", []error{journal.ErrDamaged}},
		{"image_moved", ExitDamaged, "a volume needs its image as it was until all is copied: remove it and import the image again", []error{transfer.ErrMoved}},
		{"damaged", ExitDamaged, "see what is damaged with: skerry check", []error{volume.ErrDamaged, mapper.ErrDamaged}},
		{"mismatch", ExitDamaged, "nothing was changed; look for damage on both sides with: skerry check, and for bad storage", []error{hash.ErrMismatch}},
		{"image_damaged", ExitDamaged, "get a sound copy of the image; qemu-img check tells more", []error{transfer.ErrDamaged, transfer.ErrShort}},
		{"image_space", ExitNoSpace, "make room where the image is written, or write it elsewhere", []error{transfer.ErrSpace}},
		{"wrong_data", ExitDamaged, "the server that was measured returns wrong data: do not use it for anything that matters", []error{load.ErrMismatch}},
		{"no_space", ExitNoSpace, "make room: remove volumes or snapshots (skerry rm), then skerry gc; skerry du shows what takes the space", []error{drivers.ErrNoSpace, syscall.ENOSPC, syscall.EDQUOT}},
		{"no_pool", ExitNotFound, says, []error{catalog.ErrNoPool}},
		{"pool_url", ExitError, says, []error{config.ErrPoolURL}},
		{"configuration", ExitError, "mend that file, or name another with --config", []error{config.ErrFile}},
		{"unknown_pool", ExitNotFound, says, []error{config.ErrUnknownPool}},
		{"pool_exists", ExitExists, "use it as it is: init --if-missing is content with that", []error{catalog.ErrPoolExists}},
		{"in_use", ExitInUse, says, []error{catalog.ErrInUse}},
		{"held", ExitHeld, "its snapshots can be taken, cloned, served and exported meanwhile", []error{locking.ErrHeld}},
		{"lost", ExitHeld, "another process has taken the volume; see: skerry lease ls", []error{locking.ErrLost}},
		{"exists", ExitExists, says, []error{catalog.ErrExists}},
		{"changed", ExitError, "skerry diff shows what was written; --rollback gives it up", []error{catalog.ErrChanged}},
		{"not_found", ExitNotFound, says, []error{catalog.ErrNotFound}},
		{"file_exists", ExitExists, says, []error{fs.ErrExist}},
		{"no_device", ExitNotFound, "skerry attached shows what is attached", []error{kernel.ErrNotAttached}},
		{"device_in_use", ExitInUse, "choose another device, or end what uses it", []error{kernel.ErrInUse}},
		{"no_module", ExitUnavailable, "load it with: modprobe nbd", []error{kernel.ErrNoModule}},
		{"device", ExitError, "see the limits of kernel devices with: skerry attach --help", []error{kernel.ErrConfig}},
		{"device_permission", ExitError, "run it as root", []error{kernel.ErrPermission}},
		{"unavailable", ExitUnavailable, "see that the pool's storage is there and answers (skerry doctor DIR), then try again", []error{drivers.ErrUnavailable}},
		{"failed", ExitError, "end the process that holds the volume and open it again: what was flushed before is safe", []error{volume.ErrFailed}},
		{"read_only", ExitError, "to write what a snapshot has, make a volume of it with: skerry clone", []error{volume.ErrReadOnly}},
		{"lock", ExitError, "give it one of the two, or do without --mlock: that is needed only where the host swaps to a volume, or has its root on one", []error{process.ErrMayNotLock}},
		{"permission", ExitError, "see who owns the files of the pool, or of the image; --pool names another pool", []error{fs.ErrPermission}},
		{"storage_read_only", ExitError, "make the storage writable; until then the pool can be looked at, and snapshots exported and served", []error{drivers.ErrReadOnly, syscall.EROFS}},
		{"out_of_range", ExitError, "see how large the volume is with: skerry info", []error{volume.ErrOutOfRange}},
		{"format", ExitError, says, []error{transfer.ErrFormat}},
		{"image_empty", ExitError, "an empty volume is made with: skerry create", []error{transfer.ErrEmpty}},
		{"image_too_large", ExitError, "give a larger --size", []error{transfer.ErrTooLarge}},
		{"argument", ExitUsage, "see the command's --help", []error{drivers.ErrInvalid}}, // a name or a size that cannot be
		{"invalid", ExitError, "this is an error of the program: tell its authors, with the output of --verbose", []error{volume.ErrInvalid}},
		{"interrupted", ExitInterrupted, "do it again when it suits: nothing half done shows", []error{context.Canceled}},
		{"late", ExitUnavailable, "try again; see that the pool's storage answers (skerry doctor DIR)", []error{context.DeadlineExceeded}},
		{"no_file", ExitError, "see that the path is right", []error{fs.ErrNotExist}},
		{"directory", ExitError, "name a file, for example one in it", []error{syscall.EISDIR}},
		{"no_directory", ExitError, "name a directory", []error{syscall.ENOTDIR}},
		{"address_in_use", ExitError, "another server listens there: end it, or choose another address", []error{syscall.EADDRINUSE, socket.ErrInUse}},
		{"no_socket", ExitError, "remove that file, or choose another address", []error{socket.ErrNoSocket}},
		{"no_reader", ExitError, "the program at the other end of the pipe has ended: see what it says", []error{transfer.ErrReader}},
		{"no_server", ExitUnavailable, "see that the server runs and listens there", []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE}},
		{"files", ExitError, "raise the limit of open files: ulimit -n", []error{syscall.EMFILE, syscall.ENFILE}},
		{"io", ExitError, "the storage or the file failed: see the kernel's log (dmesg), and skerry check for what it hit", []error{syscall.EIO}},
	}
}

// Of returns the class of an error.
func Of(err error) Class {
	for _, c := range classes() {
		for _, target := range c.is {
			if errors.Is(err, target) {
				return c
			}
		}
	}
	return Class{Code: "error", Exit: ExitError, Next: "--verbose tells what was done before that"}
}

// Remote is an error that another process met. It keeps its class.
type Remote struct {
	Message  string
	sentinel error
}

// FromWire returns the error that another process told of, by the code of its class and its text.
func FromWire(code, message string) *Remote {
	for _, c := range classes() {
		if c.Code == code {
			return &Remote{Message: message, sentinel: c.is[0]}
		}
	}
	return &Remote{Message: message}
}

// Error returns the other process's text.
func (r *Remote) Error() string { return r.Message }

// Unwrap returns the error that stands for the class, nil if the class is not known here.
func (r *Remote) Unwrap() error { return r.sentinel }

// ByExit returns an error that stands for the errors with an exit code, nil if there is none.
func ByExit(code int) error {
	for _, c := range classes() {
		if c.Exit == code && c.Exit != ExitError {
			return c.is[0]
		}
	}
	return nil
}
