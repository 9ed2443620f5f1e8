package fuse_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skerry/fuse"
	"skerry/fuse/fusetest"
	"skerry/volume"
	"skerry/volume/catalog"
)

// image writes an image of n bytes for scripts, as $i, and returns the script's beginning and the content.
func image(t *testing.T, n int) (string, []byte) {
	t.Helper()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>9) ^ byte(i*7)
	}
	path := t.TempDir() + "/image"
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return "i=" + path + "\n", b
}

// whole returns content as a volume has it: in whole sectors.
func whole(b []byte) []byte { return append(slices.Clone(b), make([]byte, (512-len(b)%512)%512)...) }

func TestFilesAreMadeByWriting(t *testing.T) {
	set, img := image(t, 9*mib+1000)
	for _, c := range []struct {
		name, script string
		want         []byte
	}{
		{"cp", "cp $i $m/new.raw", whole(img)},
		{"cat", "cat $i > $m/new.raw", whole(img)},
		{"dd", "dd if=$i of=$m/new.raw bs=300k status=none", whole(img)},
		{"dd with sync", "dd if=$i of=$m/new.raw bs=3M conv=fsync status=none", whole(img)},
		{"dd direct", "head -c 8M $i | dd of=$m/new.raw bs=1M iflag=fullblock oflag=direct status=none", img[:8*mib]},
		{"append", "head -c 5000000 $i >> $m/new.raw; [ $(stat -c %s $m/new.raw) = 5000192 ]", whole(img[:5000000])},
		{"touch and cp", "touch $m/new.raw; cp $i $m/new.raw", whole(img)},
		{"touch and dd", "touch $m/new.raw; dd if=$i of=$m/new.raw bs=1M conv=notrunc status=none", whole(img)},
		{"truncate", "truncate -s 5M $m/new.raw", make([]byte, 5*mib)},
		{"touch and truncate", "touch $m/new.raw; truncate -s 5M $m/new.raw", make([]byte, 5*mib)},
		{"truncate larger", "cp $i $m/new.raw; truncate -s 12M $m/new.raw", append(slices.Clone(img), make([]byte, 12*mib-len(img))...)},
		{"truncate smaller", "cp $i $m/new.raw; truncate -s 1M $m/new.raw; truncate -s 2M $m/new.raw", append(slices.Clone(img[:mib]), make([]byte, mib)...)},
		{"qemu-img create", "qemu-img create -q -f raw $m/new.raw 6M", make([]byte, 6*mib)},
		{"qemu-img convert", "head -c 8M $i > $i.8; qemu-img convert -f raw -O raw $i.8 $m/new.raw", img[:8*mib]},
		{"cp over one", "truncate -s 100M $m/new.raw; cp $i $m/new.raw", whole(img)},
		{"cp a smaller over one", "cp $i $m/new.raw; head -c 1M $i > $i.1; cp $i.1 $m/new.raw", img[:mib]},
		{"empty one", "cp $i $m/new.raw; : > $m/new.raw; truncate -s 1M $m/new.raw", make([]byte, mib)},
		{"sparse", "dd if=$i of=$m/new.raw bs=1M seek=40 count=1 status=none", append(make([]byte, 40*mib), img[:mib]...)},
		{"zero range", "exec 5<>$m/new.raw; fallocate --zero-range -l 3M /proc/self/fd/5", make([]byte, 3*mib)},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fusetest.NewPool(t)
			m := p.Mount(fuse.Options{})
			m.Run(set + c.script)
			m.Run("[ $(stat -c %s $m/new.raw) = " + m.Run("stat -c %s $m/new.raw | tr -d '\\n'") + " ]")
			if got, err := os.ReadFile(m.Path("new.raw")); err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("%d bytes in the file, want %d: %v", len(got), len(c.want), err)
			}
			if err := m.Unmount(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := p.Content("new"); !bytes.Equal(got, c.want) {
				t.Errorf("%d bytes in the volume, want %d", len(got), len(c.want))
			}
		})
	}
}

func TestSnapshotsOutliveTheirEmptiedVolume(t *testing.T) {
	set, img := image(t, 3*mib)
	p := fusetest.NewPool(t)
	m := p.Mount(fuse.Options{})
	m.Run(set + "cp $i $m/vm1.raw")
	p.Snap("vm1@s")
	m.Run("printf other > $m/vm1.raw")
	if got, err := os.ReadFile(m.Path("vm1@s.raw")); err != nil || !bytes.Equal(got, img) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestSizesSettleUnderWriters writes with several threads to a file that grows while others sync it, which sets its size each time: nothing that
// was written may be cut off.
func TestSizesSettleUnderWriters(t *testing.T) {
	p := fusetest.NewPool(t)
	m := p.Mount(fuse.Options{})
	m.Python(`
f = os.open(m+'/new.raw', os.O_RDWR|os.O_CREAT)
N, K = 300, 4
def write(k):
    for i in range(k, N, K):
        assert os.pwrite(f, bytes([i%251])*50000, i*50000) == 50000
def sync(stop):
    while not stop.is_set():
        os.fsync(f)
stop = threading.Event()
s = threading.Thread(target=sync, args=(stop,)); s.start()
ts = [threading.Thread(target=write, args=(k,)) for k in range(K)]
for x in ts: x.start()
for x in ts: x.join()
stop.set(); s.join()
os.close(f)
g = open(m+'/new.raw', 'rb').read()
assert len(g) == (N*50000+511)//512*512, len(g)
for i in range(N):
    assert g[i*50000:(i+1)*50000] == bytes([i%251])*50000, i
`)
}

// TestEmptyingUnderManyWriters empties a file again and again while more writes wait for their place in it than may be in flight.
func TestEmptyingUnderManyWriters(t *testing.T) {
	p := fusetest.NewPool(t)
	m := p.Mount(fuse.Options{MaxInFlight: 8 * mib})
	m.Python(`
N = 64
data = b'x'*(1<<20)
f = os.open(m+'/new.raw', os.O_RDWR|os.O_CREAT)
for i in range(6):
    os.pwrite(f, b'x', N<<20)
    start = threading.Barrier(N+1)
    def write(k):
        start.wait()
        assert os.pwrite(f, data, k<<20) == len(data)
    ts = [threading.Thread(target=write, args=(k,)) for k in range(N)]
    for x in ts: x.start()
    start.wait()
    os.close(os.open(m+'/new.raw', os.O_WRONLY|os.O_TRUNC))
    for x in ts: x.join()
`)
}

func TestProgramsMakeAFileLongerTogether(t *testing.T) {
	for name, begin := range map[string]string{
		"new":     "f = os.open(n, os.O_WRONLY|os.O_CREAT)",
		"emptied": "open(n, 'wb').write(b'x'*5000); f = os.open(n, os.O_WRONLY|os.O_TRUNC)",
	} {
		t.Run(name, func(t *testing.T) {
			p := fusetest.NewPool(t)
			m := p.Mount(fuse.Options{})
			m.Python("n = m+'/new.raw'\n" + begin + `
os.write(f, b'0'*1000)
gs = [os.open(n, os.O_WRONLY|os.O_APPEND) for k in range(3)]
os.close(f)
for i in range(60):
    assert os.write(gs[i%3], bytes([i])*1000) == 1000
for g in gs: os.close(g)
want = b'0'*1000+b''.join(bytes([i])*1000 for i in range(60))
assert open(n, 'rb').read() == want+bytes(-len(want)%512)
g = os.open(n, os.O_WRONLY|os.O_APPEND)
try:
    os.write(g, b'x')
    raise SystemExit('appended')
except OSError as e:
    assert e.errno == errno.EFBIG, e
`)
		})
	}
}

func TestWritesTooFarOutLeaveAGrowingFileAlone(t *testing.T) {
	p := fusetest.NewPool(t)
	m := p.Mount(fuse.Options{})
	m.Python(`
f = os.open(m+'/new.raw', os.O_RDWR|os.O_CREAT)
os.write(f, b'x'*5120)
for off in (1<<60, 1<<62, (1<<63)-1001):
    for far in (lambda: os.pwrite(f, b'y'*1000, off), lambda: os.ftruncate(f, off)):
        try:
            far()
            raise SystemExit('done')
        except OSError as e:
            assert e.errno == errno.EFBIG, (off, e)
    assert os.fstat(f).st_size == 5120, os.fstat(f).st_size
os.close(f)
assert open(m+'/new.raw', 'rb').read() == b'x'*5120
`)
}

func TestWhatIsCutOffReturnsAsZeros(t *testing.T) {
	p := fusetest.NewPool(t)
	m := p.Mount(fuse.Options{})
	m.Python(`
def check(f, what):
    for size in (1000, 512, 100, 1):
        os.pwrite(f, b'x'*4096, 0)
        os.ftruncate(f, size)
        got = os.pread(f, 4096, 0)
        want = b'x'*size+bytes(-size%512)
        assert got == want, (what, size, len(got), got.count(b'x'))
        os.ftruncate(f, 4096)
        assert os.pread(f, 4096, 0) == b'x'*size+bytes(4096-size), (what, size)
with open(m+'/new.raw', 'w+b', buffering=0) as f:
    check(f.fileno(), 'new')
with open(m+'/new.raw', 'r+b', buffering=0) as f:
    check(f.fileno(), 'old')
`)
}

func TestNames(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	p.Make("vm2", mib)
	p.Snap("vm1@s")
	m := p.Mount(fuse.Options{})
	m.Run("mv $m/vm2.raw $m/vm3.raw; touch $m/p.raw; mv $m/p.raw $m/q.raw")
	if got := m.Run("ls $m"); got != "q.raw\nvm1.raw\nvm1@s.raw\nvm3.raw\n" {
		t.Errorf("%q", got)
	}
	for _, c := range []struct{ words, script, logged string }{
		{"File exists", "python3 -c \"import os; m=os.environ['m']; os.rename(m+'/vm3.raw', m+'/vm1.raw')\"", "exists"},
		{"not permitted", "mv $m/vm1@s.raw $m/vm9.raw", "name of a snapshot"},
		{"not permitted", "touch $m/vm1@new.raw", "skerry snapshot vm1@new"},
		{"not permitted", "mkdir $m/d", "only volumes"},
		{"not permitted", "ln -s x $m/l", "only volumes"},
		{"not permitted", "ln $m/vm1.raw $m/l.raw", "only volumes"},
		{"not permitted", "mkfifo $m/f", "only volumes"},
		{"not permitted", "touch $m/x", "VOLUME.raw"},
		{"not permitted", "touch $m/.x.raw", "VOLUME.raw"},
		{"not permitted", "mv $m/vm1.raw $m/vm1.img", "VOLUME.raw"},
		{"busy", "rm $m/vm1.raw", "snapshots: s"},
		{"busy", "exec 5<$m/vm3.raw; rm $m/vm3.raw", "has the file open"},
		{"busy", "exec 5<$m/vm3.raw; mv $m/vm3.raw $m/vm4.raw", "has the file open"},
		{"not permitted", "chmod 644 $m/vm1.raw", ""},
		{"not permitted", "chown 12 $m/vm1.raw", ""},
		{"Read-only", "printf x > $m/vm1@s.raw", ""},
		{"No such file", "cat $m/nope.raw", ""},
		{"No such file", "cat $m/nope", ""},
	} {
		m.Fails(c.words, c.script)
		if c.logged != "" && !m.Logged(c.logged) {
			t.Errorf("%s: the log does not say %q", c.script, c.logged)
		}
	}
	m.Run("chmod 600 $m/vm1.raw; chown $(id -u) $m/vm1.raw; rm $m/vm1@s.raw; rm $m/vm1.raw $m/q.raw")
	if got := m.Run("ls $m"); got != "vm3.raw\n" {
		t.Errorf("%q", got)
	}
}

func TestWhatOthersDoShows(t *testing.T) {
	p := fusetest.NewPool(t)
	m := p.Mount(fuse.Options{})
	other := p.Other()
	m.Fails("No such", "stat $m/vm1.raw")
	other.Make("vm1", mib)
	m.Run("stat $m/vm1.raw")
	other.Snap("vm1@s")
	m.Run("stat $m/vm1@s.raw")
	if _, err := other.Resize(t.Context(), "vm1", catalog.ResizeOptions{Size: 2 * mib}); err != nil {
		t.Fatal(err)
	}
	if got := m.Run("timeout 2 bash -c 'until [ $(stat -c %s $m/vm1.raw) = 2097152 ]; do :; done'; stat -c %s $m/vm1@s.raw"); got != "1048576\n" {
		t.Error(got)
	}
	if err := other.Remove(t.Context(), "vm1@s"); err != nil {
		t.Fatal(err)
	}
	if err := other.Rename(t.Context(), "vm1", "vm2"); err != nil {
		t.Fatal(err)
	}
	m.Run("timeout 2 bash -c 'while [ -e $m/vm1.raw -o -e $m/vm1@s.raw ]; do :; done'; stat $m/vm2.raw")
}

// TestANameThatIsFreeAgainElsewhere opens files whose volumes were removed elsewhere while the kernel still knows their names.
func TestANameThatIsFreeAgainElsewhere(t *testing.T) {
	p := fusetest.NewPool(t)
	m := p.Mount(fuse.Options{Expiry: time.Hour})
	other := p.Other()
	for _, c := range []struct{ name, script string }{
		{"made anew", "printf new > $m/vm1.raw; grep -q new $m/vm1.raw"},
		{"made with a size", "truncate -s 2M $m/vm1.raw; [ $(stat -c %s $m/vm1.raw) = 2097152 ]"},
		{"not there", "! cat $m/vm1.raw 2>&1 | grep -v 'No such file'"},
	} {
		p.Make("vm1", mib)
		m.Run("stat $m/vm1.raw")
		if err := other.Remove(t.Context(), "vm1"); err != nil {
			t.Fatal(err)
		}
		m.Run(c.script)
		m.Run("rm -f $m/vm1.raw")
	}
}

func TestOneThatIsHeldElsewhereIsBusy(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	m := p.Mount(fuse.Options{})
	other := p.Other()
	d, err := other.OpenVolume(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	m.Run("stat $m/vm1.raw; ls -l $m")
	for _, script := range []string{"cat $m/vm1.raw", "truncate -s 2M $m/vm1.raw", "rm $m/vm1.raw", "mv $m/vm1.raw $m/vm2.raw"} {
		m.Fails("busy", script)
	}
	if !m.Logged("opened", "process 77", "host1", "release it, or end it") {
		t.Error("the log does not name the holder")
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Run("cat $m/vm1.raw >/dev/null")
}

func TestSizeAfterALiveResize(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	m := p.Mount(fuse.Options{})
	hold, err := os.OpenFile(m.Path("vm1.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	if err := p.Device("vm1").Resize(t.Context(), 3*mib); err != nil {
		t.Fatal(err)
	}
	if _, err := hold.WriteAt([]byte("x"), 3*mib-1); err != nil {
		t.Error(err)
	}
	var st unix.Stat_t
	for until := time.Now().Add(10 * time.Second); st.Size != 3*mib && time.Now().Before(until); {
		if err := unix.Fstat(int(hold.Fd()), &st); err != nil {
			t.Fatal(err)
		}
	}
	if st.Size != 3*mib {
		t.Errorf("size %d", st.Size)
	}
	if got := m.Run("wc -c < $m/vm1.raw"); strings.TrimSpace(got) != "3145728" {
		t.Error(got)
	}
}

// TestGrowthSparesWhatOthersDo changes the volume of a file elsewhere while the file grows: closing it does not undo that.
func TestGrowthSparesWhatOthersDo(t *testing.T) {
	const end = 700000
	resize := func(size int64) func(d *volume.Device) (int64, error) {
		return func(d *volume.Device) (int64, error) { return size, d.Resize(t.Context(), size) }
	}
	for what, do := range map[string]func(d *volume.Device) (size int64, err error){
		"made larger":  resize(10 * mib),
		"made smaller": resize(mib / 2),
		"written beyond the end": func(d *volume.Device) (int64, error) {
			return d.Size(), d.WriteAt(t.Context(), []byte("other"), d.Size()-512)
		},
		"left alone": func(*volume.Device) (int64, error) { return (end + 511) / 512 * 512, nil },
	} {
		for how, flag := range map[string]int{"new": os.O_CREATE, "emptied": os.O_TRUNC} {
			t.Run(how+" and "+what, func(t *testing.T) {
				p := fusetest.NewPool(t)
				if flag == os.O_TRUNC {
					p.Make("vm1", mib)
				}
				m := p.Mount(fuse.Options{Expiry: -1})
				f, err := os.OpenFile(m.Path("vm1.raw"), os.O_RDWR|flag, 0)
				if err != nil {
					t.Fatal(err)
				}
				for _, off := range []int64{0, 600000, end - 4} {
					if _, err := f.WriteAt([]byte("mine"), off); err != nil {
						t.Fatal(err)
					}
				}
				want, err := do(p.Device("vm1"))
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
				// The kernel tells of the end of the handle some time after close, and nobody of having told: until then the size may be the file's own.
				st, err := os.Stat(m.Path("vm1.raw"))
				for until := time.Now().Add(10 * time.Second); err == nil && st.Size() == end && time.Now().Before(until); {
					st, err = os.Stat(m.Path("vm1.raw"))
				}
				if err != nil || st.Size() != want {
					t.Errorf("size %d, want %d: %v", st.Size(), want, err)
				}
			})
		}
	}
}

func TestSpaceOfTheStorage(t *testing.T) {
	m := fusetest.NewPool(t).Mount(fuse.Options{})
	if got := m.Run("stat -f -c '%S %b %f %a' $m"); got != "4096 26214400 10485760 7864320\n" {
		t.Error(got)
	}
}

func TestReadOnlyMount(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	m := p.Mount(fuse.Options{ReadOnly: true})
	m.Run("cat $m/vm1.raw > /dev/null")
	for _, script := range []string{"touch $m/x.raw", "rm $m/vm1.raw", "mv $m/vm1.raw $m/x.raw", "printf x >> $m/vm1.raw", "truncate -s 5M $m/vm1.raw"} {
		m.Fails("Read-only", script)
	}
}
