package attach

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"skerry/drivers"
	"skerry/locking"
	"skerry/volume/catalog"
)

func (k *kept) write(p []byte, off int64) {
	k.w.t.Helper()
	if err := k.w.kernel.write(k.Index, p, off); err != nil {
		k.w.t.Fatal(err)
	}
}

func (k *kept) has(want []byte, off int64) {
	k.w.t.Helper()
	got := make([]byte, len(want))
	if err := k.w.kernel.read(k.Index, got, off); err != nil {
		k.w.t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		k.w.t.Fatalf("%d bytes at %d differ", len(want), off)
	}
}

func TestADeviceAndItsEnd(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "8M")
	d := w.mustAttach("vm1", options())
	if d.Device != "/dev/nbd0" || d.Size != 8*mib || d.ReadOnly || d.Before || !d.Server.Own || d.Record.Connections != 2 {
		t.Errorf("%+v", d.Attached)
	}
	data := noise(3*mib, 1)
	d.write(data, mib)
	if s := w.state(); s != Connected {
		t.Error(s)
	}
	d.detach(false)
	if err := <-d.ended; err != nil {
		t.Errorf("the keeper: %v", err)
	}
	w.free("vm1")
	if got := w.ok("export", "-q", "vm1", "-"); !bytes.Equal(got[mib:4*mib], data) {
		t.Error("the volume has other data")
	}
	if left, err := filepath.Glob(filepath.Join(w.host.Dir, "*.*")); err != nil || len(left) != 2 { // the locks stay
		t.Errorf("left: %q, %v", left, err)
	}
	if _, err := w.host.Detach(t.Context(), d.Target, false); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("detached twice: %v", err)
	}
}

func TestADeviceOutlivesItsServer(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "8M")
	d := w.mustAttach("vm1", options())
	want := make([]byte, 8*mib)
	for round := range 3 {
		old := d.record().Server.Process
		for i := range 50 {
			p := noise(4096*(1+i%3), byte(round*50+i))
			off := int64(i*7919*512) % (7 * mib)
			d.write(p, off)
			copy(want[off:], p)
			if i == 25 {
				if err := old.end(t.Context(), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		d.has(want, 0) // the new server
		if now := d.record().Server.Process; now == old || !now.alive() {
			t.Errorf("server %+v, was %+v", now, old)
		}
		w.until("connected", func() bool { return w.state() == Connected })
	}
	d.detach(false)
	if got := w.ok("export", "-q", "vm1", "-"); !bytes.Equal(got, want) {
		t.Error("acknowledged writes are lost")
	}
	w.free("vm1")
}

// TestAttachAgain goes on from whatever a death left.
func TestAttachAgain(t *testing.T) {
	for name, kill := range map[string]func(w *world, d *kept){
		"keeper dead":            func(_ *world, d *kept) { d.end() },
		"keeper and server dead": func(_ *world, d *kept) { d.end(); _ = d.record().Server.Process.end(t.Context(), unix.SIGKILL) },
		"record lost":            func(w *world, d *kept) { d.end(); _ = os.Remove(w.host.files(d.key()).record) },
		"before the record of the device": func(w *world, d *kept) {
			d.end()
			r := d.record()
			r.Device, r.Index, r.Server.Process = "", 0, Process{}
			if err := w.host.save(r); err != nil {
				t.Fatal(err)
			}
		},
		"nothing dead": func(_ *world, d *kept) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ok("create", "vm1", "--size", "4M")
			w.ok("create", "other", "--size", "4M")
			other := w.mustAttach("other", options())
			d := w.mustAttach("vm1", options())
			data := noise(mib, 7)
			d.write(data, 0)
			kill(w, d)
			again := w.mustAttach("vm1", options())
			if again.Device != d.Device || !again.Before || again.Size != 4*mib {
				t.Errorf("%+v, was %+v", again.Attached, d.Attached)
			}
			again.has(data, 0)
			w.until("connected", func() bool { return again.record().Connected })
			if all, err := w.host.List(t.Context()); err != nil || len(all) != 2 {
				t.Errorf("%+v, %v", all, err)
			}
			again.detach(false)
			other.detach(false)
			w.free("vm1")
		})
	}
}

func TestTwoAttachesAtOnceMakeOneDevice(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	var wg sync.WaitGroup
	var mu sync.Mutex
	devices := map[string]int{}
	target := w.target("vm1")
	for range 4 {
		wg.Go(func() {
			d, err := w.attachTarget(target, options())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			devices[d.Device]++
		})
	}
	wg.Wait()
	if all := must(w.kernel.Devices()); len(all) != 1 || devices["/dev/nbd0"] != 4 {
		t.Errorf("%+v, %v", all, devices)
	}
	if _, err := w.host.Detach(t.Context(), target, false); err != nil {
		t.Error(err)
	}
}

func TestTheServerThatIsThereIsUsed(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "4M")
	socket := filepath.Join(w.dir, "s")
	serve := func() *child {
		t.Helper()
		c := w.command("serve", "vm1", "--nbd", "unix:"+socket)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		s := &child{process: must(processOf(c.Process.Pid)), ended: make(chan struct{})}
		go func() { _ = c.Wait(); close(s.ended) }()
		t.Cleanup(func() { _ = s.stop(t.Context(), unix.SIGKILL); <-s.ended })
		return s
	}
	s := serve()
	d := w.mustAttach("vm1", options())
	if d.Server.Own || !strings.Contains(d.Server.URI, socket) || d.Server.Process != (Process{}) && d.Server.Process != s.process {
		t.Errorf("%+v", d.Server)
	}
	d.write([]byte("one"), 0)
	if err := s.stop(t.Context(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.until("noticed", func() bool { return w.state() == Reconnecting })
	socket = filepath.Join(w.dir, "elsewhere")
	s = serve()
	d.has([]byte("one"), 0)
	d.write([]byte("two"), 0)
	d.detach(false)
	if !s.process.alive() {
		t.Error("a server that is somebody else's was ended")
	}
}

func TestAVolumeThatIsHeldWithoutNBD(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	target := w.target("vm1")
	// Held by a process that cannot be asked.
	c := w.command("serve", "vm1", "--nbd", "unix:s")
	c.Env = append(c.Env, "XDG_RUNTIME_DIR=/dev/null")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	_, err = w.attachTarget(target, options())
	var server *ServerError
	if !errors.Is(err, locking.ErrHeld) || !errors.As(err, &server) || server.Next == "" || !strings.Contains(err.Error(), "vm1") {
		t.Errorf("%v", err)
	}
	if all := must(w.kernel.Devices()); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	if left, _ := filepath.Glob(filepath.Join(w.host.Dir, "*.json")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestADeviceFollowsResizes(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "4M")
	d := w.mustAttach("vm1", options())
	w.ok("resize", "vm1", "9M")
	w.until("resized", func() bool { return must(w.kernel.Devices())[0].Size == 9*mib && d.record().Size == 9*mib })
	d.write(noise(mib, 3), 8*mib)
	d.has(noise(mib, 3), 8*mib)
	d.detach(false)
}

func TestReadOnlyDevices(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	w.ok("snapshot", "vm1@s")
	o := options()
	o.ReadOnly = true
	for name, o := range map[string]Options{"vm1": o, "vm1@s": options()} {
		d := w.mustAttach(name, o)
		if !d.ReadOnly || !must(w.kernel.Devices())[0].ReadOnly {
			t.Errorf("%s: %+v", name, d.Record)
		}
		if name == "vm1" {
			if _, err := w.attach(name, options()); !errors.Is(err, catalog.ErrInUse) {
				t.Errorf("attached again to write: %v", err)
			}
		}
		d.detach(false)
	}
	w.free("vm1")
}

func TestADeviceInUseIsNotDetached(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	d := w.mustAttach("vm1", options())
	release := w.kernel.hold(d.Index)
	if _, err := w.host.Detach(t.Context(), d.Target, false); !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), d.Device) {
		t.Errorf("%v", err)
	}
	d.write([]byte("goes on"), 0)
	if s := w.state(); s != Connected {
		t.Error(s)
	}
	// By force it goes for those who use it, and stays until they end.
	d.detach(true)
	if err := w.kernel.write(d.Index, []byte("x"), 0); err == nil {
		t.Error("written to a device that was taken away")
	}
	if s := w.state(); s != Ending {
		t.Error(s)
	}
	if _, err := w.attach("vm1", options()); !errors.Is(err, catalog.ErrInUse) {
		t.Errorf("attached to a device that ends: %v", err)
	}
	w.free("vm1")
	release()
	again := w.mustAttach("vm1", options())
	again.has([]byte("goes on"), 0)
	if again.Before {
		t.Error("the device that was taken away is there")
	}
	again.detach(false)
}

func TestForceWithAServerThatHangs(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	d := w.mustAttach("vm1", options())
	d.write([]byte("written"), 0)
	p := d.record().Server.Process
	if err := unix.Kill(p.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, p.PID, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil { // it may go on for a moment
		t.Fatal(err)
	}
	stuck := make(chan error, 1)
	go func() { stuck <- w.kernel.read(d.Index, make([]byte, 512), 0) }()
	if _, err := w.host.Detach(t.Context(), d.Target, false); !errors.Is(err, drivers.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	out := d.detach(true)
	if out.Unflushed == "" {
		t.Error("nothing is said of what may be lost")
	}
	if err := <-stuck; err == nil {
		t.Error("read from a server that is stopped")
	}
	if p.alive() {
		t.Error("the server lives")
	}
	d = w.mustAttach("vm1", options()) // the lease of a dead process is taken over
	d.has([]byte("written"), 0)
	d.detach(false)
	w.free("vm1")
}

// TestANameThatGoesToAnotherVolume: the device never gets another volume's data.
func TestANameThatGoesToAnotherVolume(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	d := w.mustAttach("vm1", options())
	d.write([]byte("mine"), 0)
	d.end()
	if err := d.record().Server.Process.end(t.Context(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.ok("rename", "vm1", "vm2")
	w.ok("create", "vm1", "--size", "1M")
	keeper := make(chan error, 1)
	go func() { keeper <- w.host.RunKeeper(t.Context(), d.key(), func(Record, error) {}) }()
	w.until("noticed", func() bool { return strings.Contains(w.log.String(), errOther.Error()) })
	if w.state() != Reconnecting {
		t.Error("connected to another volume")
	}
	w.free("vm1")
	again := w.mustAttach("vm2", options()) // takes the keeper's place
	if err := <-keeper; err != nil {
		t.Error(err)
	}
	if again.Device != d.Device || again.Name() != "vm2" {
		t.Errorf("%+v", again.Attached)
	}
	again.has([]byte("mine"), 0)
	new := w.mustAttach("vm1", options())
	if new.Device == d.Device {
		t.Error("two volumes, one device")
	}
	new.detach(false)
	again.detach(false)
}

func TestADeviceThatIsSomethingElses(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	d := w.mustAttach("vm1", options())
	w.ok("create", "vm2", "--size", "1M")
	o := options()
	o.Device = d.Device
	if _, err := w.attach("vm2", o); !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), d.ID) {
		t.Errorf("%v", err)
	}
	o.Device = "/dev/nbd7"
	if _, err := w.attach("vm1", o); !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), d.Device) {
		t.Errorf("%v", err)
	}
	moved := d.Target
	moved.Pool = "file:///elsewhere"
	if _, err := w.attachTarget(moved, options()); !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), w.pool()) {
		t.Errorf("%v", err)
	}
	e := w.mustAttach("vm2", Options{Device: "/dev/nbd7", Connections: 1, Dead: patience, Request: patience})
	if e.Device != "/dev/nbd7" {
		t.Errorf("%+v", e.Attached)
	}
	w.kernel.devices[3] = &fakeDevice{} // of nbd-client
	for path, is := range map[string]error{"/dev/nbd3": catalog.ErrInUse, "/dev/nbd4": catalog.ErrNotFound} {
		if _, err := w.host.ByDevice(path); !errors.Is(err, is) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if target, err := w.host.ByDevice("/dev/nbd7"); err != nil || target.Name() != "vm2" {
		t.Errorf("%+v, %v", target, err)
	}
	e.detach(false)
	d.detach(false)
}

// TestADeviceThatAnotherProgramDisconnects ends its server and gives the lease back.
func TestADeviceThatAnotherProgramDisconnects(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	d := w.mustAttach("vm1", options())
	if err := w.kernel.Disconnect(d.Index); err != nil {
		t.Fatal(err)
	}
	if err := <-d.ended; err != nil {
		t.Error(err)
	}
	w.free("vm1")
}

func TestADeviceHasOneKeeper(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	d := w.mustAttach("vm1", options())
	var told error
	err := w.host.RunKeeper(t.Context(), d.key(), func(_ Record, err error) { told = err })
	if !errors.Is(err, ErrKept) || !errors.Is(told, ErrKept) {
		t.Errorf("%v, told %v", err, told)
	}
	d.detach(false)
}

// TestDetachWhileTheKeeperReconnects: there is nothing to flush to, and force ends the waiting.
func TestDetachWhileTheKeeperReconnects(t *testing.T) {
	w := newWorld(t)
	w.ok("create", "vm1", "--size", "1M")
	d := w.mustAttach("vm1", options())
	d.write([]byte("acknowledged"), 0)
	serve := w.host.Serve
	d.end()
	w.host.Serve = func(Target, bool, string) (*exec.Cmd, error) { return nil, errors.New("no server today") }
	if err := d.record().Server.Process.end(t.Context(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	keeper := make(chan error, 1)
	go func() { keeper <- w.host.RunKeeper(context.Background(), d.key(), func(Record, error) {}) }()
	w.until("tried", func() bool { return strings.Contains(w.log.String(), "no server today") })
	if _, err := w.host.Detach(t.Context(), d.Target, false); !errors.Is(err, drivers.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if out := d.detach(true); out.Unflushed == "" {
		t.Error("nothing is said of what may be lost")
	}
	if err := <-keeper; err != nil {
		t.Error(err)
	}
	w.host.Serve = serve
	d = w.mustAttach("vm1", options())
	d.has([]byte("acknowledged"), 0)
	d.detach(false)
}

// TestAVolumeThatAMountHolds is attached only if the mount serves it by NBD too.
func TestAVolumeThatAMountHolds(t *testing.T) {
	for _, c := range []struct {
		name string
		nbd  []string
	}{{"without NBD", nil}, {"with NBD", []string{"--nbd", "unix:s"}}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.ok("create", "vm1", "--size", "1M")
			mnt := filepath.Join(w.dir, "mnt")
			if err := os.Mkdir(mnt, 0o700); err != nil {
				t.Fatal(err)
			}
			mount := w.command(append([]string{"mount", mnt}, c.nbd...)...)
			if err := mount.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- mount.Wait() }()
			defer func() {
				if err := errors.Join(mount.Process.Signal(unix.SIGTERM), <-ended); err != nil {
					t.Error(err)
				}
			}()
			path := filepath.Join(mnt, "vm1.raw")
			w.until("mounted", func() bool { _, err := os.Stat(path); return err == nil })
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }() // nothing is written
			d, err := w.attach("vm1", options())
			if c.nbd == nil {
				if !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), "serves no NBD") || !strings.Contains(err.Error(), strconv.Itoa(mount.Process.Pid)) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d.Server.Own {
				t.Errorf("%+v", d.Server)
			}
			d.write([]byte("by the device"), 0)
			got := make([]byte, 13)
			if _, err := f.ReadAt(got, 0); err != nil || string(got) != "by the device" {
				t.Errorf("the file has %q, %v", got, err)
			}
			d.detach(false)
		})
	}
}

// TestAServerForOneConnection is not asked for anything while the device has that connection.
func TestAServerForOneConnection(t *testing.T) {
	w := newWorld(t)
	image, socket := filepath.Join(w.dir, "image"), filepath.Join(w.dir, "q")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, mib)); err != nil {
		t.Fatal(err)
	}
	serve := func() (end func()) {
		t.Helper()
		c := exec.Command("qemu-nbd", "--persistent", "--shared=1", "--format=raw", "--socket="+socket, image)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return func() { _ = c.Process.Kill(); _ = c.Wait(); _ = os.Remove(socket) }
	}
	end := serve()
	defer func() { end() }()
	w.until("listening", func() bool { _, err := os.Lstat(socket); return err == nil })
	uri := must(ParseURI("nbd+unix:///?socket=" + socket))
	d, err := w.attachTarget(Target{URI: uri}, options())
	if err != nil {
		t.Fatal(err)
	}
	if d.Record.Connections != 1 || !d.Server.Single || d.Server.Own || d.Name() != uri {
		t.Errorf("%+v", d.Record)
	}
	d.write([]byte("one"), 0)
	if s := w.state(); s != Connected {
		t.Error(s)
	}
	end()
	w.until("noticed", func() bool { return w.state() == Reconnecting })
	if _, err := w.host.Detach(t.Context(), d.Target, false); !errors.Is(err, drivers.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	end = serve()
	d.write([]byte("two"), 3)
	d.has([]byte("onetwo"), 0)
	w.until("connected", func() bool { return w.state() == Connected })
	d.detach(false)
}
