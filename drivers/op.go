package drivers

import (
	"io"
	"os"
	"time"
)

// Kind says what an [Op] does.
type Kind uint8

// The kinds of operations.
const (
	OpRead      Kind = iota // fill Data from Off
	OpWrite                 // write Data at Off
	OpPunch                 // zero [Off, Off+Length): punched if the backend can, else written
	OpAllocate              // reserve [Off, Off+Length) if the backend can, else nothing
	OpSync                  // sync the object
	OpOpen                  // make sure that the object exists and its handle is cached
	OpCreate                // create the object exclusively; its handle is cached
	OpStat                  // fill Info
	OpUnlink                // close the cached handle and remove the name
	OpList                  // call Each for all below the group Name
	OpLoad                  // set Data to the content of a small object
	OpReplace               // Data becomes the content of a small object if Cond holds
	OpSyncGroup             // sync the names of the group Name
	OpDropCache             // forget the cached clean data of the object, if the backend can, its handle, and a failed sync of it
	OpLock                  // make the object if it is missing and set Lock to its lock
	OpCloneFile             // create the object exclusively with the content of File, durably
	kinds
)

// String returns the kind in one lower-case word.
func (k Kind) String() string {
	if k >= kinds {
		return "unknown"
	}
	return [kinds]string{"read", "write", "punch", "allocate", "sync", "open", "create", "stat", "unlink",
		"list", "load", "replace", "syncgroup", "dropcache", "lock", "clonefile"}[k]
}

// Mutates reports whether the operation changes what is stored.
func (k Kind) Mutates() bool {
	switch k {
	case OpWrite, OpPunch, OpAllocate, OpCreate, OpUnlink, OpReplace, OpCloneFile:
		return true
	}
	return false
}

// Lane keeps kinds of work apart: each has its own workers, so that no lane waits for another.
type Lane uint8

// The lanes, from the most urgent.
const (
	LaneLease      Lane = iota // grants, beats
	LaneGuest                  // guest reads and writes, and the journal that they wait for
	LaneMeta                   // open, create, stat, unlink, list, pages and roots
	LaneBackground             // collection, merges, cuts, check, transfer
	lanes
)

// LaneCount is the number of lanes.
const LaneCount = int(lanes)

// String returns the lane in one lower-case word.
func (l Lane) String() string {
	if l >= lanes {
		return "unknown"
	}
	return [lanes]string{"lease", "guest", "meta", "background"}[l]
}

// Guard says whether its owner may still change what is stored: a lease.
type Guard interface {
	// Err returns nil while the lease holds.
	Err() error
}

// Completer receives completions.
type Completer interface {
	// Complete is called once for each operation that Submit did not do inline, on
	// any goroutine, when the backend has returned and the buffers are the submitter's again.
	// It must not block.
	Complete(op *Op)
}

// Op is one operation. The submitter fills the first part and owns the whole again when
// the operation has ended; it may be used again then. Between Submit and the end it
// belongs to the driver.
type Op struct {
	Kind     Kind
	Lane     Lane
	Tenant   uint64 // opaque; queued work of different tenants is served in turns
	Name     []byte // the object's name, or the group's; may point into Scratch
	Data     []byte
	Off      int64            // bytes
	Length   int64            // bytes
	Cond     Condition        // OpReplace
	Each     func(Info) error // OpList: called on the worker's goroutine
	File     *os.File         // OpCloneFile
	Deadline time.Time        // zero: the engine's own; fails the op if not yet handed to the backend
	Guard    Guard            // checked when a mutation is handed to the backend; may be nil
	Done     Completer
	NoWait   bool // queued even where there is no room: for what is submitted from Complete, which must not block

	Scratch [MaxName]byte // room for Name, so that no name is allocated

	// Set at the end.
	Err  error
	Info Info
	Lock io.Closer

	// The engine's queues.
	next  *Op
	queue *lane
	at    time.Time // submitted
	due   time.Time // the deadline in force
}
