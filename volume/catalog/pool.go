package catalog

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
)

// Options tune a [Pool].
type Options struct {
	Identity locking.Identity
	Logger   *slog.Logger   // nil: none
	Volume   volume.Options // of the devices; Boot is the identity's
	// Sources reads the images that volumes are still copied from; nil: such volumes cannot be opened.
	Sources Sources
	// CopyRetry is how long the copy behind a lazy import waits after an error; 0: a minute.
	CopyRetry time.Duration
	// Now dates what is created; nil: time.Now.
	Now func() time.Time
}

// Pool is an open pool: one process's view of a place that holds volumes. Its methods may be called
// concurrently.
type Pool struct {
	engine   *drivers.Engine
	client   drivers.Client // of metadata, without a lease
	instance *locking.Instance
	id       [16]byte
	o        Options
	log      *slog.Logger

	mu      sync.Mutex
	closed  bool
	entries map[chunk.VolumeID]*entry
	readers map[string]bool // of snapshots that this pool reads, the names of the records

	reads atomic.Uint64 // records of readers that were made
}

// Init makes a pool of an empty place. It fails with ErrPoolExists if there is one.
func Init(ctx context.Context, e *drivers.Engine) error {
	record := newPoolRecord()
	client := e.Client(drivers.LaneMeta, 0, nil)
	err := client.Replace(ctx, chunk.PoolName, record.Encode(), drivers.Condition{Absent: true})
	if errors.Is(err, drivers.ErrExists) {
		return ErrPoolExists
	}
	if err == nil {
		err = fillReserve(ctx, client)
	}
	if err != nil {
		return fmt.Errorf("create pool: %w", err)
	}
	return nil
}

func newPoolRecord() mapper.PoolRecord {
	record := mapper.PoolRecord{Created: time.Now()}
	rand.Read(record.ID[:]) // never fails, says its documentation
	return record
}

// Open opens the pool that e stores. It fails with ErrNoPool if there is none. The engine remains the caller's, to be closed after the pool.
func Open(ctx context.Context, e *drivers.Engine, o Options) (*Pool, error) {
	client := e.Client(drivers.LaneMeta, 0, nil)
	b, err := client.Load(ctx, chunk.PoolName)
	if errors.Is(err, drivers.ErrNotFound) {
		return nil, fmt.Errorf("%w here: create one with init", ErrNoPool)
	}
	var record mapper.PoolRecord
	if err == nil {
		record, err = mapper.DecodePoolRecord(b)
	}
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.CopyRetry <= 0 {
		o.CopyRetry = time.Minute
	}
	o.Volume.Boot, o.Volume.Now = o.Identity.Boot, o.Now
	if o.Volume.Logger == nil {
		o.Volume.Logger = o.Logger
	}
	return &Pool{
		engine: e, client: client, o: o, log: o.Logger, id: record.ID,
		instance: locking.NewInstance(e, o.Identity, locking.Options{Now: o.Now, Logger: o.Logger}),
		entries:  make(map[chunk.VolumeID]*entry),
		readers:  make(map[string]bool),
	}, nil
}

// ID returns the id of the pool, which it keeps wherever it is moved to.
func (p *Pool) ID() [16]byte { return p.id }

// Engine returns the engine that the pool works on.
func (p *Pool) Engine() *drivers.Engine { return p.engine }

// Instance returns this process as a holder of the pool's volumes.
func (p *Pool) Instance() *locking.Instance { return p.instance }

// Close closes the volumes that are still open and gives up what this process is as a holder. No other call may
// be under way; devices of snapshots are to be closed before.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return fmt.Errorf("close pool: %w", drivers.ErrClosed)
	}
	p.closed = true
	var devices []*volume.Device
	for _, e := range p.entries {
		if e.dev != nil {
			devices = append(devices, e.dev)
		}
	}
	p.mu.Unlock()
	var all error
	for _, d := range devices {
		if err := d.Close(ctx); err != nil && !errors.Is(err, volume.ErrClosed) {
			all = errors.Join(all, err)
		}
	}
	if err := errors.Join(all, p.instance.Close(ctx)); err != nil {
		return fmt.Errorf("close pool: %w", err)
	}
	return nil
}

// config returns what a device of a volume is made of.
func (p *Pool) config(id chunk.VolumeID) volume.Config {
	return volume.Config{Engine: p.engine, Tenant: tenant(id), Options: p.o.Volume}
}

func tenant(id chunk.VolumeID) uint64 { return binary.LittleEndian.Uint64(id[:]) }
