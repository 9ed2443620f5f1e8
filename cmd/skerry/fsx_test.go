package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"skerry/cmd/internal/control"
	"skerry/volume/catalog"
	"skerry/volume/fsxtest"
)

// A volume is exercised at random through the doors that it is reached by, and compared with a model: package fsxtest says how. It begins as a clone; its
// server is restarted and killed, and nothing may be lost of what was answered.

// door is a way to the content of the volume vm1 while its process runs. Its Disk methods may be called concurrently.
type door interface {
	fsxtest.Disk
	// open goes through the door. The size is right afterwards.
	open(s *server) error
	// close is no longer there when it returns, as far as the door can tell; also if the process is dead.
	close() error
	// readSnapshot returns the content of a snapshot of the volume. It needs no open door.
	readSnapshot(s *server, name string) ([]byte, error)
}

// fsxVolume is the volume vm1 behind one or several doors. Each request goes through one of them, chosen at random.
type fsxVolume struct {
	w       *world
	start   func() *server
	s       *server
	doors   []door
	control *control.Client

	mu   sync.Mutex
	rand *rand.Rand
}

// fsxSize is that of the volume at first.
const fsxSize = mib + 300*1024 + 3*sector

// newFsxVolume makes a clone of an image with data and zeros, with chunks of some size, and opens the doors to it.
func newFsxVolume(w *world, seed uint64, chunk int64, start func() *server, doors ...door) (v *fsxVolume, content []byte) {
	w.t.Helper()
	content = noise(fsxSize, seed)
	clear(content[100_000:200_000])
	clear(content[mib-4096 : mib+4096])
	w.put("base", content, "--chunk-size", fmt.Sprint(chunk))
	w.ok("snapshot", "-q", "base@s")
	w.ok("clone", "-q", "base@s", "vm1")
	v = &fsxVolume{w: w, start: start, s: start(), doors: doors, rand: rand.New(rand.NewPCG(seed, 100))}
	if err := v.begin(); err != nil {
		w.t.Fatal(err)
	}
	return v, content
}

// open opens all doors.
func (v *fsxVolume) open() error {
	for _, d := range v.doors {
		if err := d.open(v.s); err != nil {
			return err
		}
	}
	return nil
}

// begin opens all doors to a process that has just begun, and finds its control socket.
func (v *fsxVolume) begin() error {
	if err := v.open(); err != nil {
		return err
	}
	var info control.Volume
	if r := v.w.run(nil, "info", "vm1", "--json"); r.code != 0 {
		return errors.New(r.stderr)
	} else if err := json.Unmarshal([]byte(r.stdout), &info); err != nil {
		return err
	}
	if info.Holder == nil || info.Holder.PID != v.s.cmd.Process.Pid {
		return fmt.Errorf("process %d has vm1 open and does not hold it: %+v", v.s.cmd.Process.Pid, info.Holder)
	}
	v.control = control.NewClient(info.Holder.Socket, 0)
	return nil
}

func (v *fsxVolume) close() error {
	var errs []error
	for _, d := range v.doors {
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// reopen closes the doors, so that the volume is closed and released, and opens them.
func (v *fsxVolume) reopen() error { return errors.Join(v.close(), v.open()) }

// restart ends the process cleanly and starts another.
func (v *fsxVolume) restart() error {
	if err := v.close(); err != nil {
		return err
	}
	if err := v.s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := v.s.cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, v.s.stderr.String())
	}
	return v.again()
}

// killed ends the process as kill -9 does and starts another, while the doors are open.
func (v *fsxVolume) killed() error {
	v.s.kill()
	_ = v.close() // its process is dead
	return v.again()
}

// again starts another process.
func (v *fsxVolume) again() error {
	if text := v.s.stderr.String(); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
		return errors.New(text)
	}
	v.s = v.start()
	return v.begin()
}

// released does something for which nobody may hold the volume. Its process gives it up soon after the doors are closed.
func (v *fsxVolume) released(args ...string) error {
	if err := v.close(); err != nil {
		return err
	}
	for range 100 {
		switch r := v.w.run(nil, args...); r.code {
		case 0:
			return v.open()
		case 11, 13:
		default:
			return fmt.Errorf("%v: %s", args, r.stderr)
		}
	}
	return fmt.Errorf("%v: the volume is not released", args)
}

// aside runs a command that may run beside all else.
func (v *fsxVolume) aside(args ...string) error {
	if r := v.w.run(nil, args...); r.code != 0 || strings.Contains(r.stdout, "damage") {
		return fmt.Errorf("%v: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return nil
}

// door returns one of the doors.
func (v *fsxVolume) door() door {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.doors[v.rand.IntN(len(v.doors))]
}

// Size returns what all doors say.
func (v *fsxVolume) Size() (int64, error) {
	size, err := v.doors[0].Size()
	for _, d := range v.doors[1:] {
		if n, err := d.Size(); err != nil || n != size {
			return n, errors.Join(err, fmt.Errorf("%T says %d bytes, %T %d", d, n, v.doors[0], size))
		}
	}
	return size, err
}

func (v *fsxVolume) ReadAt(p []byte, off int64) error { return v.door().ReadAt(p, off) }

func (v *fsxVolume) WriteAt(p []byte, off int64, durable bool) error {
	return v.door().WriteAt(p, off, durable)
}

func (v *fsxVolume) Zero(off, n int64) error  { return v.door().Zero(off, n) }
func (v *fsxVolume) Punch(off, n int64) error { return v.door().Punch(off, n) }
func (v *fsxVolume) Sync() error              { return v.door().Sync() }

func (v *fsxVolume) Extents(off, n int64) ([]fsxtest.Extent, error) { return v.door().Extents(off, n) }

// resizer is a door through which the volume can be resized. It is made smaller while no other door is open.
type resizer interface{ resize(size int64) error }

// Resize resizes the volume through a door that can; else it makes it larger in its process, or smaller while nobody holds it.
func (v *fsxVolume) Resize(size int64) error {
	now, err := v.Size()
	if err != nil {
		return err
	}
	d := v.door()
	r, ok := d.(resizer)
	switch {
	case ok:
		err = v.alone(d, size < now, func() error { return r.resize(size) })
	case size < now:
		err = v.released("resize", "-q", "--allow-shrink", "vm1", fmt.Sprint(size))
	default:
		_, err = v.control.Resize(v.w.t.Context(), "vm1", control.NewSize{Size: size})
	}
	if err != nil {
		return err
	}
	return v.resized(size)
}

// alone does something while only one door is open, if that matters.
func (v *fsxVolume) alone(d door, matters bool, do func() error) error {
	if !matters {
		return do()
	}
	for _, other := range v.doors {
		if other != d {
			if err := other.close(); err != nil {
				return err
			}
		}
	}
	// The process notices a while after the doors that they are closed.
	err := do()
	for range 1000 {
		if !errors.Is(err, syscall.EBUSY) {
			break
		}
		err = do()
	}
	for _, other := range v.doors {
		if other != d && err == nil {
			err = other.open(v.s)
		}
	}
	return err
}

// resized makes sure that all doors see another size: connections never see one.
func (v *fsxVolume) resized(size int64) error {
	for _, d := range v.doors {
		var err error
		if f, ok := d.(*fuseDoor); ok {
			err = f.sees(size)
		} else if n, _ := d.Size(); n != size {
			err = errors.Join(d.close(), d.open(v.s))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *fsxVolume) Snapshot(name string) error {
	_, err := v.control.Snapshot(v.w.t.Context(), "vm1", name)
	return err
}

func (v *fsxVolume) ReadSnapshot(name string) ([]byte, error) {
	return v.door().readSnapshot(v.s, name)
}

// RemoveSnapshot removes a snapshot, which then can be read through no door. Who has read it last may not be gone yet.
func (v *fsxVolume) RemoveSnapshot(name string) error {
	_, err := v.control.RemoveSnapshot(v.w.t.Context(), "vm1", name)
	for i := 0; i < 1000 && errors.Is(err, catalog.ErrInUse); i++ {
		_, err = v.control.RemoveSnapshot(v.w.t.Context(), "vm1", name)
	}
	if err != nil {
		return err
	}
	if _, err := v.door().readSnapshot(v.s, name); err == nil {
		return errors.New("the snapshot can still be read")
	}
	return nil
}

func (v *fsxVolume) Rollback(name string) error { return v.released("rollback", "-q", "vm1@"+name) }

// options are those of most tests.
func (v *fsxVolume) options(seed uint64, content []byte, chunk int64) fsxtest.Options {
	return fsxtest.Options{
		Seed: seed, Content: content, Chunk: chunk, Beside: true, MaxSize: 3 * mib, Resize: 150, Snapshot: 250, Rollback: 1000,
		Actions: []fsxtest.Action{
			{Name: "reopen", Every: 700, Do: v.reopen},
			{Name: "restart the server", Every: 2000, Do: v.restart},
			{Name: "kill -9 the server", Every: 1000, Do: v.killed},
			{Name: "gc", Every: 4000, Do: func() error { return v.aside("gc", "-q") }},
			{Name: "check", Every: 8000, Do: func() error { return v.aside("check") }},
			{Name: "flatten", Every: 8000, Do: func() error { return v.aside("flatten", "-q", "vm1") }},
		},
	}
}

// exercise makes operations, and compares all in the end: through the doors, after a clean end, and with what export says.
func (v *fsxVolume) exercise(o fsxtest.Options, operations int) {
	v.w.t.Helper()
	e, err := fsxtest.New(v, o)
	if err != nil {
		v.w.t.Fatal(err)
	}
	if err := errors.Join(e.Run(operations), e.Verify()); err != nil {
		v.w.t.Fatalf("%v\n%s", err, v.s.stderr.String())
	}
	v.end(e.Content())
}

// end ends the process cleanly; the volume must have some content then.
func (v *fsxVolume) end(content []byte) {
	v.w.t.Helper()
	if err := v.close(); err != nil {
		v.w.t.Error(err)
	}
	v.s.stop()
	v.w.undamaged()
	if !bytes.Equal([]byte(v.w.ok("export", "-q", "vm1", "-")), content) {
		v.w.t.Error("the content is another after a clean end")
	}
}

// Sizes of chunks: all edges lie close to each other, or the usual one.
const (
	fsxChunk   = 64 << 10
	usualChunk = 4 * mib
)

func TestFsxNBD(t *testing.T) {
	t.Parallel()
	seed, operations := fsxtest.Settings(t, 20_000, 1_000_000)
	w := newPool(t)
	v, content := newFsxVolume(w, seed, fsxChunk, w.serveAll, &nbdDoor{w: w}, &nbdDoor{w: w}, newLibnbdDoor(w))
	v.exercise(v.options(seed, content, fsxChunk), operations)
}

func TestFsxNBDLargeChunks(t *testing.T) {
	t.Parallel()
	seed, operations := fsxtest.Settings(t, 1500, 100_000)
	w := newPool(t)
	v, content := newFsxVolume(w, seed, usualChunk, w.serveAll, &nbdDoor{w: w})
	o := v.options(seed, content, usualChunk)
	o.MaxSize = 10 * mib
	v.exercise(o, operations)
}

// TestFsxNBDStripes writes through several connections at once.
func TestFsxNBDStripes(t *testing.T) {
	t.Parallel()
	seed, operations := fsxtest.Settings(t, 4000, 200_000)
	w := newPool(t)
	v, content := newFsxVolume(w, seed, fsxChunk, w.serveAll, &nbdDoor{w: w}, &nbdDoor{w: w}, newLibnbdDoor(w))
	v.stripes(seed, content, operations)
}

// stripes lets several exercisers have a part of the volume each, at once, through one door each: blocks, and then parts of blocks. After each of
// several rounds the server is killed, when all is answered and synced or amid requests.
func (v *fsxVolume) stripes(seed uint64, content []byte, operations int) {
	v.w.t.Helper()
	const count, rounds = 4, 4
	for _, stripe := range []int64{4096, sector} {
		var parts [count]*fsxtest.Exerciser
		for i := range parts {
			part := fsxtest.Striped(v.doors[i%len(v.doors)], int64(i), count, stripe)
			size, err := part.Size()
			if err != nil {
				v.w.t.Fatal(err)
			}
			of := make([]byte, size)
			for at := int64(0); at < size; at++ {
				of[at] = content[(at/stripe*count+int64(i))*stripe+at%stripe]
			}
			o := fsxtest.Options{Seed: seed, Stream: uint64(i), Content: of, Chunk: fsxChunk / count, Longest: 16 << 10, Beside: true}
			if parts[i], err = fsxtest.New(part, o); err != nil {
				v.w.t.Fatal(err)
			}
		}
		for round := range rounds {
			err := v.stripesRound(parts[:], operations/2/rounds/count, round%2 == 1)
			for _, e := range parts {
				err = errors.Join(err, e.Settle(), e.Verify())
			}
			if err != nil {
				v.w.t.Fatalf("stripes of %d bytes, round %d: %v", stripe, round, err)
			}
		}
		for i, e := range parts {
			for at, b := range e.Content() {
				content[(int64(at)/stripe*count+int64(i))*stripe+int64(at)%stripe] = b
			}
		}
	}
	v.end(content)
}

// serveAll starts a server that leases volumes while they are used.
func (w *world) serveAll() *server {
	w.t.Helper()
	return w.serve(1, "--nbd", "unix:s")
}

// stripesRound lets all parts be exercised and kills the server: amid requests, once one part has made so many, or when all parts have and
// everything is synced.
func (v *fsxVolume) stripesRound(parts []*fsxtest.Exerciser, operations int, amid bool) error {
	var all sync.WaitGroup
	errs := make([]error, len(parts))
	first := v.rand.IntN(len(parts))
	for i, e := range parts {
		all.Go(func() {
			switch {
			case amid && i == first:
				errs[i] = e.Run(operations/2 + 1)
				v.s.kill()
			case amid:
				for errs[i] == nil { // until the server is dead
					errs[i] = e.Run(1)
				}
				if !errors.Is(errs[i], fsxtest.ErrDiffers) {
					errs[i] = nil
				}
			default:
				errs[i] = e.Run(operations)
			}
		})
	}
	all.Wait()
	err := errors.Join(errs...)
	switch {
	case err != nil:
		return err
	case amid:
		_ = v.close() // its process is dead
		return v.again()
	}
	return errors.Join(v.Sync(), v.killed())
}
