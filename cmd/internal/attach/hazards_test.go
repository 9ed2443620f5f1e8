package attach

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"skerry/nbd/kernel"
)

// TestARecordThatIsLostWhileTheKeeperLives: the device can be found, used and detached all the same.
func TestARecordThatIsLostWhileTheKeeperLives(t *testing.T) {
	for name, again := range map[string]bool{"detached": false, "attached again": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ok("create", "vm1", "--size", "1M")
			d := w.mustAttach("vm1", options())
			d.write([]byte("mine"), 0)
			if err := os.Remove(w.host.files(d.key()).record); err != nil {
				t.Fatal(err)
			}
			if again {
				if got := w.mustAttach("vm1", options()); got.Device != d.Device || !got.Before {
					t.Errorf("%+v", got.Attached)
				}
				w.until("connected", func() bool { return w.state() == Connected })
			}
			if _, err := w.host.Detach(t.Context(), d.Target, false); err != nil {
				t.Fatal(err)
			}
			w.free("vm1")
		})
	}
}

// TestWhoLooksForAKeeperIsNotTakenForOne: looking is no lock.
func TestWhoLooksForAKeeperIsNotTakenForOne(t *testing.T) {
	w := newWorld(t)
	if err := w.host.makeDir(); err != nil {
		t.Fatal(err)
	}
	const key = "key"
	ended := make(chan struct{})
	var lookers sync.WaitGroup
	for range 4 {
		lookers.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
					w.host.kept(key)
				}
			}
		})
	}
	for range 2000 {
		unlock, err := tryLock(w.host.files(key).keeper)
		if err != nil {
			t.Errorf("a keeper could not begin: %v", err)
			break
		}
		if !w.host.kept(key) {
			t.Error("the keeper is not seen")
		}
		unlock()
		if w.host.kept(key) {
			t.Error("somebody who looked is taken for a keeper")
			break
		}
	}
	close(ended)
	lookers.Wait()
}

// TestARenamedVolumeKeepsTheServerOfItsSnapshot: nothing else than the name has changed for the device.
func TestARenamedVolumeKeepsTheServerOfItsSnapshot(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	w.ok("snapshot", "vm1@s")
	d := w.mustAttach("vm1@s", options())
	p := d.record().Server.Process
	w.ok("rename", "vm1", "vm2")
	w.until("looked at", func() bool { return strings.Contains(w.log.String(), errOther.Error()) })
	if !p.alive() {
		t.Fatal("the server was ended") // reads would wait
	}
	d.has(make([]byte, 512), 0)
	d.detach(true)
}

// TestASnapshotThatIsTakenAgain under the same name is another one: the device of the first never shows it.
func TestASnapshotThatIsTakenAgain(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	w.ok("snapshot", "vm1@s")
	d := w.mustAttach("vm1@s", options())
	d.end()
	if err := d.record().Server.Process.end(t.Context(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.ok("rm", "vm1@s")
	w.ok("snapshot", "vm1@s")
	for _, lost := range []bool{false, true} {
		if lost {
			if err := os.Remove(w.host.files(d.key()).record); err != nil {
				t.Fatal(err)
			}
		}
		again, err := w.attach("vm1@s", options())
		if err == nil && again.Device == d.Device {
			t.Fatalf("record lost %v: the device of the first snapshot got the second", lost)
		}
		if err == nil {
			again.detach(false)
		}
	}
}

// TestDetachOfAURIWithoutARecord flushes to the server that the kernel's identifier names.
func TestDetachOfAURIWithoutARecord(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	own := w.mustAttach("vm1", options())
	d, err := w.attachTarget(Target{URI: must(ParseURI(own.Server.URI))}, options())
	if err != nil {
		t.Fatal(err)
	}
	d.end()
	if err := os.Remove(w.host.files(d.key()).record); err != nil {
		t.Fatal(err)
	}
	d.detach(false)
	own.detach(false)
}

// TestAReadOnlyServerThatWasLeft is not what a device for writing gets.
func TestAReadOnlyServerThatWasLeft(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	o := options()
	o.ReadOnly = true
	d := w.mustAttach("vm1", o)
	d.end()
	if err := w.kernel.Disconnect(d.Index); err != nil { // by another program, while there is no keeper
		t.Fatal(err)
	}
	d = w.mustAttach("vm1", options())
	if d.ReadOnly {
		t.Error("a device that cannot be written")
	}
	d.write([]byte("mine"), 0)
	d.detach(false)
	w.free("vm1")
}

// interrupted is a kernel that ends a context while it makes a device.
type interrupted struct {
	*fakeKernel
	end context.CancelFunc
}

func (k interrupted) Connect(c kernel.Config, s []*os.File) (int, error) {
	k.end()
	return k.fakeKernel.Connect(c, s)
}

// TestASignalWhileTheDeviceIsMade leaves nothing behind.
func TestASignalWhileTheDeviceIsMade(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	ctx, cancel := context.WithCancel(t.Context())
	w.host.Kernel = interrupted{w.kernel, cancel}
	_, err := w.host.Attach(ctx, w.target("vm1"), options(), func(Attached) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("attached, and nobody waits for it: %v", err)
	}
	if all := must(w.kernel.Devices()); len(all) > 0 {
		t.Errorf("a device is left: %+v", all)
	}
	w.free("vm1")
	if left, err := filepath.Glob(filepath.Join(w.host.Dir, "*.json")); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// TestADeviceComesBackWithoutARecord: that the record cannot be written is no reason to let I/O wait.
func TestADeviceComesBackWithoutARecord(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	d := w.mustAttach("vm1", options())
	d.write([]byte("mine"), 0)
	p, record := d.record().Server.Process, w.host.files(d.key()).record
	if err := errors.Join(os.Remove(record), os.MkdirAll(filepath.Join(record, "in the way"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := p.end(t.Context(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	read := make(chan error, 1)
	go func() { read <- w.kernel.read(d.Index, got, 0) }()
	w.until("tried", func() bool {
		return len(read) > 0 || strings.Count(w.log.String(), record) > 3
	})
	if err := os.RemoveAll(record); err != nil {
		t.Fatal(err)
	}
	if len(read) == 0 {
		t.Fatal("the device waits")
	}
	if err := <-read; err != nil || string(got) != "mine" {
		t.Errorf("%q, %v", got, err)
	}
	w.until("recorded", func() bool {
		r, err := w.host.load(d.key())
		return err == nil && r.Connected && r.Server.Process.alive()
	})
	d.detach(false)
	w.free("vm1")
}

// lingering is a kernel on which another program opens a device at the moment of its end, until it was looked at a few times.
type lingering struct {
	*fakeKernel
	looks   int
	release func()
}

func (k *lingering) Disconnect(index int) error {
	k.looks, k.release = 3, k.hold(index)
	return k.fakeKernel.Disconnect(index)
}

func (k *lingering) Devices() ([]kernel.Device, error) {
	if k.looks--; k.looks == 0 {
		k.release()
	}
	return k.fakeKernel.Devices()
}

// TestDetachWaitsForTheEndOfTheDevice, so that the next attach does not find it.
func TestDetachWaitsForTheEndOfTheDevice(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	d := w.mustAttach("vm1", options())
	d.end()
	w.host.Kernel = &lingering{fakeKernel: w.kernel}
	d.detach(false)
	if all := must(w.kernel.Devices()); len(all) > 0 {
		t.Errorf("the device is there: %+v", all)
	}
}

// TestANameThatTwoDevicesHave means the volume that has it now.
func TestANameThatTwoDevicesHave(t *testing.T) {
	for range 4 { // the order of the records is that of random ids
		w := newWorld(t)
		w.ok("create", "vm1", "--size", "1M")
		old := w.mustAttach("vm1", options())
		old.end()
		if err := old.record().Server.Process.end(t.Context(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got, ok := w.host.ByName(t.Context(), w.pool(), "vm1"); !ok || got.ID != old.ID {
			t.Errorf("%+v, %v", got, ok)
		}
		w.ok("rename", "vm1", "vm2")
		w.ok("create", "vm1", "--size", "1M")
		now := w.mustAttach("vm1", options())
		if got, ok := w.host.ByName(t.Context(), w.pool(), "vm1"); !ok || got.ID != now.ID {
			t.Errorf("%+v, %v: want %s, not %s", got, ok, now.ID, old.ID)
		}
		now.detach(false)
		old.detach(true)
	}
}
