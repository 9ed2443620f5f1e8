package nbd_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/nbdtest"
)

const mib = 1 << 20

// pattern returns n bytes that differ from place to place and by seed.
func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

// clients runs a test with each kind of reply and each way to begin.
func clients(t *testing.T, d func() nbd.Device, test func(t *testing.T, c *client.Client)) {
	for name, opts := range map[string]client.Options{
		"simple":      {Export: "disk"},
		"structured":  {Export: "disk", Structured: true},
		"export name": {Export: "disk", ExportName: true},
		"all":         {Export: "disk", MetaContexts: []string{"base:allocation"}},
	} {
		t.Run(name, func(t *testing.T) { test(t, serveOne(t, d()).dialWith(opts)) })
	}
}

func TestReadsBackWhatWasWritten(t *testing.T) {
	clients(t, func() nbd.Device { return nbdtest.NewMemory(64 * mib) }, func(t *testing.T, c *client.Client) {
		for i, x := range []struct {
			off int64
			n   int
		}{
			{0, 1}, {1, 511}, {4096, 4096}, {8191, 2}, {12288, 32 << 10}, {mib - 1, 64 << 10}, {2*mib + 3, 64<<10 + 1},
			{4 * mib, 256 << 10}, {5 * mib, 300 << 10}, {8*mib - 17, 3*mib + 34}, {16 * mib, 32 * mib}, {64*mib - 1, 1},
		} {
			want := pattern(x.n, uint64(i))
			must(t, c.Write(want, x.off, 0))
			got := make([]byte, x.n)
			must(t, c.Read(got, x.off))
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bytes at %d differ", x.n, x.off)
			}
		}
	})
}

func TestHolesReadAsZeros(t *testing.T) {
	clients(t, func() nbd.Device { return nbdtest.NewMemory(8 * mib) }, func(t *testing.T, c *client.Client) {
		want := make([]byte, 8*mib)
		for i := range 100 { // more runs than fit in one reply
			p := pattern(4096, uint64(i))
			copy(want[i*3*4096+4096:], p)
			must(t, c.Write(p, int64(i)*3*4096+4096, 0))
		}
		for _, x := range [][2]int{{0, 8 * mib}, {0, 4096}, {100, 50}, {4000, 200}, {5000, 9000}, {mib + 1, 2*mib - 7}, {6 * mib, mib}} {
			got := bytes.Repeat([]byte{0xaa}, x[1])
			must(t, c.Read(got, int64(x[0])))
			if !bytes.Equal(got, want[x[0]:x[0]+x[1]]) {
				t.Fatalf("%d bytes at %d differ", x[1], x[0])
			}
		}
	})
}

func TestUnfragmentedReadIsOneChunk(t *testing.T) {
	c := serveOne(t, nbdtest.NewMemory(8*mib)).dial()
	p := pattern(4096, 1)
	must(t, c.Write(p, 8192, 0))
	want := make([]byte, 64<<10)
	copy(want[8192:], p)
	got := bytes.Repeat([]byte{0xaa}, len(want))
	must(t, c.ReadFlags(got, 0, client.DF)) // the client checks that there is one chunk
	if !bytes.Equal(got, want) {
		t.Fatal("data and holes differ")
	}
	must(t, c.ReadFlags(got, mib, client.DF))
	if !bytes.Equal(got, make([]byte, len(got))) {
		t.Fatal("a hole is not zero")
	}
}

func TestHolesAreAnsweredAsHoles(t *testing.T) {
	c := serveOne(t, nbdtest.NewMemory(64*mib)).dial()
	must(t, c.Write(pattern(4096, 1), 4096, 0))
	for _, x := range []struct {
		off    int64
		n      int
		chunks int
	}{{mib, 32 * mib, 1}, {0, 4096, 1}, {4096, 4096, 1}, {0, 8192, 2}, {0, 12288, 3}} {
		wait := make(chan struct{})
		op := &client.Op{Kind: client.Read, Offset: x.off, Data: make([]byte, x.n), Done: func(*client.Op) { close(wait) }}
		c.Submit(op)
		<-wait
		must(t, op.Err)
		if op.Chunks != x.chunks {
			t.Errorf("%d bytes at %d: %d chunks, want %d", x.n, x.off, op.Chunks, x.chunks)
		}
	}
}

func TestZeroesAndTrim(t *testing.T) {
	clients(t, func() nbd.Device { return nbdtest.NewMemory(mib) }, func(t *testing.T, c *client.Client) {
		want := pattern(mib, 1)
		must(t, c.Write(want, 0, 0))
		must(t, c.WriteZeroes(1000, 9000, 0))
		must(t, c.WriteZeroes(20000, 10, client.NoHole|client.FUA))
		must(t, c.WriteZeroes(40000, 5000, client.FastZero))
		must(t, c.Trim(100000, 8192, client.FUA))
		must(t, c.Cache(0, mib))
		clear(want[1000:10000])
		clear(want[20000:20010])
		clear(want[40000:45000])
		clear(want[100000:108192])
		got := make([]byte, mib)
		must(t, c.Read(got, 0))
		if !bytes.Equal(got, want) {
			t.Fatal("content differs")
		}
	})
}

func TestFastZeroThatIsNotFastAnswersENOTSUP(t *testing.T) {
	c := serveOne(t, nbdtest.NewMemory(mib)).dial()
	if err := c.WriteZeroes(0, 4096, client.FastZero|client.NoHole); !errors.Is(err, client.ENOTSUP) {
		t.Errorf("slow: %v", err)
	}
	c = serveOne(t, nbdtest.Null(mib)).dial()
	if err := c.WriteZeroes(0, 4096, client.FastZero); !errors.Is(err, client.ENOTSUP) {
		t.Errorf("device does not know: %v", err)
	}
}

func TestFlushOnOneConnectionCoversAnother(t *testing.T) {
	m := nbdtest.NewMemory(mib)
	m.KeepFlushed()
	r := serveOne(t, m)
	a, b := r.dial(), r.dial()
	p := pattern(8192, 3)
	must(t, a.Write(p, 4096, 0))
	if bytes.Contains(m.Durable(), p) {
		t.Fatal("durable before the flush")
	}
	must(t, b.Flush())
	if !bytes.Equal(m.Durable()[4096:][:8192], p) {
		t.Fatal("not durable after the other connection's flush")
	}
	q := pattern(4096, 4)
	must(t, a.Write(q, 65536, client.FUA))
	if !bytes.Equal(m.Durable()[65536:][:4096], q) {
		t.Fatal("FUA write is not durable")
	}
	if m.Flushes() != 1 {
		t.Fatalf("%d flushes", m.Flushes())
	}
}

// extents makes a list of pairs of length and flags.
func extents(v ...uint32) []client.Extent {
	var all []client.Extent
	for i := 0; i < len(v); i += 2 {
		all = append(all, client.Extent{Length: v[i], Flags: v[i+1]})
	}
	return all
}

func TestBlockStatus(t *testing.T) {
	c := serveOne(t, nbdtest.NewMemory(mib)).dial()
	must(t, c.Write(make([]byte, 8192), 8192, 0))
	must(t, c.WriteZeroes(65536, 4096, client.NoHole))
	const hole = client.StateHole | client.StateZero
	for _, x := range []struct {
		off, n int64
		flags  uint16
		want   []client.Extent
	}{
		{0, mib, 0, extents(8192, hole, 8192, 0, 65536-16384, hole, 4096, 0, mib-69632, hole)},
		{0, mib, client.ReqOne, extents(8192, hole)},
		{100, 200, 0, extents(200, hole)},
		{8000, 1000, 0, extents(192, hole, 808, 0)},
		{9000, mib - 9000, client.ReqOne | client.FUA, extents(16384-9000, 0)},
	} {
		got, err := c.BlockStatus(x.off, x.n, x.flags)
		must(t, err)
		if !slices.Equal(got[0], x.want) {
			t.Errorf("%d bytes at %d: %v, want %v", x.n, x.off, got[0], x.want)
		}
	}
}

func TestBlockStatusOfManyExtentsIsCutAndCanGoOn(t *testing.T) {
	const size = 128 * mib
	c := serveOne(t, nbdtest.NewMemory(size)).dial()
	p := make([]byte, 4096)
	for off := int64(0); off < size; off += 8192 {
		must(t, c.Write(p, off, 0))
	}
	first, err := c.BlockStatus(0, size, 0)
	must(t, err)
	if n := len(first[0]); n < 1000 || n > 8192 {
		t.Errorf("%d extents in one reply", n)
	}
	all, err := c.Map(0, size)
	must(t, err)
	if len(all) != size/4096 {
		t.Errorf("%d extents, want %d", len(all), size/4096)
	}
}

func TestManyBlockStatusesAtOnce(t *testing.T) {
	c := serveOne(t, nbdtest.NewMemory(mib)).dial()
	errs := make(chan error)
	for range 50 {
		go func() {
			_, err := c.BlockStatus(0, mib, 0)
			errs <- err
		}()
	}
	for range 50 {
		must(t, <-errs)
	}
}

func TestReadOnlyExportRefusesChanges(t *testing.T) {
	data := pattern(mib, 9)
	clients(t, func() nbd.Device { return nbdtest.NewReadOnly(data) }, func(t *testing.T, c *client.Client) {
		for name, err := range map[string]error{
			"write":       c.Write(make([]byte, 100), 0, 0),
			"large write": c.Write(make([]byte, 300<<10), 0, 0),
			"trim":        c.Trim(0, 4096, 0),
			"zero":        c.WriteZeroes(0, 4096, 0),
			"beyond":      c.Write(make([]byte, 100), mib, 0),
		} {
			if !errors.Is(err, client.EPERM) {
				t.Errorf("%s: %v", name, err)
			}
		}
		must(t, c.Flush())
		got := make([]byte, mib)
		must(t, c.Read(got, 0))
		if !bytes.Equal(got, data) {
			t.Error("content differs")
		}
	})
}

func TestBeyondTheEnd(t *testing.T) {
	clients(t, func() nbd.Device { return nbdtest.NewMemory(mib) }, func(t *testing.T, c *client.Client) {
		p := make([]byte, 4096)
		for name, x := range map[string]struct {
			err  error
			want client.Errno
		}{
			"read across":        {c.Read(p, mib-4095), client.EINVAL},
			"read at the end":    {c.Read(p, mib), client.EINVAL},
			"write across":       {c.Write(p, mib-4095, 0), client.ENOSPC},
			"large write across": {c.Write(make([]byte, mib), 1, 0), client.ENOSPC},
			"zero across":        {c.WriteZeroes(0, mib+1, 0), client.ENOSPC},
			"trim across":        {c.Trim(0, mib+1, 0), client.EINVAL},
			"cache across":       {c.Cache(mib, 1), client.EINVAL},
			"read at 2^63":       {c.Read(p, -1<<63), client.EINVAL},
			"read at 2^64-1":     {c.Read(p, -1), client.EINVAL},
			"write at 2^63":      {c.Write(p, -1<<63, 0), client.EINVAL},
			"write at 2^63-1":    {c.Write(p, 1<<63-1, 0), client.EINVAL},
			"zero at 2^63-1":     {c.WriteZeroes(1<<63-1, 1<<32-1, 0), client.EINVAL},
			"trim at 2^64-4096":  {c.Trim(-4096, 4096, 0), client.EINVAL},
		} {
			if !errors.Is(x.err, x.want) {
				t.Errorf("%s: %v, want %v", name, x.err, x.want)
			}
		}
		must(t, c.Write(p, mib-4096, 0))
	})
}

func TestRequestsOfNoBytesSucceed(t *testing.T) {
	clients(t, func() nbd.Device { return nbdtest.NewMemory(mib) }, func(t *testing.T, c *client.Client) {
		must(t, c.Read(nil, 0))
		must(t, c.Write(nil, mib, 0))
		must(t, c.Trim(5, 0, 0))
		must(t, c.WriteZeroes(5, 0, 0))
		must(t, c.Cache(5, 0))
	})
}
