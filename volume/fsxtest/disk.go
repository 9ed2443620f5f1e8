package fsxtest

// Disk is what is exercised. Offsets and lengths are bytes and lie within the disk. Methods may be called concurrently for ranges that
// do not overlap. What is done is seen by every call that begins afterwards.
type Disk interface {
	// Size returns how large the disk is.
	Size() (int64, error)
	// ReadAt fills p from off.
	ReadAt(p []byte, off int64) error
	// WriteAt writes p at off; if durable is set, so that it is durable when WriteAt returns.
	WriteAt(p []byte, off int64, durable bool) error
	// Zero makes n bytes at off zeros.
	Zero(off, n int64) error
	// Punch makes n bytes at off a hole, which reads as zeros.
	Punch(off, n int64) error
	// Sync makes all durable that was done before.
	Sync() error
	// Extents returns what [off, off+n) consists of, in ascending order and without gaps. It may go beyond.
	Extents(off, n int64) ([]Extent, error)
}

// Extent is a run of bytes.
type Extent struct {
	Offset, Length int64 // bytes
	Zero           bool  // the disk says that they read as zeros
}

// Volume is a Disk that can be resized and has snapshots. The methods beyond those of Disk are called while no other is.
type Volume interface {
	Disk
	// Resize makes the disk size bytes large. What is added reads as zeros.
	Resize(size int64) error
	// Snapshot takes a snapshot.
	Snapshot(name string) error
	// ReadSnapshot returns the content of a snapshot.
	ReadSnapshot(name string) ([]byte, error)
	// RemoveSnapshot removes a snapshot.
	RemoveSnapshot(name string) error
	// Rollback makes the disk what it was when a snapshot was taken, its size included. All snapshots stay.
	Rollback(name string) error
}

// Striped returns the part of a disk that consists of every count-th stripe of some bytes, from the stripe with number index on; whole stripes only.
// Parts with other indices do not overlap, but lie beside each other. Calls that touch several stripes are made as several calls.
func Striped(d Disk, index, count, stripe int64) Disk {
	return striped{d, index, count, stripe}
}

type striped struct {
	disk                 Disk
	index, count, stripe int64
}

// Size returns the size of the part.
func (s striped) Size() (int64, error) {
	size, err := s.disk.Size()
	return size / (s.count * s.stripe) * s.stripe, err
}

// each calls fn with the parts of [off, off+n) and where they lie on the disk.
func (s striped) each(off, n int64, fn func(at, from, to int64) error) error {
	for from := int64(0); from < n; {
		number, within := (off+from)/s.stripe, (off+from)%s.stripe
		to := min(n, from+s.stripe-within)
		if err := fn((number*s.count+s.index)*s.stripe+within, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// ReadAt reads stripe by stripe.
func (s striped) ReadAt(p []byte, off int64) error {
	return s.each(off, int64(len(p)), func(at, from, to int64) error { return s.disk.ReadAt(p[from:to], at) })
}

// WriteAt writes stripe by stripe.
func (s striped) WriteAt(p []byte, off int64, durable bool) error {
	return s.each(off, int64(len(p)), func(at, from, to int64) error { return s.disk.WriteAt(p[from:to], at, durable) })
}

// Zero zeroes stripe by stripe.
func (s striped) Zero(off, n int64) error {
	return s.each(off, n, func(at, from, to int64) error { return s.disk.Zero(at, to-from) })
}

// Punch punches stripe by stripe.
func (s striped) Punch(off, n int64) error {
	return s.each(off, n, func(at, from, to int64) error { return s.disk.Punch(at, to-from) })
}

// Sync syncs the whole disk.
func (s striped) Sync() error { return s.disk.Sync() }

// Extents asks for stripe after stripe.
func (s striped) Extents(off, n int64) ([]Extent, error) {
	var all []Extent
	err := s.each(off, n, func(at, from, to int64) error {
		part, err := s.disk.Extents(at, to-from)
		if err != nil {
			return err
		}
		for _, x := range part {
			begin, end := max(x.Offset, at), min(x.Offset+x.Length, at+to-from)
			if begin < end {
				all = append(all, Extent{off + from + begin - at, end - begin, x.Zero})
			}
		}
		return nil
	})
	return all, err
}
