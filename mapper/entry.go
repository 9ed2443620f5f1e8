package mapper

import (
	"slices"

	"skerry/chunk"
)

// layer is one object's share of a chunk.
type layer struct {
	owner  uint16 // index in the map's table of owners; 0 is the volume itself
	serial chunk.Serial
	full   bool         // the object holds all blocks; data and zero are nil
	data   chunk.Bitmap // blocks that the object holds
	zero   chunk.Bitmap // blocks that are zero; nil if none
}

// stack is the layers of a chunk, newest first; below the last one all is zeros.
type stack []layer

// hasData reports whether any block lies in the layer's object: then the object exists.
func (l *layer) hasData() bool { return l.full || !l.data.Empty() }

// run describes the blocks from b on that come from one place, at most up to end: from the
// layer's object, or zeros. It returns the end of that run. A nil layer means zeros below all layers.
func (s stack) run(b, end int) (l *layer, zero bool, last int) {
	for i := range s {
		l := &s[i]
		if l.full {
			return l, false, end
		}
		first, last := l.data.Run(b, end)
		if first == b {
			return l, false, last
		}
		end = first
		if l.zero == nil {
			continue
		}
		first, last = l.zero.Run(b, end)
		if first == b {
			return l, true, last
		}
		end = first
	}
	return nil, true, end
}

// set records that blocks [first, end) of the volume's own layer serial hold data or zeros. The layer is made if it
// is missing, above all layers that are older. If its object has no block any more serial is appended to dropped.
func (s stack) set(serial chunk.Serial, first, end int, zero bool, blocks int, dropped []chunk.Serial) (stack, []chunk.Serial) {
	i := 0
	for i < len(s) && s[i].owner == 0 && s[i].serial > serial {
		i++
	}
	if i == len(s) || s[i].owner != 0 || s[i].serial != serial {
		s = slices.Insert(s, i, layer{serial: serial, data: chunk.NewBitmap(blocks)})
	}
	l := &s[i]
	switch {
	case l.full && !zero:
		return s, dropped
	case l.full:
		l.full, l.data = false, chunk.NewBitmap(blocks)
		l.data.Set(0, blocks)
	}
	if zero {
		if l.zero == nil {
			l.zero = chunk.NewBitmap(blocks)
		}
		had := l.hasData()
		l.data.Clear(first, end)
		l.zero.Set(first, end)
		if had && !l.hasData() {
			dropped = append(dropped, serial)
		}
		return s, dropped
	}
	l.data.Set(first, end)
	if l.zero != nil {
		l.zero.Clear(first, end)
	}
	return s, dropped
}

// normalize drops what cannot be seen: blocks and layers covered by newer ones, and zeros at the bottom. The
// volume's own objects of which nothing is left are appended to dropped.
func (s stack) normalize(blocks int, dropped []chunk.Serial) (stack, []chunk.Serial) {
	covered := chunk.NewBitmap(blocks)
	kept := s[:0]
	done := false
	for _, l := range s {
		had := l.hasData()
		shown := !done && l.uncover(covered)
		if had && l.owner == 0 && !(shown && l.hasData()) {
			dropped = append(dropped, l.serial)
		}
		if !shown {
			continue
		}
		if l.zero != nil && l.zero.Empty() {
			l.zero = nil
		}
		if !l.full && l.data.HasAll(0, blocks) {
			l.full, l.data, l.zero = true, nil, nil
		}
		kept = append(kept, l)
		done = l.full || covered.HasAll(0, blocks)
	}
	for len(kept) > 0 && !kept[len(kept)-1].hasData() {
		kept = kept[:len(kept)-1]
	}
	if n := len(kept); n > 0 {
		kept[n-1].zero = nil
	}
	clear(s[len(kept):])
	return kept, dropped
}

// uncovered returns which of the blocks no layer of the stack has.
func (s stack) uncovered(blocks int) chunk.Bitmap {
	b := chunk.NewBitmap(blocks)
	b.Set(0, blocks)
	for _, l := range s {
		if l.full {
			return chunk.NewBitmap(blocks)
		}
		for i := range b {
			b[i] &^= l.data[i]
			if l.zero != nil {
				b[i] &^= l.zero[i]
			}
		}
	}
	return b
}

// uncover takes the covered blocks from the layer, covers those that are left, and reports whether there are any. A full
// layer stays as it is.
func (l *layer) uncover(covered chunk.Bitmap) bool {
	if l.full {
		return true // all blocks being covered has ended the walk before
	}
	left := false
	for i, c := range covered {
		l.data[i] &^= c
		w := l.data[i]
		if l.zero != nil {
			l.zero[i] &^= c
			w |= l.zero[i]
		}
		left = left || w != 0
		covered[i] |= w
	}
	return left
}
