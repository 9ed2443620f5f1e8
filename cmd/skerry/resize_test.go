package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"skerry/drivers"
	"skerry/drivers/local"
	"skerry/locking"
	"skerry/volume/catalog"
)

func TestResize(t *testing.T) {
	w := newPool(t)
	data := noise(8*mib, 1)
	w.put("vm1", data)
	w.script(`
		resize vm1 10M
		info vm1                            | 10 MiB
		resize vm1 +6M
		info vm1                            | 16 MiB
		resize vm1 16M
		2 resize vm1 4M                     | vm1 lost --allow-shrink
		2 resize vm1 -- -4M                 | vm1 lost --allow-shrink
		2 resize vm1 --allow-shrink -- -16M | vm1 cannot
		2 resize vm1 +-1M                   | sign
		2 resize vm1 0                      | above
		2 resize vm1 1000                   | multiple 512
		2 resize vm1@s 1M
		10 resize none 1M                   | none
		info vm1                            | 16 MiB`)
	var r resized
	if err := json.Unmarshal([]byte(w.ok("resize", "vm1", "4097K", "--allow-shrink", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	if r.Size != 4097<<10 || r.Freed == 0 || r.Left || r.Holder != nil {
		t.Errorf("resize tells %+v", r)
	}
	w.ok("resize", "vm1", "8M")
	clear(data[4097<<10:])
	w.has("vm1", data) // what was cut off does not come back
	w.ok("gc")
	if out := w.ok("check"); out != "" {
		t.Error(out)
	}
}

// TestResizeOfAServedVolume: it grows in the process that serves it, for those that connect from then on.
func TestResizeOfAServedVolume(t *testing.T) {
	w := newPool(t)
	data := noise(5*mib, 2)
	w.put("vm1", data)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	old := w.dial(s, "vm1")
	w.script(`
		resize vm1 +7M
		13 resize vm1 1M --allow-shrink     | vm1 process
		2 resize vm1 1M                     | vm1 --allow-shrink
		info vm1                            | 12 MiB`)
	if old.Export.Size != 5*mib {
		t.Errorf("a connection sees %d bytes", old.Export.Size)
	}
	c := w.dial(s, "vm1")
	if c.Export.Size != 12*mib {
		t.Errorf("a new connection sees %d bytes", c.Export.Size)
	}
	c.has(make([]byte, mib), 5*mib)
	c.write([]byte("end"), 12*mib-3)
	old.has(data, 0)
	old.close()
	c.close()
	s.stop()
	w.has("vm1", append(slices.Concat(data, make([]byte, 7*mib-3)), "end"...))
}

// TestResizeByIsNotDoneTwice: the holder dies when it has made the volume larger, before it can say so.
func TestResizeByIsNotDoneTwice(t *testing.T) {
	w := newPool(t)
	w.put("vm1", noise(5*mib, 4))
	id, err := locking.LocalIdentity()
	if err != nil {
		t.Fatal(err)
	}
	id.Socket = w.path("holder")
	backend, err := local.Open(w.pool)
	if err != nil {
		t.Fatal(err)
	}
	engine := drivers.NewEngine(backend, drivers.Options{})
	pool, err := catalog.Open(t.Context(), engine, catalog.Options{Identity: id})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := pool.OpenVolume(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", id.Socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/process", func(rw http.ResponseWriter, _ *http.Request) { rw.Write([]byte("{}")) })
	mux.HandleFunc("POST /v1/volumes/vm1/size", func(http.ResponseWriter, *http.Request) {
		_, err := pool.Resize(context.Background(), "vm1", catalog.ResizeOptions{Size: 7 * mib, By: true})
		if err := errors.Join(err, dev.Close(context.Background()), pool.Close(context.Background()), engine.Close()); err != nil {
			t.Error(err)
		}
		panic(http.ErrAbortHandler) // cuts the connection
	})
	server := http.Server{Handler: mux}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	var r resized
	if err := json.Unmarshal([]byte(w.ok("resize", "vm1", "+7M", "--json")), &r); err != nil || r.Size != 12*mib {
		t.Errorf("the volume has %d bytes, want %d: %v", r.Size, 12*mib, err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}

func TestFlatten(t *testing.T) {
	w := newPool(t)
	data := noise(9*mib, 3)
	w.put("golden", data)
	w.script(`
		snapshot golden@v1
		clone golden@v1 vm1
		clone golden@v1 vm2
		snapshot vm2@mine
		13 rm golden@v1                     | vm1 vm2 flatten
		flatten vm1
		flatten vm1
		flatten golden
		10 flatten none                     | none
		2 flatten vm1@s
		flatten vm2
		info vm2                            | golden@v1
		13 rm golden@v1                     | vm2
		rm vm2@mine
		flatten vm2
		rm golden@v1
		rm golden
		gc
		check                               | `)
	if out := w.ok("info", "vm1"); strings.Contains(out, "golden") {
		t.Error(out)
	}
	w.has("vm1", data)
	w.has("vm2", data)
}

// TestFlattenOfAServedVolume is done by the process that serves it, which can be ended meanwhile.
func TestFlattenOfAServedVolume(t *testing.T) {
	w := newPool(t)
	data := noise(9*mib, 4)
	w.put("golden", data)
	w.script(`
		snapshot golden@v1
		clone golden@v1 vm1`)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	c := w.dial(s, "vm1")
	c.write([]byte("mine"), 5*mib)
	copy(data[5*mib:], "mine")
	w.script(`
		flatten vm1
		rm golden@v1
		rm golden`)
	c.has(data, 0)
	c.write([]byte("later"), mib)
	copy(data[mib:], "later")
	c.close()
	s.stop()
	w.has("vm1", data)
	w.ok("gc")
	if out := w.ok("check"); out != "" {
		t.Error(out)
	}
}
