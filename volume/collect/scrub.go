package collect

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// ScrubOptions say what is scrubbed, and how fast.
type ScrubOptions struct {
	Volume string // only what this volume and its snapshots reach; "": all of the pool
	Rate   int64  // bytes of data read in a second; 0: no limit
	// Progress, if not nil, is called by one goroutine at a time with the bytes of data read.
	Progress func(read int64)
}

// Injury is something damaged, and where it shows. What several snapshots reach comes up for each of them.
type Injury struct {
	Volume         string // name, or id if it has none
	Snapshot       string // name, or serial if it has none; "": the volume as it is now
	Offset, Length int64  // bytes of the volume in which it shows; of what is no data, Length is 0
	Object         string // "": none
	Text           string // what is wrong
}

// ScrubReport is what Scrub found.
type ScrubReport struct {
	Volumes  int
	Sealed   int   // snapshots compared with their seals
	Objects  int64 // read, data alone
	Bytes    int64 // read from these
	Damage   []Injury
	Unlisted int64 // injuries beyond those in Damage
	Skipped  []Skipped
}

const (
	scrubbers    = 4       // objects read at once
	scrubPiece   = 1 << 20 // bytes read at once
	maxInjuries  = 10000
	maxSuspects  = 1 << 16
	suspectTries = 2 // reads of what could not be read
)

// Scrub reads everything that volumes and their snapshots reach: records, map pages, journals that nobody is writing, and the blocks of all objects that a map names, each object
// once. It takes no lease and changes nothing. What changes while it reads is looked at again before it counts as damage. The error is for what ended the scrub,
// not for what it found. Memory is that of the pages of one number, of all snapshots of a volume, and their stacks.
//
// The content of sealed snapshots is compared with the seal, and read once more for that. Else an object has no checksum: what is found is that it is
// missing, cannot be read, or is shorter than what the map says that it holds. What a journal
// has that is not in the map yet is not read but in the journal. What the kernel has in its cache is read from there.
func Scrub(ctx context.Context, p *catalog.Pool, o ScrubOptions) (ScrubReport, error) {
	s := &scrubber{
		p: p, o: o, limit: newLimiter(o.Rate), client: p.Engine().Client(drivers.LaneBackground, 0, nil),
		scrubbed: make(map[chunk.VolumeID]bool), objects: make(map[objectKey]*suspect), pages: make(map[pageKey]error),
	}
	if err := s.all(ctx); err != nil {
		return s.report, fmt.Errorf("scrub: %w", err)
	}
	return s.report, nil
}

// scrubber scrubs one pool.
type scrubber struct {
	p        *catalog.Pool
	client   drivers.Client
	o        ScrubOptions
	limit    *limiter
	scrubbed map[chunk.VolumeID]bool // whose objects are read with them, not with their clones
	pages    map[pageKey]error       // that could not be read

	buffers sync.Pool // of scrubPiece bytes

	mu      sync.Mutex
	report  ScrubReport
	objects map[objectKey]*suspect
}

// objectKey names a data object.
type objectKey struct {
	owner  chunk.VolumeID
	chunk  uint64
	serial chunk.Serial
}

func (k objectKey) name() string { return chunk.DataName(k.owner, k.chunk, k.serial) }

func (s *scrubber) all(ctx context.Context) error {
	var ids []chunk.VolumeID
	var err error
	if s.o.Volume != "" {
		ids = make([]chunk.VolumeID, 1)
		ids[0], err = s.p.Lookup(ctx, s.o.Volume)
	} else if ids, err = s.p.Volumes(ctx); err == nil {
		err = s.choose(ctx, ids)
	}
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.volume(ctx, id); err != nil {
			return fmt.Errorf("volume %v: %w", id, err)
		}
	}
	return s.locate(ctx, ids)
}

// choose notes the volumes that will be scrubbed.
func (s *scrubber) choose(ctx context.Context, ids []chunk.VolumeID) error {
	for _, id := range ids {
		root, err := s.p.Inspect(ctx, id)
		if err == nil {
			s.scrubbed[id], err = s.counts(ctx, root)
		}
		if err != nil && !damaged(err) && !errors.Is(err, drivers.ErrNotFound) {
			return err
		}
	}
	return nil
}

// counts reports whether anything can be read through a volume.
func (s *scrubber) counts(ctx context.Context, root *mapper.Root) (bool, error) {
	if !root.State.Kept() || s.p.Over(root) {
		return false, nil
	}
	if root.State != mapper.Live {
		return true, nil
	}
	return s.p.Counts(ctx, root)
}

// state is one picture of a volume.
type state struct {
	snapshot string           // "": as it is now
	record   *mapper.Snapshot // nil: as it is now
	layout
}

// states returns the pictures of a volume: none if it does not count. wrong is called with what is damaged of their records; it may be nil.
func (s *scrubber) states(ctx context.Context, id chunk.VolumeID, wrong func(name string, err error)) (root *mapper.Root, all []state, err error) {
	if wrong == nil {
		wrong = func(string, error) {}
	}
	root, err = s.p.Inspect(ctx, id)
	if errors.Is(err, drivers.ErrNotFound) {
		return nil, nil, nil
	}
	if damaged(err) {
		wrong(id.String(), err)
		return nil, nil, nil
	}
	counts := false
	if err == nil {
		counts, err = s.counts(ctx, root)
	}
	if damaged(err) {
		wrong(root.Name, err)
		counts, err = true, nil
	}
	if err != nil || !counts {
		return nil, nil, err
	}
	all = append(all, state{"", nil, layout{root.Owners, root.Pages, root.Geometry}})
	err = s.p.EachSnapshot(ctx, id, func(snap *mapper.Snapshot, err error) error {
		if damaged(err) {
			wrong(root.Name, err)
			return nil
		}
		if err != nil {
			return err
		}
		all = append(all, state{snapshotLabel(snap), snap, layout{snap.Owners, snap.Pages, snap.Geometry}})
		return nil
	})
	return root, all, err
}

func snapshotLabel(s *mapper.Snapshot) string {
	if s.Hidden() {
		return s.Serial.String()
	}
	return s.Name
}

func layouts(all []state) []layout {
	maps := make([]layout, len(all))
	for i, s := range all {
		maps[i] = s.layout
	}
	return maps
}

// volume reads what a volume and its snapshots reach.
func (s *scrubber) volume(ctx context.Context, id chunk.VolumeID) error {
	root, all, err := s.states(ctx, id, func(name string, err error) { s.injury(Injury{Volume: name, Text: err.Error()}) })
	if err != nil || root == nil {
		return err
	}
	s.report.Volumes++
	if err := s.journals(ctx, root); err != nil {
		return err
	}
	image, _, err := catalog.ShownBy(root)
	if err != nil {
		s.injury(Injury{Volume: root.Name, Text: err.Error()})
	}
	if !image.IsZero() {
		s.report.Skipped = append(s.report.Skipped, Skipped{Volume: root.Name, Why: "it is still being copied from an image, which is not read"})
	}
	read := func(owner chunk.VolumeID) bool { return owner == id || !s.scrubbed[owner] && owner != image }
	err = eachNumber(layouts(all), func(number uint64, keys []pageKey, states map[pageKey][]int32) error {
		blocks := make(map[objectKey]chunk.Bitmap)
		for _, key := range keys {
			if !read(key.owner) {
				continue
			}
			geom := all[states[key][0]].geom
			err := s.page(ctx, number, key, geom, func(l mapper.LayerRef) error {
				if l.Data > 0 && read(l.Owner) {
					o := objectKey{l.Owner, l.Chunk, l.Serial}
					if blocks[o] == nil {
						blocks[o] = chunk.NewBitmap(geom.Blocks())
					}
					l.AddTo(blocks[o])
				}
				return nil
			})
			if fatal(ctx, err) {
				return fmt.Errorf("map page %d: %w", number, err)
			}
			if err != nil && len(s.pages) < maxSuspects {
				s.pages[key] = err
			}
		}
		return s.read(ctx, blocks)
	})
	for _, one := range all {
		if err == nil && one.record != nil {
			err = s.seal(ctx, root.Name, one)
		}
	}
	return err
}

// page visits the layers of a stored page.
func (s *scrubber) page(ctx context.Context, number uint64, key pageKey, geom chunk.Geometry, fn func(mapper.LayerRef) error) error {
	b, err := s.client.Load(ctx, chunk.SerialName(key.owner, chunk.Pages, key.serial))
	if err != nil {
		return err
	}
	return mapper.EachLayer(b, key.owner, mapper.PageRef{Number: number, Serial: key.serial}, geom, fn)
}

// journals reads the journals of a volume, if nobody is writing them.
func (s *scrubber) journals(ctx context.Context, root *mapper.Root) error {
	if len(root.Journals) == 0 {
		return nil
	}
	c := &checker{p: s.p, client: s.client}
	alive, err := c.alive(ctx, root)
	if err != nil || alive {
		return err
	}
	_, _, err = root.Fold(ctx, s.client, s.p.Boot(), s.p.Engine().Properties().DurableWrites)
	if err == nil || fatal(ctx, err) {
		return err
	}
	again, inspectErr := s.p.Inspect(ctx, root.Volume)
	if inspectErr == nil && same(root, again) {
		s.injury(Injury{Volume: root.Name, Text: fmt.Sprintf("journal: %v", err)})
	}
	return nil // else it was taken meanwhile
}

// fatal reports whether an error ends the scrub. Others say that something cannot be read.
func fatal(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || refused(err))
}

// refused reports whether an error says that the storage answers nothing, for whatever object.
func refused(err error) bool {
	return errors.Is(err, drivers.ErrUnavailable) || errors.Is(err, drivers.ErrClosed) || errors.Is(err, drivers.ErrReadOnly)
}

// read reads blocks of objects, several objects at once.
func (s *scrubber) read(ctx context.Context, blocks map[objectKey]chunk.Bitmap) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(scrubbers)
	for key, b := range blocks {
		g.Go(func() error { return s.object(ctx, key, b) })
	}
	return g.Wait()
}
