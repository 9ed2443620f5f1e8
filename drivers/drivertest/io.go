package drivertest

import (
	"errors"
	"fmt"
	"math"

	"skerry/drivers"
)

func unaligned(f *fixture) {
	_, err := f.b.Open(f.ctx, "o", drivers.ReadWrite)
	f.is(err, drivers.ErrNotFound)
	o := f.create("o", nil)
	for _, off := range []int64{0, 1, 511, 4095, 4096, 65535, 1<<20 - 512, 4<<20 - 1} {
		want := bytesOf(int(off), 1024)
		f.must(o.WriteAt(want, off))
		f.equal(f.read(o, off, 1024), want)
	}
}

func invalidRanges(f *fixture) {
	o := f.create("o", []byte("content"))
	p := make([]byte, 8)
	for _, off := range []int64{-1, math.MinInt64, math.MaxInt64 - 3} {
		f.is(o.ReadAt(p, off), drivers.ErrInvalid)
		f.is(o.WriteAt(p, off), drivers.ErrInvalid)
		if h, ok := o.(drivers.Puncher); ok && !f.o.NoPunch {
			f.is(h.PunchHole(off, 8), drivers.ErrInvalid)
		}
		if a, ok := o.(drivers.Allocator); ok && !f.o.NoAllocate {
			f.is(a.Allocate(off, 8), drivers.ErrInvalid)
		}
	}
	f.equal(f.content("o"), []byte("content"))
}

func noBytes(f *fixture) {
	o := f.create("o", []byte("content"))
	f.must(o.ReadAt(nil, 3))
	f.must(o.ReadAt(nil, 1000))
	f.must(o.WriteAt(nil, 3))
	f.must(o.WriteAt(nil, 1000))
	f.equal(f.content("o"), []byte("content"))
}

func pastEnd(f *fixture) {
	o := f.create("o", bytesOf(1, 1000))
	want := append(bytesOf(1, 1000)[990:], make([]byte, 5000)...)
	f.equal(f.read(o, 990, 5010), want)
	f.equal(f.read(o, 1000, 100), make([]byte, 100))
	f.equal(f.read(o, 1<<30, 100), make([]byte, 100))
	size, err := o.Size()
	f.must(err)
	if size != 1000 {
		f.Errorf("size %d after reads past the end, want 1000", size)
	}
	empty := f.create("empty", nil)
	f.equal(f.read(empty, 0, 4096), make([]byte, 4096))
}

func holes(f *fixture) {
	o := f.create("o", nil)
	f.must(o.WriteAt([]byte("end"), 3<<20))
	f.must(o.WriteAt([]byte("middle"), 1<<20+5))
	want := make([]byte, 3<<20+3)
	copy(want[3<<20:], "end")
	copy(want[1<<20+5:], "middle")
	f.equal(f.content("o"), want)
}

func far(f *fixture) {
	o := f.create("o", nil)
	const off = 100<<30 + 7
	f.must(o.WriteAt([]byte("far"), off))
	f.equal(f.read(o, off-4, 11), []byte("\x00\x00\x00\x00far\x00\x00\x00\x00"))
	size, err := o.Size()
	f.must(err)
	if size != off+3 {
		f.Errorf("size %d, want %d", size, int64(off+3))
	}
}

func overwrite(f *fixture) {
	want := bytesOf(1, 1<<20)
	o := f.create("o", want)
	for i, r := range [][2]int{{0, 100}, {1<<20 - 10, 10}, {5000, 200_000}, {4096, 4096}, {777, 1}} {
		p := bytesOf(100+i, r[1])
		f.must(o.WriteAt(p, int64(r[0])))
		copy(want[r[0]:], p)
	}
	f.equal(f.content("o"), want)
	big := bytesOf(5, 8<<20)
	f.must(o.WriteAt(big, 0))
	f.equal(f.read(o, 0, len(big)), big)
}

func readOnly(f *fixture) {
	f.create("o", []byte("content"))
	o := f.open("o", drivers.ReadOnly)
	f.closeLater(o)
	f.is(o.WriteAt([]byte("x"), 0), drivers.ErrReadOnly)
	if h, ok := o.(drivers.Puncher); ok && !f.o.NoPunch {
		f.is(h.PunchHole(0, 3), drivers.ErrReadOnly)
	}
	if w, ok := o.(drivers.TryWriter); ok {
		if done, err := w.TryWriteAt([]byte("x"), 0); done {
			f.is(err, drivers.ErrReadOnly)
		}
	}
	f.equal(f.read(o, 0, 7), []byte("content"))
	f.must(o.Sync())
	// It sees what others write.
	w := f.open("o", drivers.ReadWrite)
	f.must(w.WriteAt([]byte("C"), 0))
	f.must(w.Close())
	f.equal(f.read(o, 0, 7), []byte("Content"))
}

func disjoint(f *fixture) {
	const n, size = 16, 10_000 // not a multiple of any block
	o := f.create("o", nil)
	second := f.open("o", drivers.ReadWrite)
	f.closeLater(second)
	for _, err := range parallel(n, func(i int) error {
		to := o
		if i%2 == 0 {
			to = second
		}
		p := bytesOf(i, size)
		for from := 0; from < size; from += 1111 {
			if err := to.WriteAt(p[from:min(from+1111, size)], int64(i*size+from)); err != nil {
				return err
			}
		}
		return nil
	}) {
		f.must(err)
	}
	for i := range n {
		f.equal(f.read(o, int64(i*size), size), bytesOf(i, size))
	}
}

func randomIO(f *fixture) {
	const size = 1 << 20
	rng := f.rng()
	want := make([]byte, size)
	end := 0
	o := f.create("o", nil)
	for i := range 500 {
		off := rng.IntN(size)
		n := min(1+rng.IntN(1<<(4+rng.IntN(13))), size-off)
		kind := rng.IntN(4)
		p, isPuncher := o.(drivers.Puncher)
		switch {
		case kind == 0:
			f.equal(f.read(o, int64(off), n), want[off:off+n])
		case kind == 1 && isPuncher && !f.o.NoPunch:
			f.must(p.PunchHole(int64(off), int64(n)))
			clear(want[off : off+n])
		default:
			data := bytesOf(i, n)
			f.must(o.WriteAt(data, int64(off)))
			copy(want[off:], data)
			end = max(end, off+n)
		}
	}
	f.equal(f.content("o"), want[:end])
}

func syncWhileWriting(f *fixture) {
	o := f.create("o", nil)
	for _, err := range parallel(8, func(i int) error {
		for k := range 20 {
			if err := o.WriteAt(bytesOf(i, 100), int64(i*10_000+k*100)); err != nil {
				return err
			}
			if i%2 == 0 {
				if err := o.Sync(); err != nil {
					return err
				}
			}
		}
		return nil
	}) {
		f.must(err)
	}
	for i := range 8 {
		f.equal(f.read(o, int64(i*10_000), 100), bytesOf(i, 100))
	}
}

// try: what is done inline is what would have been done.
func try(f *fixture) {
	o := f.create("o", make([]byte, 100_000))
	want := make([]byte, 100_000)
	rng := f.rng()
	r, isReader := o.(drivers.TryReader)
	w, isWriter := o.(drivers.TryWriter)
	for i := range 300 {
		off := rng.IntN(99_000)
		n := 1 + rng.IntN(1000)
		data := bytesOf(i, n)
		done := false
		var err error
		if isWriter {
			done, err = w.TryWriteAt(data, int64(off))
			f.must(err)
		}
		if !done {
			f.equal(f.read(o, int64(off), n), want[off:off+n]) // nothing was written
			f.must(o.WriteAt(data, int64(off)))
		}
		copy(want[off:], data)
		if isReader {
			from := max(0, off-10)
			p := bytesOf(i, n+20)
			if done, err = r.TryReadAt(p, int64(from)); done {
				f.must(err)
				f.equal(p, append(append([]byte(nil), want[from:min(from+n+20, len(want))]...), make([]byte, max(0, from+n+20-len(want)))...))
			}
		}
	}
	if isReader {
		p := bytesOf(0, 100)
		if done, err := r.TryReadAt(p, 99_950); done {
			f.must(err)
			f.equal(p, append(append([]byte(nil), want[99_950:]...), make([]byte, 50)...))
		}
	}
	f.equal(f.content("o"), want)
}

func dropCache(f *fixture) {
	want := bytesOf(1, 1<<20)
	o := f.create("o", want)
	d, ok := o.(drivers.CacheDropper)
	if !ok {
		return // it has no cache that could be dropped
	}
	drop := func() {
		if err := d.DropCache(); !errors.Is(err, errors.ErrUnsupported) {
			f.must(err)
		}
	}
	drop() // dirty data stays
	f.equal(f.read(o, 0, len(want)), want)
	f.must(o.Sync())
	drop()
	f.equal(f.read(o, 0, len(want)), want)
}

func (f *fixture) puncher(o drivers.Object) drivers.Puncher {
	f.Helper()
	p, ok := o.(drivers.Puncher)
	if !ok {
		f.Fatal("the object is no Puncher")
	}
	return p
}

func punch(f *fixture) {
	want := bytesOf(1, 100_000)
	o := f.create("o", want)
	p := f.puncher(o)
	for _, r := range [][2]int64{{0, 1}, {4096, 4096}, {10_000, 50_000}, {99_999, 1}, {70_001, 3}, {60_000, 0}} {
		f.must(p.PunchHole(r[0], r[1]))
		clear(want[r[0] : r[0]+r[1]])
	}
	f.equal(f.content("o"), want)
	f.must(o.WriteAt([]byte("again"), 12_000))
	copy(want[12_000:], "again")
	f.must(o.Sync())
	f.equal(f.content("o"), want)
}

func punchPastEnd(f *fixture) {
	want := bytesOf(1, 10_000)
	o := f.create("o", want)
	p := f.puncher(o)
	f.must(p.PunchHole(20_000, 5000))
	f.must(p.PunchHole(9000, 1<<20))
	clear(want[9000:])
	f.equal(f.content("o"), want)
	size, err := o.Size()
	f.must(err)
	if size != 10_000 {
		f.Errorf("size %d after punches, want 10000", size)
	}
}

func punchFrees(f *fixture) {
	o := f.create("o", bytesOf(1, 4<<20))
	f.must(o.Sync())
	before, err := f.b.Stat(f.ctx, "o")
	f.must(err)
	f.must(f.puncher(o).PunchHole(1<<20, 2<<20))
	f.must(o.Sync())
	after, err := f.b.Stat(f.ctx, "o")
	f.must(err)
	if freed := before.Allocated - after.Allocated; freed < 3<<19 {
		f.Errorf("a punch of 2 MiB freed %d bytes", freed)
	}
	if after.Size != 4<<20 {
		f.Errorf("size %d", after.Size)
	}
}

func allocate(f *fixture) {
	o := f.create("o", []byte("content"))
	a, ok := o.(drivers.Allocator)
	if !ok {
		f.Fatal("the object is no Allocator")
	}
	f.must(a.Allocate(0, 1<<20))
	want := make([]byte, 1<<20)
	copy(want, "content")
	f.equal(f.read(o, 0, 1<<20), want)
	size, err := o.Size()
	f.must(err)
	if size != 7 && size != 1<<20 {
		f.Errorf("size %d after an allocation of 1 MiB", size)
	}
	i, err := f.b.Stat(f.ctx, "o")
	f.must(err)
	if i.Allocated < 1<<20 {
		f.Errorf("%d bytes are allocated, want 1 MiB", i.Allocated)
	}
	for _, err := range parallel(4, func(i int) error {
		if err := a.Allocate(int64(i)<<20, 1<<20); err != nil {
			return fmt.Errorf("allocate: %w", err)
		}
		return o.WriteAt(bytesOf(i, 100), int64(i)<<20+50)
	}) {
		f.must(err)
	}
	for i := range 4 {
		f.equal(f.read(o, int64(i)<<20+50, 100), bytesOf(i, 100))
	}
}
