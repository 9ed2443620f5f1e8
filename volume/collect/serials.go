package collect

import (
	"slices"

	"skerry/chunk"
)

// serials is a set of serials of one volume, which name its objects. It is filled, then sealed, then asked.
type serials struct{ list []chunk.Serial }

// add puts s into the set. Whenever the memory is full, what is there twice goes.
func (s *serials) add(v chunk.Serial) {
	if n := len(s.list); n > 0 && s.list[n-1] == v {
		return
	}
	if len(s.list) == cap(s.list) && len(s.list) > 0 {
		s.seal()
		if len(s.list) > cap(s.list)/2 {
			s.list = slices.Grow(s.list, len(s.list))
		}
	}
	s.list = append(s.list, v)
}

// seal makes the set ready for has.
func (s *serials) seal() {
	slices.Sort(s.list)
	s.list = slices.Compact(s.list)
}

// has reports whether v is in the sealed set.
func (s *serials) has(v chunk.Serial) bool {
	_, ok := slices.BinarySearch(s.list, v)
	return ok
}
