package drivertest

import (
	"bytes"
	"errors"
	"slices"

	"skerry/drivers"
)

func replaceLoad(f *fixture) {
	for _, n := range []int{0, 1, 4096, 5000, 3, 100_000} {
		want := bytesOf(n, n)
		f.must(f.b.Replace(f.ctx, "g/o", want, drivers.Condition{}))
		got, err := f.b.Load(f.ctx, "g/o")
		f.must(err)
		f.equal(got, want)
		i, err := f.b.Stat(f.ctx, "g/o")
		f.must(err)
		if i.Size != int64(n) {
			f.Errorf("size %d, want %d", i.Size, n)
		}
	}
	// Load and Open show the same, and the caller may change both buffers.
	data := []byte("mine")
	f.must(f.b.Replace(f.ctx, "g/o", data, drivers.Condition{}))
	data[0] = 'X'
	got, err := f.b.Load(f.ctx, "g/o")
	f.must(err)
	f.equal(got, []byte("mine"))
	got[0] = 'Y'
	f.equal(f.content("g/o"), []byte("mine"))
	o := f.open("g/o", drivers.ReadWrite)
	f.must(o.WriteAt([]byte("w"), 4))
	f.must(o.Close())
	got, err = f.b.Load(f.ctx, "g/o")
	f.must(err)
	f.equal(got, []byte("minew"))
}

func replaceAtomic(f *fixture) {
	content := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1+i*700) }
	f.must(f.b.Replace(f.ctx, "g/o", content(1), drivers.Condition{}))
	for _, err := range parallel(8, func(i int) error {
		for k := range 30 {
			if i < 2 {
				if err := f.b.Replace(f.ctx, "g/o", content(1+(i*30+k)%60), drivers.Condition{}); err != nil {
					return err
				}
				continue
			}
			got, err := f.b.Load(f.ctx, "g/o")
			if err != nil {
				return err
			}
			if len(got) == 0 || !bytes.Equal(got, content(int(got[0]))) {
				return errors.New("a load saw parts of two contents")
			}
		}
		return nil
	}) {
		f.must(err)
	}
}

func replaceAbsent(f *fixture) {
	errs := parallel(32, func(i int) error {
		return f.b.Replace(f.ctx, "g/o", []byte{byte(i)}, drivers.Condition{Absent: true})
	})
	f.one(errs, drivers.ErrExists)
	winner := slices.Index(errs, nil)
	f.equal(f.content("g/o"), []byte{byte(winner)})

	// Create and Replace exclude each other.
	for round := range 10 {
		name := "h/" + numbered(round)
		f.one(parallel(8, func(i int) error {
			if i%2 == 0 {
				return f.b.Replace(f.ctx, name, []byte("x"), drivers.Condition{Absent: true})
			}
			o, err := f.b.Open(f.ctx, name, drivers.Create)
			if err == nil {
				err = o.Close()
			}
			return err
		}), drivers.ErrExists)
	}
	f.must(f.b.Unlink(f.ctx, "g/o"))
	f.must(f.b.Replace(f.ctx, "g/o", nil, drivers.Condition{Absent: true}))
}

func replacePrefix(f *fixture) {
	prefix := func(s string) drivers.Condition { return drivers.Condition{Prefix: []byte(s)} }
	f.is(f.b.Replace(f.ctx, "o", nil, prefix("a")), drivers.ErrNotFound)
	f.must(f.b.Replace(f.ctx, "o", []byte("holder 1, more"), drivers.Condition{}))
	f.is(f.b.Replace(f.ctx, "o", []byte("no"), prefix("holder 2")), drivers.ErrConflict)
	f.is(f.b.Replace(f.ctx, "o", []byte("no"), prefix("holder 1, more and more")), drivers.ErrConflict)
	f.equal(f.content("o"), []byte("holder 1, more"))
	f.must(f.b.Replace(f.ctx, "o", []byte("holder 2"), prefix("holder 1")))
	f.must(f.b.Replace(f.ctx, "o", []byte("3"), prefix("holder 2")))
	f.equal(f.content("o"), []byte("3"))
	long := bytesOf(1, drivers.MaxPrefix)
	f.must(f.b.Replace(f.ctx, "o", append(long, "rest"...), drivers.Condition{}))
	f.must(f.b.Replace(f.ctx, "o", []byte("4"), drivers.Condition{Prefix: long}))
	// An empty content begins with nothing but nothing.
	f.must(f.b.Replace(f.ctx, "empty", nil, drivers.Condition{}))
	f.is(f.b.Replace(f.ctx, "empty", nil, prefix("\x00")), drivers.ErrConflict)

	// Within one process one of several wins.
	f.must(f.b.Replace(f.ctx, "r", []byte("old"), drivers.Condition{}))
	f.one(parallel(16, func(i int) error {
		return f.b.Replace(f.ctx, "r", []byte{'n', byte(i)}, prefix("old"))
	}), drivers.ErrConflict)
}

func replaceInvalid(f *fixture) {
	f.is(f.b.Replace(f.ctx, "o", make([]byte, drivers.MaxSmall+1), drivers.Condition{}), drivers.ErrInvalid)
	f.is(f.b.Replace(f.ctx, "o", nil, drivers.Condition{Prefix: make([]byte, drivers.MaxPrefix+1)}), drivers.ErrInvalid)
	f.is(f.b.Replace(f.ctx, "o", nil, drivers.Condition{Absent: true, Prefix: []byte("x")}), drivers.ErrInvalid)
	if got := f.list(""); len(got) > 0 {
		f.Errorf("objects %v were made", got)
	}
}

func replaceOpen(f *fixture) {
	f.must(f.b.Replace(f.ctx, "o", []byte("old"), drivers.Condition{}))
	o := f.open("o", drivers.ReadOnly)
	f.closeLater(o)
	f.must(f.b.Replace(f.ctx, "o", []byte("new!"), drivers.Condition{}))
	f.equal(f.read(o, 0, 3), []byte("old"))
	f.equal(f.content("o"), []byte("new!"))
}

// replaceClean: temporary files of a replacement, done or refused, do not show.
func replaceClean(f *fixture) {
	for range 5 {
		f.must(f.b.Replace(f.ctx, "g/o", []byte("x"), drivers.Condition{}))
		f.is(f.b.Replace(f.ctx, "g/o", []byte("x"), drivers.Condition{Absent: true}), drivers.ErrExists)
		f.is(f.b.Replace(f.ctx, "g/o", []byte("x"), drivers.Condition{Prefix: []byte("y")}), drivers.ErrConflict)
	}
	if got := f.list(""); !slices.Equal(got, []string{"g/o"}) {
		f.Errorf("objects %v", got)
	}
}

func loadLarge(f *fixture) {
	o := f.create("o", nil)
	f.must(o.WriteAt([]byte("x"), drivers.MaxSmall))
	_, err := f.b.Load(f.ctx, "o")
	f.is(err, drivers.ErrInvalid)
}
