package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"

	"skerry/nbd/client"
	"skerry/volume/fsxtest"
)

// nbdDoor is a connection of our client.
type nbdDoor struct {
	w *world
	*client.Client
}

func (d *nbdDoor) dial(s *server, export string) (*client.Client, error) {
	network, address := endpoint(d.w.t, s.nbd("vm1"))
	return client.Dial(d.w.t.Context(), network, address, client.Options{Export: export, MetaContexts: []string{"base:allocation"}})
}

func (d *nbdDoor) open(s *server) (err error) {
	d.Client, err = d.dial(s, "vm1")
	return err
}

func (d *nbdDoor) close() error { return d.Close() }

func (d *nbdDoor) readSnapshot(s *server, name string) ([]byte, error) {
	c, err := d.dial(s, "vm1@"+name)
	if err != nil {
		return nil, err
	}
	p := make([]byte, c.Export.Size)
	return p, errors.Join(c.Read(p, 0), c.Close())
}

func (d *nbdDoor) Size() (int64, error)             { return d.Export.Size, nil }
func (d *nbdDoor) ReadAt(p []byte, off int64) error { return d.Read(p, off) }
func (d *nbdDoor) Sync() error                      { return d.Flush() }
func (d *nbdDoor) Punch(off, n int64) error         { return d.Trim(off, n, 0) }
func (d *nbdDoor) WriteAt(p []byte, off int64, durable bool) error {
	flags := uint16(0)
	if durable {
		flags = client.FUA
	}
	return d.Write(p, off, flags)
}

// Zero leaves holes or takes the space, by the offset.
func (d *nbdDoor) Zero(off, n int64) error {
	flags := uint16(0)
	if off%2 == 0 {
		flags = client.NoHole
	}
	return d.WriteZeroes(off, n, flags)
}

func (d *nbdDoor) Extents(off, n int64) ([]fsxtest.Extent, error) {
	list, err := d.Map(off, n)
	var all []fsxtest.Extent
	for _, x := range list {
		all = append(all, fsxtest.Extent{Offset: off, Length: int64(x.Length), Zero: x.Flags&client.StateZero != 0})
		off += int64(x.Length)
	}
	return all, err
}

// nbd returns the URI of an export. A mount's first line is its directory.
func (s *server) nbd(export string) string {
	_, address := endpoint(s.w.t, s.uris[len(s.uris)-1])
	return "nbd+unix:///" + export + "?socket=" + address
}

// libnbdDoor is a connection of libnbd, in a process that does what it reads from stdin.
type libnbdDoor struct {
	w    *world
	to   io.WriteCloser
	from *bufio.Reader

	mu   sync.Mutex
	size int64
}

const libnbdScript = `
import nbd, sys
get, put = sys.stdin.buffer, sys.stdout.buffer
def connect(uri):
    h = nbd.NBD()
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.connect_uri(uri)
    return h
def all_of(uri):
    h = connect(uri)
    data = h.pread(h.get_size(), 0)
    h.shutdown()
    return data
def extents(n, off):
    entries = []
    h.block_status(n, off, lambda context, at, list, error: entries.extend(list) or 0)
    return " ".join(map(str, entries)).encode()
for line in get:
    what, off, n = line.split()
    off, n = int(off), int(n)
    data = get.read(n) if what in (b"open", b"all", b"write", b"fua") else b""
    result = b""
    try:
        if what == b"open":
            h = connect(data.decode())
            result = b"%d" % h.get_size()
        elif what == b"close": h.shutdown()
        elif what == b"all": result = all_of(data.decode())
        elif what == b"read": result = h.pread(n, off)
        elif what == b"write": h.pwrite(data, off)
        elif what == b"fua": h.pwrite(data, off, nbd.CMD_FLAG_FUA)
        elif what == b"zero": h.zero(n, off, nbd.CMD_FLAG_NO_HOLE if off % 2 == 0 else 0)
        elif what == b"trim": h.trim(n, off)
        elif what == b"flush": h.flush()
        elif what == b"extents": result = extents(n, off)
        put.write(b"%d\n" % len(result))
        put.write(result)
    except nbd.Error as e:
        put.write(("error: %s\n" % e).encode())
    put.flush()
`

// newLibnbdDoor starts the process, which ends with the test.
func newLibnbdDoor(w *world) *libnbdDoor {
	w.t.Helper()
	c := exec.Command("/usr/bin/python3", "-c", libnbdScript) // libnbd's module is made for this Python
	c.Stderr = w.t.Output()
	to, err := c.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	from, err := c.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		w.t.Fatalf("%v: run `make deps`", err)
	}
	w.t.Cleanup(func() {
		if err := errors.Join(to.Close(), c.Wait()); err != nil {
			w.t.Errorf("libnbd's process: %v", err)
		}
	})
	return &libnbdDoor{w: w, to: to, from: bufio.NewReader(from)}
}

// answer reads an answer.
func (d *libnbdDoor) answer() ([]byte, error) {
	line, err := d.from.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("libnbd's process: %w", err)
	}
	if text, failed := strings.CutPrefix(line, "error: "); failed {
		return nil, errors.New(text)
	}
	var n int
	if _, err := fmt.Sscan(line, &n); err != nil {
		return nil, err
	}
	p := make([]byte, n)
	_, err = io.ReadFull(d.from, p)
	return p, err
}

func (d *libnbdDoor) call(what string, off, n int64, data []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := fmt.Fprintln(d.to, what, off, n); err != nil {
		return nil, err
	}
	if _, err := d.to.Write(data); err != nil {
		return nil, err
	}
	return d.answer()
}

func (d *libnbdDoor) open(s *server) error {
	uri := s.nbd("vm1")
	size, err := d.call("open", 0, int64(len(uri)), []byte(uri))
	if err == nil {
		_, err = fmt.Sscan(string(size), &d.size)
	}
	return err
}

func (d *libnbdDoor) close() error {
	_, err := d.call("close", 0, 0, nil)
	return err
}

func (d *libnbdDoor) readSnapshot(s *server, name string) ([]byte, error) {
	uri := s.nbd("vm1@" + name)
	return d.call("all", 0, int64(len(uri)), []byte(uri))
}

func (d *libnbdDoor) Size() (int64, error) { return d.size, nil }

func (d *libnbdDoor) ReadAt(p []byte, off int64) error {
	got, err := d.call("read", off, int64(len(p)), nil)
	if copy(p, got) != len(p) && err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (d *libnbdDoor) WriteAt(p []byte, off int64, durable bool) error {
	what := "write"
	if durable {
		what = "fua"
	}
	_, err := d.call(what, off, int64(len(p)), p)
	return err
}

func (d *libnbdDoor) Zero(off, n int64) error {
	_, err := d.call("zero", off, n, nil)
	return err
}

func (d *libnbdDoor) Punch(off, n int64) error {
	_, err := d.call("trim", off, n, nil)
	return err
}

func (d *libnbdDoor) Sync() error {
	_, err := d.call("flush", 0, 0, nil)
	return err
}

func (d *libnbdDoor) Extents(off, n int64) ([]fsxtest.Extent, error) {
	text, err := d.call("extents", off, n, nil)
	if err != nil {
		return nil, err
	}
	var all []fsxtest.Extent
	for text := strings.NewReader(string(text)); ; {
		var length int64
		var flags uint32
		if _, err := fmt.Fscan(text, &length, &flags); err != nil {
			return all, nil
		}
		all = append(all, fsxtest.Extent{Offset: off, Length: length, Zero: flags&client.StateZero != 0})
		off += length
	}
}
