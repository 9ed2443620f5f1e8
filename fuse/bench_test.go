package fuse_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"skerry/fuse"
	"skerry/fuse/fusetest"
)

// BenchmarkRequests measures one request at a time through the kernel. What is allocated is the library's.
func BenchmarkRequests(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
		do   func(fd int, buf []byte) (int, error)
	}{
		{"read4k", 4 << 10, func(fd int, buf []byte) (int, error) { return unix.Pread(fd, buf, 0) }},
		{"write4k", 4 << 10, func(fd int, buf []byte) (int, error) { return unix.Pwrite(fd, buf, 0) }},
		{"read1m", mib, func(fd int, buf []byte) (int, error) { return unix.Pread(fd, buf, 0) }},
		{"write1m", mib, func(fd int, buf []byte) (int, error) { return unix.Pwrite(fd, buf, 0) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := fusetest.NewPool(b)
			p.Make("vm1", 4*mib)
			m := p.Mount(fuse.Options{})
			f, err := os.OpenFile(m.Path("vm1.raw"), os.O_RDWR, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			buf := make([]byte, c.size)
			if _, err := f.WriteAt(make([]byte, 4*mib), 0); err != nil {
				b.Fatal(err)
			}
			fd := int(f.Fd())
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			for b.Loop() {
				if n, err := c.do(fd, buf); n != c.size || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
