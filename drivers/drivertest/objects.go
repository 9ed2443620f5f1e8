package drivertest

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"skerry/drivers"
)

func missing(f *fixture) {
	f.create("g/there", nil)
	for _, name := range []string{"none", "g/none", "none/none", "g/there2", "g/ther"} {
		for _, mode := range []drivers.Mode{drivers.ReadOnly, drivers.ReadWrite} {
			_, err := f.b.Open(f.ctx, name, mode)
			f.is(err, drivers.ErrNotFound)
		}
		_, err := f.b.Stat(f.ctx, name)
		f.is(err, drivers.ErrNotFound)
		f.is(f.b.Unlink(f.ctx, name), drivers.ErrNotFound)
		_, err = f.b.Load(f.ctx, name)
		f.is(err, drivers.ErrNotFound)
		f.is(f.b.Replace(f.ctx, name, []byte("x"), drivers.Condition{Prefix: []byte("y")}), drivers.ErrNotFound)
	}
	// A group is no object.
	_, err := f.b.Open(f.ctx, "g", drivers.ReadOnly)
	f.is(err, drivers.ErrNotFound)
	_, err = f.b.Stat(f.ctx, "g")
	f.is(err, drivers.ErrNotFound)
	_, err = f.b.Load(f.ctx, "g")
	f.is(err, drivers.ErrNotFound)
	f.is(f.b.Unlink(f.ctx, "g"), drivers.ErrNotFound)
	if got := f.list(""); !slices.Equal(got, []string{"g/there"}) {
		f.Errorf("objects %v", got)
	}
}

func openMany(f *fixture) {
	want := bytesOf(1, 5000)
	f.create("a/o", want)
	for _, err := range parallel(32, func(i int) error {
		mode := drivers.ReadOnly
		if i%2 == 0 {
			mode = drivers.ReadWrite
		}
		o, err := f.b.Open(f.ctx, "a/o", mode)
		if err != nil {
			return err
		}
		p := make([]byte, len(want))
		if err := o.ReadAt(p, 0); err != nil {
			return err
		}
		if !bytes.Equal(p, want) {
			return errors.New("wrong content")
		}
		return o.Close()
	}) {
		f.must(err)
	}
}

func closeTwice(f *fixture) {
	o := f.open("o", drivers.Create)
	f.must(o.Close())
	f.is(o.Close(), drivers.ErrClosed)
	f.is(o.ReadAt(make([]byte, 1), 0), drivers.ErrClosed)
	f.is(o.WriteAt(make([]byte, 1), 0), drivers.ErrClosed)
	f.is(o.Sync(), drivers.ErrClosed)
	_, err := o.Size()
	f.is(err, drivers.ErrClosed)
}

func infoConcurrent(f *fixture) {
	f.create("g/a", bytesOf(1, 4096))
	f.create("g/b", bytesOf(2, 12345))
	for _, err := range parallel(16, func(int) error {
		for name, size := range map[string]int64{"g/a": 4096, "g/b": 12345} {
			i, err := f.b.Stat(f.ctx, name)
			if err != nil {
				return err
			}
			if i.Name != name || i.Size != size || i.Allocated < 0 {
				return errors.New("wrong info of " + name)
			}
		}
		return nil
	}) {
		f.must(err)
	}
}

func copyObject(f *fixture) {
	want := bytesOf(3, 100_000)
	f.create("a/from", want)
	f.create("b/to", f.content("a/from"))
	f.equal(f.content("b/to"), want)
	o := f.open("a/from", drivers.ReadWrite)
	f.must(o.WriteAt([]byte("other"), 10))
	f.must(o.Close())
	f.equal(f.content("b/to"), want)
}

func deleteObject(f *fixture) {
	f.create("g/o", bytesOf(1, 100))
	f.must(f.b.Unlink(f.ctx, "g/o"))
	f.is(f.b.Unlink(f.ctx, "g/o"), drivers.ErrNotFound)
	_, err := f.b.Open(f.ctx, "g/o", drivers.ReadWrite)
	f.is(err, drivers.ErrNotFound)
	_, err = f.b.Load(f.ctx, "g/o")
	f.is(err, drivers.ErrNotFound)
	f.must(f.b.SyncGroup(f.ctx, "g"))
	// The name is free, and nothing of the old object shows.
	o := f.create("g/o", nil)
	size, err := o.Size()
	f.must(err)
	if size != 0 {
		f.Errorf("new object has %d bytes", size)
	}
	f.equal(f.read(o, 0, 100), make([]byte, 100))
}

func sizes(f *fixture) {
	o := f.create("o", nil)
	for _, s := range []struct{ off, n, size int64 }{
		{0, 0, 0}, {0, 1, 1}, {100, 10, 110}, {5, 5, 110}, {109, 2, 111}, {1 << 20, 1, 1<<20 + 1}, {4096, 4096, 1<<20 + 1},
	} {
		f.must(o.WriteAt(make([]byte, s.n), s.off))
		size, err := o.Size()
		f.must(err)
		i, err := f.b.Stat(f.ctx, "o")
		f.must(err)
		if size != s.size || i.Size != s.size {
			f.Errorf("after writing %d at %d: sizes %d and %d, want %d", s.n, s.off, size, i.Size, s.size)
		}
	}
}

func createRace(f *fixture) {
	for _, name := range []string{"a", "deep/er/b"} {
		f.one(parallel(64, func(int) error {
			o, err := f.b.Open(f.ctx, name, drivers.Create)
			if err == nil {
				err = o.Close()
			}
			return err
		}), drivers.ErrExists)
	}
	f.must(f.b.Replace(f.ctx, "small", []byte("x"), drivers.Condition{}))
	_, err := f.b.Open(f.ctx, "small", drivers.Create)
	f.is(err, drivers.ErrExists)
	f.equal(f.content("small"), []byte("x"))
}

var badNames = []string{
	"/", "/a", "a/", "a//b", ".", "..", "a/.", "a/..", "../a", "a/../b", ".a", "a/.b", "a b", "a\x00b", "a\nb", "é", "a\\b", "a*",
	strings.Repeat("x", drivers.MaxName+1), "a:b", "~a",
}

func invalidNames(f *fixture) {
	for _, name := range append([]string{""}, badNames...) {
		for _, mode := range []drivers.Mode{drivers.ReadOnly, drivers.ReadWrite, drivers.Create} {
			_, err := f.b.Open(f.ctx, name, mode)
			f.is(err, drivers.ErrInvalid)
		}
		_, err := f.b.Stat(f.ctx, name)
		f.is(err, drivers.ErrInvalid)
		f.is(f.b.Unlink(f.ctx, name), drivers.ErrInvalid)
		_, err = f.b.Load(f.ctx, name)
		f.is(err, drivers.ErrInvalid)
		f.is(f.b.Replace(f.ctx, name, nil, drivers.Condition{}), drivers.ErrInvalid)
		f.is(f.b.Replace(f.ctx, name, nil, drivers.Condition{Absent: true}), drivers.ErrInvalid)
		if name != "" { // the group of names without a slash
			f.is(f.b.List(f.ctx, name, func(drivers.Info) error { return nil }), drivers.ErrInvalid)
			f.is(f.b.SyncGroup(f.ctx, name), drivers.ErrInvalid)
		}
	}
	if got := f.list(""); len(got) > 0 {
		f.Errorf("objects %q were made", got)
	}
}

func longestName(f *fixture) {
	flat := strings.Repeat("n", drivers.MaxName)
	deep := strings.Repeat("d/", drivers.MaxName/2-1) + "dd"
	odd := "A-z_0.9+@x/a..b/-/_/@/+.tmp"
	for _, name := range []string{flat, deep, odd} {
		f.create(name, []byte(name[:3]))
		f.equal(f.content(name), []byte(name[:3]))
		f.must(f.b.Replace(f.ctx, name, []byte("new"), drivers.Condition{}))
		f.must(f.b.SyncGroup(f.ctx, drivers.Group(name)))
	}
	want := []string{flat, deep, odd}
	slices.Sort(want)
	if got := f.list(""); !slices.Equal(got, want) {
		f.Errorf("objects %q", got)
	}
}

func invalidMode(f *fixture) {
	f.create("o", nil)
	_, err := f.b.Open(f.ctx, "o", drivers.Create+1)
	f.is(err, drivers.ErrInvalid)
}

func unlinkOpen(f *fixture) {
	want := bytesOf(1, 10_000)
	o := f.create("g/o", want)
	f.must(f.b.Unlink(f.ctx, "g/o"))
	f.equal(f.read(o, 0, len(want)), want)
	f.must(o.WriteAt([]byte("more"), 20_000))
	f.equal(f.read(o, 20_000, 4), []byte("more"))
	f.must(o.Sync())
	n := f.create("g/o", []byte("another"))
	f.must(o.WriteAt([]byte("old"), 0))
	f.equal(f.read(n, 0, 7), []byte("another"))
	f.equal(f.read(o, 0, 3), []byte("old"))
}

func unlinkRace(f *fixture) {
	f.create("g/o", nil)
	f.one(parallel(32, func(int) error { return f.b.Unlink(f.ctx, "g/o") }), drivers.ErrNotFound)
}

func syncGroup(f *fixture) {
	for _, g := range []string{"", "never", "never/used"} {
		f.must(f.b.SyncGroup(f.ctx, g))
	}
	f.create("g/o", nil)
	for _, err := range parallel(8, func(int) error { return f.b.SyncGroup(f.ctx, "g") }) {
		f.must(err)
	}
}

func properties(f *fixture) {
	p := f.b.Properties()
	if p.Kind == "" {
		f.Error("the backend does not say what it is")
	}
	f.create("o", []byte("x"))
	if f.b.Properties() != p {
		f.Error("the properties have changed")
	}
}

func manyObjects(f *fixture) {
	const n = 300
	var want []string
	for i := range n {
		name := "m/" + numbered(i)
		want = append(want, name)
		o := f.open(name, drivers.Create)
		f.must(o.WriteAt([]byte{byte(i), byte(i >> 8)}, int64(i)))
		f.must(o.Close())
	}
	if got := f.list("m"); !slices.Equal(got, want) {
		f.Errorf("%d objects are listed, want %d", len(got), n)
	}
	for i := range n {
		p := f.content("m/" + numbered(i))
		if len(p) != i+2 || p[i] != byte(i) || p[i+1] != byte(i>>8) {
			f.Fatalf("object %d has other content", i)
		}
	}
}

// namesApart: names that look alike are different objects.
func namesApart(f *fixture) {
	names := []string{"a", "A", "a.", "a-", "a_", "aa", "b/a", "B/a", "b/A", "b.a", "b+a", "b@a", "c/b/a"}
	for i, name := range names {
		f.create(name, []byte{byte(i)})
	}
	for i, name := range names {
		f.equal(f.content(name), []byte{byte(i)})
	}
}

func persists(f *fixture) {
	want := bytesOf(7, 300_000)
	o := f.open("v/data/1", drivers.Create)
	f.must(o.WriteAt(want, 4097))
	f.must(o.Sync())
	f.must(o.Close())
	f.must(f.b.SyncGroup(f.ctx, "v/data"))
	// Neither synced nor closed: writes survive the death of the process.
	late := f.create("v/data/2", nil)
	f.must(late.WriteAt([]byte("late"), 3))
	f.must(f.b.Replace(f.ctx, "v/root", []byte("root"), drivers.Condition{Absent: true}))
	f.create("v/data/3", nil)
	f.must(f.b.Unlink(f.ctx, "v/data/3"))

	f.b = f.o.Reopen(f.T, f.b)
	if got := f.list("v"); !slices.Equal(got, []string{"v/data/1", "v/data/2", "v/root"}) {
		f.Errorf("objects %v", got)
	}
	p := f.content("v/data/1")
	f.equal(p[:4097], make([]byte, 4097))
	f.equal(p[4097:], want)
	f.equal(f.content("v/data/2"), []byte("\x00\x00\x00late"))
	data, err := f.b.Load(f.ctx, "v/root")
	f.must(err)
	f.equal(data, []byte("root"))
	_, err = f.b.Open(f.ctx, "v/data/1", drivers.Create)
	f.is(err, drivers.ErrExists)
	f.is(f.b.Replace(f.ctx, "v/root", nil, drivers.Condition{Absent: true}), drivers.ErrExists)
	f.must(f.b.Unlink(f.ctx, "v/data/2"))
	f.must(f.b.SyncGroup(f.ctx, "v/data"))
}
