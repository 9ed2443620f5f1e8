package main

import (
	endian "encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
)

// TestServeEndsCleanlyBesideAClientThatDoesNotRead: such a client is cut off, and all that was written is there.
func TestServeEndsCleanlyBesideAClientThatDoesNotRead(t *testing.T) {
	w := newPool(t)
	data := noise(8*mib, 3)
	w.put("vm1", data)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	c := w.dial(s, "vm1")
	c.write([]byte("written"), mib)
	copy(data[mib:], "written")
	network, where := endpoint(t, s.uris[0])
	deaf, err := net.Dial(network, where)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	be := endian.BigEndian
	send := func(b []byte) {
		t.Helper()
		if _, err := deaf.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	send(be.AppendUint32(nil, 3)) // fixed newstyle, no zeroes
	send(append(be.AppendUint32(be.AppendUint32([]byte("IHAVEOPT"), 1), 3), "vm1"...))
	if _, err := io.ReadFull(deaf, make([]byte, 18+10)); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(16) {
		read := be.AppendUint32(nil, 0x25609513)
		read = be.AppendUint32(read, 0)
		send(be.AppendUint32(be.AppendUint64(be.AppendUint64(read, i), 0), 8*mib))
	}
	c.has(data[:mib], 0) // the server has work of the deaf one now, or soon
	c.close()
	s.stop()
	if log := s.stderr.String(); !strings.Contains(log, "nobody read") {
		t.Errorf("nothing is said of it: %q", log)
	}
	w.has("vm1", data)
	if out := w.ok("check"); out != "" {
		t.Error(out)
	}
}
