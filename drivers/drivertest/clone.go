package drivertest

import (
	"os"
	"path/filepath"

	"skerry/drivers"
)

// cloneFile clones a file, then changes it, and the object as well.
func cloneFile(f *fixture) {
	c, ok := f.b.(drivers.FileCloner)
	if !ok {
		f.Fatal("the backend is no FileCloner")
	}
	want := bytesOf(1, 3*4096+77)
	file, err := os.Create(filepath.Join(f.o.CloneDir(f.T), "file"))
	f.must(err)
	f.closeLater(file)
	_, err = file.WriteAt(want, 0)
	f.must(err)
	f.must(c.CloneFile(f.ctx, "v/1/image/1.1", file))
	f.is(c.CloneFile(f.ctx, "v/1/image/1.1", file), drivers.ErrExists)
	f.is(c.CloneFile(f.ctx, "v//1", file), drivers.ErrInvalid)
	_, err = file.WriteAt([]byte("changed"), 4096)
	f.must(err)
	f.must(file.Truncate(5000))
	f.equal(f.content("v/1/image/1.1"), want)
	if f.o.Reopen != nil {
		f.b = f.o.Reopen(f.T, f.b)
		f.equal(f.content("v/1/image/1.1"), want)
	}
	o := f.open("v/1/image/1.1", drivers.ReadWrite)
	f.must(o.WriteAt([]byte("other"), 0))
	f.must(o.Close())
	got := make([]byte, 5)
	_, err = file.ReadAt(got, 0)
	f.must(err)
	f.equal(got, want[:5])
	f.must(f.b.Unlink(f.ctx, "v/1/image/1.1"))
	_, err = file.ReadAt(got, 0)
	f.must(err)
}
