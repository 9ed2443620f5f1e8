package fuse_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"skerry/fuse"
	"skerry/fuse/fusetest"
)

const mib = 1 << 20

func TestReadsAndWritesOfAnySize(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", 16*mib)
	m := p.Mount(fuse.Options{})
	out := m.Python(`
import random
random.seed(7)
model = bytearray(16<<20)
for flags in (0, os.O_DIRECT):
    f = os.open(m+'/vm1.raw', os.O_RDWR|flags)
    buf = mmap.mmap(-1, 4<<20)
    for i in range(60):
        n, off = random.choice([(4096, 4096), (1, 1), (512, 512), (70000, 13), (3<<20, 4096), (1<<20, 1<<20)])
        if flags: n, off = (n+4095)//4096*4096, 4096
        off = random.randrange(0, (16<<20)-n+1)//off*off
        data = random.randbytes(n)
        view = memoryview(buf)[:n]
        view[:] = data
        assert os.pwritev(f, [view], off) == n
        model[off:off+n] = data
        off = random.randrange(0, (16<<20)-n)//4096*4096
        assert os.preadv(f, [view], off) == n
        assert view == model[off:off+n], (i, n, off)
    os.close(f)
assert open(m+'/vm1.raw', 'rb').read() == model
sys.stdout.buffer.write(b'same')
`)
	if out != "same" {
		t.Error(out)
	}
}

// TestReadersGetTheirOwnData has many readers at once, so that the buffers of answers are used again as soon as they can be.
func TestReadersGetTheirOwnData(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", 16*mib)
	m := p.Mount(fuse.Options{})
	m.Python(`
N = 64<<10
with open(m+'/vm1.raw', 'r+b') as f:
    for i in range(256):
        f.write(bytes([i])*N)
def read(k):
    f = os.open(m+'/vm1.raw', os.O_RDONLY)
    for i in range(600):
        b = (i*7+k*37)%256
        got = os.pread(f, N, b*N)
        if got != bytes([b])*N:
            os._exit(1)
    os._exit(0)
pids = []
for k in range(6):
    if (pid := os.fork()) == 0:
        read(k)
    pids.append(pid)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0, 'the data of another request'
`)
}

func TestTheEndOfAVolumeIsFirm(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	m := p.Mount(fuse.Options{})
	m.Python(`
f = os.open(m+'/vm1.raw', os.O_RDWR)
assert os.pwrite(f, b'x'*1000, (1<<20)-100) == 100
assert os.pread(f, 1000, (1<<20)-100) == b'x'*100
assert os.pread(f, 10, 1<<20) == b''
assert os.pread(f, 10, 5<<20) == b''
for at in (1<<20, 5<<20):
    try:
        os.pwrite(f, b'x', at)
        raise SystemExit('written beyond the end')
    except OSError as e:
        assert e.errno == errno.EFBIG, e
a = os.open(m+'/vm1.raw', os.O_RDWR|os.O_APPEND)
try:
    os.write(a, b'x')
    raise SystemExit('appended')
except OSError as e:
    assert e.errno == errno.EFBIG, e
assert os.fstat(f).st_size == 1<<20
`)
	if !m.Logged("beyond the end", "vm1", "skerry resize") {
		t.Error("the refusal was not explained")
	}
}

func TestSyncsReachTheDevice(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	m := p.Mount(fuse.Options{})
	hold, err := os.OpenFile(m.Path("vm1.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	for _, c := range []struct {
		what    string
		flushes int64
	}{
		{"f=os.open(n, os.O_RDWR); os.pwrite(f, b'x', 0)", 0},
		{"f=os.open(n, os.O_RDWR); os.fsync(f)", 1},
		{"f=os.open(n, os.O_RDWR); os.fdatasync(f)", 1},
		{"f=os.open(n, os.O_RDWR|os.O_SYNC); os.pwrite(f, b'x', 0)", 1},
		{"f=os.open(n, os.O_RDWR|os.O_DSYNC); os.pwrite(f, b'x', 0); os.pwrite(f, b'x', 9)", 2},
		{"f=os.open(n, os.O_RDWR); os.pwritev(f, [b'x'], 0, os.RWF_DSYNC)", 1},
		{"f=os.open(n, os.O_RDWR); os.pread(f, 1, 0)", 0},
	} {
		before := p.Device("vm1").Stats().Flushes
		m.Python("n = m+'/vm1.raw'\n" + c.what)
		if got := p.Device("vm1").Stats().Flushes - before; got != c.flushes {
			t.Errorf("%s: %d flushes, want %d", c.what, got, c.flushes)
		}
	}
}

func TestHolesAndZeros(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", 64*mib)
	m := p.Mount(fuse.Options{})
	m.Run(`
dd if=/dev/urandom of=$m/vm1.raw bs=1M seek=8 count=4 conv=notrunc status=none
fallocate --punch-hole -o 9M -l 1M $m/vm1.raw
fallocate --zero-range -o 10M -l 512K $m/vm1.raw
fallocate --zero-range --keep-size -o 60M -l 10M $m/vm1.raw
[ $(stat -c %s $m/vm1.raw) = $((64<<20)) ]
cmp -n $((1<<20)) -i 0:$((9<<20)) /dev/zero $m/vm1.raw
cmp -n $((512<<10)) -i 0:$((10<<20)) /dev/zero $m/vm1.raw`)
	m.Python(`
M = 1<<20
f = os.open(m+'/vm1.raw', os.O_RDONLY)
assert os.lseek(f, 0, os.SEEK_HOLE) == 0
assert os.lseek(f, 0, os.SEEK_DATA) == 8*M
assert os.lseek(f, 8*M+5, os.SEEK_DATA) == 8*M+5
assert os.lseek(f, 8*M, os.SEEK_HOLE) == 9*M
assert os.lseek(f, 9*M, os.SEEK_DATA) == 10*M+M//2
assert os.lseek(f, 11*M, os.SEEK_HOLE) == 12*M
for at, how in ((12*M, os.SEEK_DATA), (64*M, os.SEEK_HOLE), (64*M, os.SEEK_DATA)):
    try:
        raise SystemExit(str(os.lseek(f, at, how)))
    except OSError as e:
        assert e.errno == errno.ENXIO, e
`)
	m.Fails("fallocate failed: Operation not supported", "fallocate -l 10M $m/vm1.raw")
	m.Fails("File too large", "fallocate --zero-range -o 60M -l 10M $m/vm1.raw")
	d, err := os.ReadFile(m.Path("vm1.raw"))
	if err != nil || bytes.Count(d, []byte{0}) < 61*mib {
		t.Errorf("%d bytes, %v", len(d), err)
	}
}

func TestLocksConflictBetweenProcesses(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	m := p.Mount(fuse.Options{})
	out := m.Python(`
OFD_SETLK = 37
how = {
  'posix': lambda f: fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB),
  'flock': lambda f: fcntl.flock(f, fcntl.LOCK_EX|fcntl.LOCK_NB),
  'ofd': lambda f: fcntl.fcntl(f, OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 100, 1, 0)),
}
for name, lock in how.items():
    f = os.open(m+'/vm1.raw', os.O_RDWR)
    lock(f)
    if (pid := os.fork()) == 0:
        try:
            lock(os.open(m+'/vm1.raw', os.O_RDWR))
        except OSError as e:
            os._exit(0 if e.errno in (errno.EAGAIN, errno.EACCES) else 2)
        os._exit(1)
    print(name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os.close(f)
`)
	if want := "posix 0\nflock 0\nofd 0\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
}

func TestMapsAreThereWhereTheyAreRight(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	m := p.Mount(fuse.Options{})
	m.Run("printf first | dd of=$m/vm1.raw conv=notrunc status=none")
	p.Snap("vm1@s")
	m.Python(`
f = os.open(m+'/vm1.raw', os.O_RDWR)
for _ in range(2):
    private = mmap.mmap(f, 1<<20, flags=mmap.MAP_PRIVATE)
    want = os.pread(f, 6, 0)
    assert private[:6] == want, (private[:6], want)
    os.pwrite(f, b'second', 0)
try:
    mmap.mmap(f, 1<<20, flags=mmap.MAP_SHARED)
    raise SystemExit('mapped')
except OSError as e:
    assert e.errno == errno.ENODEV, e
s = os.open(m+'/vm1@s.raw', os.O_RDONLY)
assert mmap.mmap(s, 1<<20, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)[:6] == b'first\0'
`)
}

func TestTimes(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	m := p.Mount(fuse.Options{Expiry: -1})
	m.Run("touch -d 2001-02-03T04:05:06Z $m/vm1.raw")
	if got := m.Run("TZ=UTC stat -c %y $m/vm1.raw"); !strings.HasPrefix(got, "2001-02-03 04:05:06") {
		t.Error(got)
	}
	m.Run("head -c 10 $m/vm1.raw >/dev/null")
	if got := m.Run("date -r $m/vm1.raw +%Y"); got != "2001\n" {
		t.Errorf("a read changed the time: %s", got)
	}
	m.Run("printf x | dd of=$m/vm1.raw conv=notrunc status=none")
	if got := m.Run("date -r $m/vm1.raw +%Y"); got == "2001\n" {
		t.Error("a write did not change the time")
	}
	// What another export of this process writes is seen too.
	hold, err := os.Open(m.Path("vm1.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	m.Run("truncate -s 2M $m/vm1.raw; touch -d 2001-02-03T04:05:06Z $m/vm1.raw")
	if err := p.Device("vm1").WriteAt(t.Context(), []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if got := m.Run("date -r $m/vm1.raw +%Y"); got == "2001\n" {
		t.Error("a write through the device did not change the time")
	}
}
