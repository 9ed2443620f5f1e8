package control

import "time"

// Volume is what there is to say about a volume. Commands print it with --json.
type Volume struct {
	Name       string     `json:"name"`
	ID         string     `json:"id"`
	Size       int64      `json:"size"`       // bytes
	ChunkSize  int64      `json:"chunk_size"` // bytes
	Created    time.Time  `json:"created"`
	State      string     `json:"state"`              // "live" or "damaged"
	Problem    string     `json:"problem,omitempty"`  // what is wrong with a damaged one
	Parent     string     `json:"parent,omitempty"`   // "vol@snap" that a clone began as
	Generation uint32     `json:"generation"`         // of the last grant
	Holder     *Holder    `json:"holder,omitempty"`   // who may write it now
	Snapshots  []Snapshot `json:"snapshots,omitzero"` // oldest first; left out of lists of volumes
	Source     *Source    `json:"source,omitempty"`   // image that it is still copied from; left out of lists
}

// Source is an image that a volume is still copied from.
type Source struct {
	Path    string `json:"path"`
	Host    string `json:"host,omitempty"` // that has the image; none: the pool has it
	Percent int    `json:"percent"`        // that is copied
}

// Snapshot is a snapshot of a volume.
type Snapshot struct {
	Name    string    `json:"name"`
	Size    int64     `json:"size"` // bytes
	Created time.Time `json:"created"`
	Clones  []string  `json:"clones"` // volumes that began as it
}

// Hidden names a snapshot that has no name.
type Hidden struct {
	Serial uint64 `json:"serial"`
}

// NewPin is the body of POST /v1/volumes/{volume}/pins.
type NewPin struct {
	Seconds int64 `json:"seconds"` // for which the pin keeps the snapshot, at least
}

// Pin names a pin.
type Pin struct {
	ID string `json:"id"`
}

// maxPin is the longest time of a new pin in seconds.
const maxPin = 24 * 60 * 60

// Holder says who holds a lease.
type Holder struct {
	Host   string    `json:"host"`
	PID    int       `json:"pid"`
	Socket string    `json:"socket,omitempty"` // path of its control socket
	Since  time.Time `json:"since"`
}

// Removal says what a removal freed.
type Removal struct {
	Objects int64 `json:"objects"` // removed
	Bytes   int64 `json:"bytes"`   // freed
	Left    bool  `json:"left"`    // more comes back with gc
}

// Process is the answer to GET /v1/process.
type Process struct {
	PID         int    `json:"pid"`
	Version     string `json:"version"`     // of the program
	Pool        string `json:"pool"`        // URL
	Allocations uint64 `json:"allocations"` // objects that were allocated on the heap since it began
	Heap        uint64 `json:"heap"`        // bytes of objects on the heap
	Goroutines  int    `json:"goroutines"`
	Shows
}

// Shows says where a process shows volumes to other programs.
type Shows struct {
	NBD      []string `json:"nbd,omitempty"`       // URIs that clients can connect to; one without an export name has every volume and snapshot of the pool
	Mounts   []string `json:"mounts,omitempty"`    // directories that have volumes as files
	ReadOnly bool     `json:"read_only,omitempty"` // every change through these is refused
}

// Volumes is the answer to GET /v1/volumes.
type Volumes struct {
	Volumes []string `json:"volumes"` // names, sorted
}

// NewSnapshot is the body of POST /v1/volumes/{volume}/snapshots.
type NewSnapshot struct {
	Name string `json:"name"`
}

// NewClone is the body of POST /v1/volumes/{volume}/clones.
type NewClone struct {
	Name string `json:"name"`
	Size int64  `json:"size,omitempty"` // bytes; 0: that of the volume
}

// NewSize is the body of POST /v1/volumes/{volume}/size.
type NewSize struct {
	Size   int64 `json:"size"`             // bytes
	By     bool  `json:"by,omitempty"`     // size is added to the one that the volume has
	Shrink bool  `json:"shrink,omitempty"` // it may become smaller
}

// FlattenLine is one line of the answer to POST /v1/volumes/{volume}/flatten. The last one has the volume or a problem.
type FlattenLine struct {
	Done    int64    `json:"done"`  // bytes that are copied
	Total   int64    `json:"total"` // bytes
	Volume  *Volume  `json:"volume,omitempty"`
	Problem *Problem `json:"problem,omitempty"`
}

// Problem is the body of an answer that tells of an error.
type Problem struct {
	Code    string `json:"code"`    // class of the error
	Message string `json:"message"` // for people
}

const (
	maxRequest = 64 << 10
	maxAnswer  = 8 << 20
)
