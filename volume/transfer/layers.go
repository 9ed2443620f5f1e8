package transfer

import "fmt"

// kind is what a layer of an image has at a place.
type kind uint8

const (
	absent kind = iota // the layer below decides
	zeros
	data
)

// run is a part of a layer that is all of one kind, and lies in one piece.
type run struct {
	kind   kind
	length int64  // bytes
	host   int64  // where in the file the data is
	packed uint64 // the entry of a compressed cluster; 0: not compressed
}

// layer is an image file in a chain of backing files. Its methods may be called concurrently.
type layer interface {
	// size returns the length of the disk in bytes. What is beyond it reads as zeros.
	size() int64
	// locate returns the run that begins at off, of at least one byte and at most n; off+n is at most the size.
	locate(off, n int64) (run, error)
	// read fills p from off on, which a run of data covers that began at off.
	read(p []byte, off int64, r run) error
}

// rawLayer is a raw image at the end of a chain.
type rawLayer struct {
	source
	length int64
}

func (l rawLayer) size() int64 { return l.length }

func (l rawLayer) locate(off, n int64) (run, error) {
	n, zero, err := l.extent(off, n)
	r := run{kind: data, length: n, host: off}
	if zero {
		r.kind = zeros
	}
	return r, err
}

func (l rawLayer) read(p []byte, off int64, _ run) error { return readFull(l, p, off) }

// layers is the content of an image and its backing files, the image itself first.
type layers []layer

// locate returns the run at off, and the layer that has it. A run that no layer has is zeros.
func (c layers) locate(off, n int64) (run, layer, error) {
	for _, l := range c {
		if off >= l.size() {
			break // also of what the layers below have, nothing is seen
		}
		r, err := l.locate(off, min(n, l.size()-off))
		if err != nil {
			return run{}, nil, err
		}
		if r.length <= 0 || r.length > n {
			return run{}, nil, fmt.Errorf("extent of %d bytes at %d: %w", r.length, off, ErrDamaged)
		}
		if r.kind != absent {
			return r, l, nil
		}
		n = r.length
	}
	return run{kind: zeros, length: n}, nil, nil
}

// extent implements source. A run of data ends at the latest after a segment.
func (c layers) extent(off, n int64) (int64, bool, error) {
	first, _, err := c.locate(off, n)
	if err != nil {
		return 0, false, err
	}
	zero := first.kind == zeros
	if !zero {
		n = max(first.length, min(n, segmentSize))
	}
	length := first.length
	for length < n {
		r, _, err := c.locate(off+length, n-length)
		if err != nil {
			return 0, false, err
		}
		if (r.kind == zeros) != zero {
			break
		}
		length += r.length
	}
	return length, zero, nil
}

// ReadAt implements source: it fills p, which lies within the disk, or fails.
func (c layers) ReadAt(p []byte, off int64) (int, error) {
	for done := 0; done < len(p); {
		at, rest := off+int64(done), int64(len(p)-done)
		r, l, err := c.locate(at, rest)
		if err != nil {
			return done, err
		}
		// Clusters that lie one behind the other are read at once.
		for r.kind == data && r.packed == 0 && r.length < rest {
			next, m, err := c.locate(at+r.length, rest-r.length)
			if err != nil {
				return done, err
			}
			if m != l || next.kind != data || next.packed != 0 || next.host != r.host+r.length {
				break
			}
			r.length += next.length
		}
		part := p[done:][:r.length]
		if r.kind == zeros {
			clear(part)
		} else if err := l.read(part, at, r); err != nil {
			return done, fmt.Errorf("at %d: %w", at, err)
		}
		done += len(part)
	}
	return len(p), nil
}
