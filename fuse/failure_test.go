package fuse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skerry/drivers"
	"skerry/drivers/faulty"
	"skerry/fuse"
	"skerry/fuse/fusetest"
	"skerry/volume"
)

// data reports whether a call reads or writes a volume's data.
func data(kinds ...drivers.Kind) func(faulty.Call) bool {
	return func(c faulty.Call) bool {
		for _, k := range kinds {
			if c.Kind == k && !strings.Contains(c.Name, "root") {
				return true
			}
		}
		return false
	}
}

func TestErrorsOfTheStorageReachThePrograms(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", 16*mib)
	m := p.Mount(fuse.Options{})
	m.Run("dd if=/dev/urandom of=$m/vm1.raw bs=1M count=2 conv=notrunc,fsync status=none")
	hold, err := os.OpenFile(m.Path("vm1.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	p.Backend.SetHook(faulty.On(data(drivers.OpRead), faulty.Fail(unix.EIO)))
	m.Fails("Input/output error", "cat $m/vm1.raw")
	p.Backend.SetHook(faulty.On(data(drivers.OpWrite, drivers.OpOpen), faulty.Fail(drivers.ErrNoSpace)))
	m.Fails("No space", "dd if=/dev/urandom of=$m/vm1.raw bs=64K seek=128 count=1 conv=notrunc status=none")
	p.Backend.SetHook(nil)
	if !m.Logged("read failed", "vm1") {
		t.Error("the failure was not logged")
	}
	m.Run("dd if=/dev/urandom of=$m/vm1.raw bs=64K seek=128 count=1 conv=notrunc status=none; cat $m/vm1.raw > /dev/null; ls $m")
}

func TestOneHangingFileHoldsUpNoOther(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", 16*mib)
	p.Make("vm2", 16*mib)
	m := p.Mount(fuse.Options{})
	fill := "for v in vm1 vm2; do dd if=/dev/urandom of=$m/$v.raw bs=1M count=8 conv=notrunc,fsync status=none; done"
	m.Run(fill + "; exec 5<$m/vm1.raw 6<$m/vm2.raw; :")
	// Both stay open, so that nothing is to be stored when one hangs.
	one, err := os.OpenFile(m.Path("vm1.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	two, err := os.OpenFile(m.Path("vm2.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	i, err := p.Brief(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	p.Backend.SetHook(faulty.On(func(c faulty.Call) bool { return c.Kind == drivers.OpRead && strings.Contains(c.Name, i.ID.String()) }, faulty.Delay(release)))
	hanging := m.Shell("for k in $(seq 40); do dd if=$m/vm1.raw of=/dev/null bs=1M skip=$((k%8)) count=1 iflag=direct status=none & done; wait")
	if err := hanging.Start(); err != nil {
		t.Fatal(err)
	}
	m.Run("for k in 1 2 3; do dd if=$m/vm2.raw of=/dev/null bs=1M iflag=direct status=none; done; ls -l $m; stat $m/vm1.raw")
	close(release)
	if err := hanging.Wait(); err != nil {
		t.Error(err)
	}
}

// TestOverdueWritesKeepTheirData: a write whose deadline passes while the storage has its data puts nothing else into the volume later, whatever
// the connection's buffers hold by then.
func TestOverdueWritesKeepTheirData(t *testing.T) {
	p := fusetest.NewPoolWith(t, volume.Options{Deadline: 50 * time.Millisecond})
	p.Make("vm1", mib)
	p.Make("vm2", mib)
	m := p.Mount(fuse.Options{})
	m.Run("for v in vm1 vm2; do dd if=/dev/zero of=$m/$v.raw bs=1M count=1 conv=notrunc status=none; done")
	i, err := p.Brief(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(m.Path("vm1.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	late := bytes.Repeat([]byte{'l'}, 4096)
	if _, err := f.WriteAt(late, 8192); err != nil { // so that the journal names the object
		t.Fatal(err)
	}
	release := make(chan struct{})
	p.Backend.SetHook(faulty.On(func(c faulty.Call) bool {
		return c.Kind == drivers.OpWrite && strings.Contains(c.Name, i.ID.String()) && strings.Contains(c.Name, "/data/")
	}, faulty.Delay(release)))
	if _, err := f.WriteAt(late, 0); !errors.Is(err, unix.EIO) {
		t.Errorf("write: %v", err)
	}
	m.Run("for k in $(seq 4); do tr '\\0' x < /dev/zero | dd of=$m/vm2.raw bs=4K count=64 iflag=fullblock conv=notrunc oflag=direct status=none; done")
	close(release)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Backend.SetHook(nil)
	if got := p.Content("vm1")[:4096]; !bytes.Equal(got, late) {
		t.Errorf("the volume has %q...", got[:16])
	}
}

func TestABusyMountIsNotUnmountedButCanBeCut(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	m := p.Mount(fuse.Options{})
	user := m.Shell(`exec 5<>$m/vm1.raw; printf written >&5; echo ready; read x; ! printf more >&5`)
	in, err := user.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := user.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := m.Unmount(ctx); !errors.Is(err, unix.EBUSY) {
		t.Errorf("unmount: %v", err)
	}
	if users := fuse.Users(m.Dir()); len(users) != 1 || !strings.HasPrefix(users[0], "bash (process ") {
		t.Errorf("users: %q", users)
	}
	if err := m.Cut(ctx); err != nil {
		t.Fatal(err)
	}
	if got := p.Content("vm1"); string(got[:7]) != "written" {
		t.Errorf("the volume has %q", got[:7])
	}
	if _, err := in.Write([]byte("go on\n")); err != nil {
		t.Error(err)
	}
	if err := user.Wait(); err != nil {
		t.Errorf("the user's file did not fail: %v", err)
	}
}

func TestAForeignMountIsLeftAlone(t *testing.T) {
	p := fusetest.NewPool(t)
	m := p.Mount(fuse.Options{})
	if _, err := fuse.Mount(m.Dir(), p, fuse.Options{}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("mounted twice: %v", err)
	}
	if _, err := fuse.Mount(m.Dir()+"/nope", p, fuse.Options{}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("mounted nowhere: %v", err)
	}
	if ours, err := fuse.Mounted("/proc"); err != nil || ours {
		t.Errorf("/proc: %v, %v", ours, err)
	}
	if ours, err := fuse.Mounted(m.Dir()); err != nil || !ours {
		t.Errorf("%s: %v, %v", m.Dir(), ours, err)
	}
}

func TestACopyOfTheMountElsewhereKeepsNothingOpen(t *testing.T) {
	p := fusetest.NewPool(t)
	p.Make("vm1", mib)
	m := p.Mount(fuse.Options{})
	other := m.Shell(`exec unshare --mount --propagation private bash -euc 'exec 5<>$m/vm1.raw; printf written >&5; echo ready; read x; ! printf more >&5'`)
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := m.Unmount(ctx); err != nil {
		t.Fatal(err)
	}
	if got := p.Content("vm1"); string(got[:7]) != "written" {
		t.Errorf("the volume has %q", got[:7])
	}
	if _, err := in.Write([]byte("go on\n")); err != nil {
		t.Error(err)
	}
	if err := other.Wait(); err != nil {
		t.Errorf("the other's file did not fail: %v", err)
	}
}

func TestProgramsDoNotGetTheConnection(t *testing.T) {
	m := fusetest.NewPool(t).Mount(fuse.Options{})
	if out := m.Run("ls -l /proc/$$/fd"); strings.Contains(out, "/dev/fuse") {
		t.Error(out)
	}
}

// TestFilesAreClosedTogetherAtTheEnd lets no close get on before all have begun.
func TestFilesAreClosedTogetherAtTheEnd(t *testing.T) {
	const n = 3 // no more than the storage works on at a time
	p := fusetest.NewPool(t)
	m := p.Mount(fuse.Options{})
	ids := make(map[string]bool)
	for k := range n {
		name := fmt.Sprintf("vm%d", k)
		p.Make(name, mib)
		i, err := p.Brief(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		ids[i.ID.String()] = true
		f, err := os.OpenFile(m.Path(name+".raw"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("written"); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	all := make(chan struct{})
	p.Backend.SetHook(faulty.On(func(c faulty.Call) bool {
		mu.Lock()
		defer mu.Unlock()
		for id := range ids {
			if strings.Contains(c.Name, id) {
				delete(ids, id)
				if len(ids) == 0 {
					close(all)
				}
				return true
			}
		}
		return len(ids) > 0
	}, faulty.Delay(all)))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := m.Cut(ctx); err != nil {
		mu.Lock()
		defer mu.Unlock()
		t.Errorf("%d of %d files wait for the others: %v", len(ids), n, err)
		if len(ids) > 0 {
			clear(ids)
			close(all)
		}
	}
}
