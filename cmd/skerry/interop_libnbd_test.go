package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

// golden makes a pool with the volume golden, its snapshot golden@v1 and the clone vm1 of that. It returns the image, 64 MiB
// with data at both ends, in the middle and across a boundary of chunks.
func golden(t *testing.T) (w *world, image string) {
	w = newPool(t)
	image = w.image("golden.raw", 64*mib, map[int64][]byte{
		0: noise(512, 1), 6 * mib: noise(3*mib, 2), 40*mib + 12345: noise(70_000, 3), 64*mib - 4096: noise(4096, 4),
	})
	w.ok("import", "-q", image, "golden")
	w.ok("snapshot", "-q", "golden@v1")
	w.ok("clone", "-q", "golden@v1", "vm1")
	return w, image
}

// nbdExport is an export as nbdinfo --json describes it.
type nbdExport struct {
	Name      string   `json:"export-name"`
	Size      int64    `json:"export-size"`
	Contexts  []string `json:"contexts"`
	ReadOnly  bool     `json:"is_read_only"`
	Cache     bool     `json:"can_cache"`
	DF        bool     `json:"can_df"`
	FastZero  bool     `json:"can_fast_zero"`
	Flush     bool     `json:"can_flush"`
	FUA       bool     `json:"can_fua"`
	MultiConn bool     `json:"can_multi_conn"`
	Trim      bool     `json:"can_trim"`
	Zero      bool     `json:"can_zero"`
	MinBlock  int      `json:"block_size_minimum"`
	Preferred int      `json:"block_size_preferred"`
	MaxBlock  int      `json:"block_size_maximum"`
}

// nbdinfo returns the exports that nbdinfo sees.
func (w *world) nbdinfo(args ...string) []nbdExport {
	w.t.Helper()
	var r struct {
		Structured bool
		Exports    []nbdExport
	}
	out := w.tool("nbdinfo", append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil || !r.Structured {
		w.t.Fatalf("nbdinfo: %v\n%s", err, out)
	}
	return r.Exports
}

// nbdExtent is an extent as nbdinfo --map --json describes it.
type nbdExtent struct {
	Offset, Length int64
	Type           int
}

const nbdHole = 3 // NBD_STATE_HOLE and NBD_STATE_ZERO

// nbdmap returns the extents of an export as nbdinfo sees them.
func (w *world) nbdmap(uri string) []nbdExtent {
	w.t.Helper()
	var m []nbdExtent
	out := w.tool("nbdinfo", "--map", "--json", uri)
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		w.t.Fatalf("nbdinfo --map: %v\n%s", err, out)
	}
	return m
}

func TestInteropNbdinfo(t *testing.T) {
	w, _ := golden(t)
	s := w.serve(3, "vm1", "golden", "golden@v1", "--nbd", "unix:s")
	facts := nbdExport{
		Name: "vm1", Size: 64 * mib, Contexts: []string{"base:allocation"}, Cache: true, DF: true, FastZero: true, Flush: true, FUA: true,
		MultiConn: true, Trim: true, Zero: true, MinBlock: 1, Preferred: 4096, MaxBlock: 32 * mib,
	}
	same := func(got, want nbdExport) {
		t.Helper()
		if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); a != b {
			t.Errorf("nbdinfo: %s\nwant %s", a, b)
		}
	}
	all := w.nbdinfo("--list", s.uri(""))
	if len(all) != 3 {
		t.Fatalf("nbdinfo --list: %+v", all)
	}
	same(w.nbdinfo(s.uri("vm1"))[0], facts)
	same(all[0], facts)
	facts.Name = "golden"
	same(all[1], facts)
	facts.Name, facts.ReadOnly, facts.FastZero, facts.Trim, facts.Zero = "golden@v1", true, false, false, false
	same(all[2], facts)
	same(w.nbdinfo(s.uri("golden@v1"))[0], facts)
	w.toolFails("nbdinfo", s.uri("golden@v2"))
	s.stop()
}

func TestInteropNbdinfoMap(t *testing.T) {
	w, _ := golden(t)
	s := w.serve(1, "--nbd", "unix:s")
	const block = 4096
	clone := []nbdExtent{
		{0, block, 0}, {block, 6*mib - block, nbdHole}, {6 * mib, 3 * mib, 0}, {9 * mib, 31*mib + 3*block, nbdHole},
		{40*mib + 3*block, 18 * block, 0}, {40*mib + 21*block, 24*mib - 22*block, nbdHole}, {64*mib - block, block, 0},
	}
	for _, name := range []string{"golden@v1", "vm1"} {
		if m := w.nbdmap(s.uri(name)); !slices.Equal(m, clone) {
			t.Errorf("%s: %v\nwant %v", name, m, clone)
		}
	}
	c := w.dial(s, "vm1")
	c.write(noise(100, 5), 20*mib+block) // in a hole
	for _, do := range []func(off, n int64, flags uint16) error{c.Trim, c.WriteZeroes} {
		if err := do(7*mib, 8*block, 0); err != nil {
			t.Fatal(err)
		}
	}
	c.flush()
	written := slices.Concat(clone[:2],
		[]nbdExtent{{6 * mib, mib, 0}, {7 * mib, 8 * block, nbdHole}, {7*mib + 8*block, 2*mib - 8*block, 0}},
		[]nbdExtent{{9 * mib, 11*mib + block, nbdHole}, {20*mib + block, block, 0}, {20*mib + 2*block, 20*mib + block, nbdHole}},
		clone[4:])
	for range 2 {
		if m := w.nbdmap(s.uri("vm1")); !slices.Equal(m, written) {
			t.Errorf("vm1: %v\nwant %v", m, written)
		}
		if m := w.nbdmap(s.uri("golden@v1")); !slices.Equal(m, clone) {
			t.Errorf("golden@v1: %v\nwant %v", m, clone)
		}
		c.close()
		s.kill()
		s = s.again()
		c = w.dial(s, "vm1")
	}
	c.close()
	s.stop()
}

func TestInteropNbdcopy(t *testing.T) {
	w, image := golden(t)
	other := w.image("other.raw", 64*mib, map[int64][]byte{mib: noise(9*mib+700, 6), 30 * mib: noise(12*mib, 7)})
	w.ok("create", "-q", "vm2", "--size", "64M")
	s := w.serve(2, "vm1", "vm2", "--nbd", "unix:s")
	w.tool("nbdcopy", s.uri("vm1"), "out")
	w.same(w.path("out"), image)
	// Over old data, on several connections; holes must become zeros.
	w.tool("nbdcopy", "--flush", "--connections=4", "--requests=64", other, s.uri("vm1"))
	w.tool("nbdcopy", "--connections=4", s.uri("vm1"), "out")
	w.same(w.path("out"), other)
	w.tool("nbdcopy", "--flush", "--synchronous", "--allocated", image, s.uri("vm1"))
	// From one export to the other.
	w.tool("nbdcopy", "--flush", s.uri("vm1"), s.uri("vm2"))
	s.kill()
	s = s.again()
	for _, name := range []string{"vm1", "vm2"} {
		w.tool("nbdcopy", "--synchronous", s.uri(name), "out")
		w.same(w.path("out"), image)
	}
	s.stop()
	for _, name := range []string{"vm1", "vm2", "golden@v1", "golden"} {
		w.exported(name, image)
	}
	w.undamaged()
}

// fails is a function for nbdsh: a call that must end with an error number.
const fails = `
import errno
def fails(want, fn, *args):
    try:
        fn(*args)
    except nbd.Error as e:
        assert e.errnum == want, (e, want)
    else:
        assert False, "no error"
`

func TestInteropNbdsh(t *testing.T) {
	w, _ := golden(t)
	s := w.serve(2, "vm1", "golden@v1", "--nbd", "unix:s")
	w.tool("nbdsh", "--base-allocation", "-u", s.uri("vm1"), "-c", fails, "-c", `
import random
r = random.Random(1)
size = h.get_size()
model = bytearray(h.pread(32 << 20, 0)) + bytearray(h.pread(32 << 20, 32 << 20))
# Many in flight: writes and zeros that touch but do not overlap, of any alignment, then reads of all.
at, wait = 5 << 20, []
while at < 14 << 20:
    n = r.choice([1, 511, 512, 3000, 4096, 5000, 65536, 70001])
    flags = r.choice([0, 0, 0, nbd.CMD_FLAG_FUA])
    kind = r.randrange(4)
    if kind < 2:
        data = r.randbytes(n)
        wait.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), at, flags=flags))
    else:
        data = bytes(n)
        wait.append(h.aio_zero(n, at, flags=flags) if kind == 2 else h.aio_trim(n, at, flags=flags))
    model[at:at + n] = data
    at += n
assert len(wait) > 200
while wait:
    h.poll(-1)
    wait = [c for c in wait if not h.aio_command_completed(c)]
reads = [(off, nbd.Buffer(1 << 20)) for off in range(4 << 20, 16 << 20, 1 << 20)]
wait = [h.aio_pread(b, off) for off, b in reads]
while wait:
    h.poll(-1)
    wait = [c for c in wait if not h.aio_command_completed(c)]
for off, b in reads:
    assert b.to_bytearray() == model[off:off + (1 << 20)], off

def status(n, off):
    all = []
    h.block_status(n, off, lambda name, o, e, err: all.extend(e))
    return all
h.pwrite(b"x" * (8 << 20), 48 << 20, nbd.CMD_FLAG_FUA)
assert status(8 << 20, 48 << 20)[:2] == [8 << 20, 0]
h.trim(1 << 20, 50 << 20)
h.zero(1 << 20, 52 << 20)
h.zero(1 << 20, 54 << 20, nbd.CMD_FLAG_NO_HOLE)
h.flush()
assert status(1 << 20, 50 << 20)[:2] == [1 << 20, nbd.STATE_HOLE | nbd.STATE_ZERO]
assert status(1 << 20, 52 << 20)[:2] == [1 << 20, nbd.STATE_HOLE | nbd.STATE_ZERO]
assert status(1 << 20, 54 << 20)[1] & nbd.STATE_HOLE == 0
for off in (50, 52, 54):
    assert h.pread(1 << 20, off << 20) == bytearray(1 << 20)
    assert h.pread(1 << 20, off + 1 << 20) == b"x" * (1 << 20)
`)
	w.tool("nbdsh", "-u", s.uri("golden@v1"), "-c", fails, "-c", `
assert h.is_read_only()
h.set_strict_mode(0)
for call in (h.pwrite, b"x" * 512, 0), (h.zero, 4096, 0), (h.trim, 4096, 0):
    fails(errno.EPERM, *call)
h.flush()
`)
	s.stop()
	w.exported("golden@v1", w.path("golden.raw"))
	w.undamaged()
}

func TestInteropFlushCoversAllConnections(t *testing.T) {
	w, _ := golden(t)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	w.tool("nbdsh", "-c", fmt.Sprintf(`
hs = [nbd.NBD() for i in range(4)]
for x in hs:
    x.connect_uri(%q)
assert h is not None and hs[0].can_multi_conn()
for round in range(8):
    for i, x in enumerate(hs):
        x.pwrite(bytes([round * 4 + i + 1]) * 5000, (4 << 20) * i + round * 5000)
    hs[round %% 4].flush()
for i in range(4):
    for round in range(8):
        want = bytes([round * 4 + i + 1]) * 5000
        assert hs[(i + round) %% 4].pread(5000, (4 << 20) * i + round * 5000) == want
`, s.uri("vm1")))
	s.kill()
	s = s.again()
	c := w.dial(s, "vm1")
	for i := range 4 {
		for round := range 8 {
			want := make([]byte, 5000)
			for j := range want {
				want[j] = byte(round*4 + i + 1)
			}
			c.has(want, int64(4*mib*i+round*5000))
		}
	}
	c.close()
	s.stop()
	w.undamaged()
}

func TestR18WritePastTheEnd(t *testing.T) {
	w, image := golden(t)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	w.tool("nbdsh", "-u", s.uri("vm1"), "-c", fails, "-c", `
h.set_strict_mode(0)
size = h.get_size()
fails(errno.ENOSPC, h.pwrite, b"x" * 512, size)
fails(errno.ENOSPC, h.pwrite, b"x" * 1024, size - 512)
fails(errno.ENOSPC, h.pwrite, b"x", 1 << 62)
fails(errno.ENOSPC, h.zero, 4096, size - 4095)
fails(errno.EINVAL, h.pread, 512, size - 511)
fails(errno.EINVAL, h.trim, 512, size - 511)
h.flush()
`)
	s.stop()
	w.exported("vm1", image)
}
