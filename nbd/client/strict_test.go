package client_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// against gives a client whose server is the test: it negotiates nothing, but is told what was.
func against(t *testing.T, structured bool) (*client.Client, net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	a.SetDeadline(time.Now().Add(30 * time.Second))
	b.SetDeadline(time.Now().Add(30 * time.Second))
	h := &client.Handshake{Conn: a, Structured: structured}
	if structured {
		h.Contexts = []client.Context{{ID: 9, Name: "base:allocation"}}
	}
	c := h.Client(client.Export{Size: 1 << 20})
	t.Cleanup(func() {
		b.Close()
		c.Close()
	})
	return c, b
}

// chunk returns a structured reply chunk; head and data make its payload.
func chunk(cookie uint64, flags, typ uint16, head any, data []byte) []byte {
	var payload []byte
	switch h := head.(type) {
	case int:
		payload = binary.BigEndian.AppendUint64(nil, uint64(h))
	case []uint32:
		for _, v := range h {
			payload = binary.BigEndian.AppendUint32(payload, v)
		}
	}
	payload = append(payload, data...)
	b := make([]byte, proto.ChunkLen)
	proto.PutChunk(b, flags, typ, cookie, uint32(len(payload)))
	return append(b, payload...)
}

func simple(cookie uint64, errno uint32, data []byte) []byte {
	b := make([]byte, proto.SimpleLen)
	proto.PutSimple(b, errno, cookie)
	return append(b, data...)
}

const done = proto.ChunkFlagDone

func TestRepliesThatBreakRules(t *testing.T) {
	type reply func(cookie uint64) []byte
	read := func(c *client.Client) error { return c.Read(make([]byte, 100), 1000) }
	readDF := func(c *client.Client) error { return c.ReadFlags(make([]byte, 100), 1000, client.DF) }
	flush := func(c *client.Client) error { return c.Flush() }
	status := func(c *client.Client) error { _, err := c.BlockStatus(1000, 100, 0); return err }
	one := func(c *client.Client) error { _, err := c.BlockStatus(1000, 100, client.ReqOne); return err }
	hole := func(off int, n uint32) []uint32 { return []uint32{0, uint32(off), n} }
	for name, x := range map[string]struct {
		structured bool
		call       func(c *client.Client) error
		reply      reply
	}{
		"wrong magic":            {false, flush, func(uint64) []byte { return make([]byte, 100) }},
		"unknown cookie":         {false, flush, func(c uint64) []byte { return simple(c+1, 0, nil) }},
		"cookie of an earlier":   {false, flush, func(c uint64) []byte { return simple(c+1<<32, 0, nil) }},
		"simple to read":         {true, read, func(c uint64) []byte { return simple(c, 0, make([]byte, 100)) }},
		"simple error to read":   {true, read, func(c uint64) []byte { return simple(c, 5, nil) }},
		"simple to status":       {true, status, func(c uint64) []byte { return simple(c, 0, nil) }},
		"structured, not agreed": {false, flush, func(c uint64) []byte { return chunk(c, done, proto.ChunkNone, nil, nil) }},
		"unknown flag":           {true, flush, func(c uint64) []byte { return chunk(c, 3, proto.ChunkNone, nil, nil) }},
		"none, not done":         {true, flush, func(c uint64) []byte { return chunk(c, 0, proto.ChunkNone, nil, nil) }},
		"none with payload":      {true, flush, func(c uint64) []byte { return chunk(c, done, proto.ChunkNone, nil, []byte{1}) }},
		"unknown type":           {true, flush, func(c uint64) []byte { return chunk(c, done, 77, nil, nil) }},
		"data for flush":         {true, flush, func(c uint64) []byte { return chunk(c, done, proto.ChunkOffsetData, 0, make([]byte, 1)) }},
		"no data":                {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkNone, nil, nil) }},
		"too little data":        {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkOffsetData, 1000, make([]byte, 99)) }},
		"too much data":          {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkOffsetData, 1000, make([]byte, 101)) }},
		"data before":            {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkOffsetData, 999, make([]byte, 100)) }},
		"data at 2^64-1":         {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkOffsetData, -1, make([]byte, 100)) }},
		"empty data":             {true, read, func(c uint64) []byte { return chunk(c, 0, proto.ChunkOffsetData, 1000, nil) }},
		"overlap": {true, read, func(c uint64) []byte {
			b := chunk(c, 0, proto.ChunkOffsetData, 1000, make([]byte, 60))
			return append(b, chunk(c, done, proto.ChunkOffsetHole, hole(1059, 41), nil)...)
		}},
		"same chunk again": {true, read, func(c uint64) []byte {
			b := chunk(c, 0, proto.ChunkOffsetData, 1050, make([]byte, 50))
			return append(b, chunk(c, done, proto.ChunkOffsetData, 1050, make([]byte, 50))...)
		}},
		"fragments despite DF": {true, readDF, func(c uint64) []byte {
			b := chunk(c, 0, proto.ChunkOffsetData, 1000, make([]byte, 50))
			return append(b, chunk(c, done, proto.ChunkOffsetData, 1050, make([]byte, 50))...)
		}},
		"hole of nothing":   {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkOffsetHole, hole(1000, 0), nil) }},
		"hole, short":       {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkOffsetHole, 1000, nil) }},
		"hole, outside":     {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkOffsetHole, hole(1000, 101), nil) }},
		"error 0":           {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkError, []uint32{0}, []byte{0, 0}) }},
		"error, short":      {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkError, []uint32{5}, []byte{0}) }},
		"error, message":    {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkError, []uint32{5}, []byte{0, 9, 'x'}) }},
		"error, outside":    {true, read, func(c uint64) []byte { return chunk(c, done, proto.ChunkErrorOffset, []uint32{5}, make([]byte, 10)) }},
		"status of unknown": {true, status, func(c uint64) []byte { return chunk(c, done, proto.ChunkBlockStatus, []uint32{8, 100, 0}, nil) }},
		"status of nothing": {true, status, func(c uint64) []byte { return chunk(c, done, proto.ChunkBlockStatus, []uint32{9}, nil) }},
		"status, empty":     {true, status, func(c uint64) []byte { return chunk(c, done, proto.ChunkBlockStatus, []uint32{9, 0, 0}, nil) }},
		"status, odd":       {true, status, func(c uint64) []byte { return chunk(c, done, proto.ChunkBlockStatus, []uint32{9, 100, 0, 1}, nil) }},
		"status, too much":  {true, status, func(c uint64) []byte { return chunk(c, done, proto.ChunkBlockStatus, []uint32{9, 100, 0, 5, 0}, nil) }},
		"status, past end":  {true, status, func(c uint64) []byte { return chunk(c, done, proto.ChunkBlockStatus, []uint32{9, 1 << 20, 0}, nil) }},
		"status missing":    {true, status, func(c uint64) []byte { return chunk(c, done, proto.ChunkNone, nil, nil) }},
		"status twice": {true, status, func(c uint64) []byte {
			b := chunk(c, 0, proto.ChunkBlockStatus, []uint32{9, 100, 0}, nil)
			return append(b, chunk(c, done, proto.ChunkBlockStatus, []uint32{9, 100, 0}, nil)...)
		}},
		"two of one":       {true, one, func(c uint64) []byte { return chunk(c, done, proto.ChunkBlockStatus, []uint32{9, 50, 0, 50, 1}, nil) }},
		"longer than one":  {true, one, func(c uint64) []byte { return chunk(c, done, proto.ChunkBlockStatus, []uint32{9, 101, 0}, nil) }},
		"status for flush": {true, flush, func(c uint64) []byte { return chunk(c, done, proto.ChunkBlockStatus, []uint32{9, 100, 0}, nil) }},
		"simple after chunk": {true, flush, func(c uint64) []byte {
			return append(chunk(c, 0, proto.ChunkError, []uint32{5}, []byte{0, 0}), simple(c, 0, nil)...)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c, server := against(t, x.structured)
			end := make(chan error, 1)
			go func() { end <- x.call(c) }()
			b := make([]byte, proto.RequestLen)
			_, err := io.ReadFull(server, b)
			must(t, err)
			r, _ := proto.GetRequest(b)
			server.Write(x.reply(r.Cookie)) // the client may not read all of it
			if err := <-end; !errors.Is(err, client.ErrProtocol) {
				t.Errorf("got %v", err)
			}
			if err := c.Flush(); !errors.Is(err, client.ErrProtocol) {
				t.Errorf("the connection goes on: %v", err)
			}
		})
	}
}

func TestRepliesThatAreAllowed(t *testing.T) {
	c, server := against(t, true)
	respond := func(reply func(r proto.Request) []byte) {
		go func() {
			b := make([]byte, proto.RequestLen)
			if _, err := io.ReadFull(server, b); err != nil {
				t.Error(err)
				return
			}
			r, _ := proto.GetRequest(b)
			server.Write(reply(r))
		}()
	}
	p := make([]byte, 100)
	respond(func(r proto.Request) []byte { // chunks in any order, NONE at the end
		b := chunk(r.Cookie, 0, proto.ChunkOffsetData, 1050, []byte("the end of it, fifty bytes long, as it has to be.."))
		b = append(b, chunk(r.Cookie, 0, proto.ChunkOffsetHole, []uint32{0, 1000, 50}, nil)...)
		return append(b, chunk(r.Cookie, done, proto.ChunkNone, nil, nil)...)
	})
	p[0] = 1
	must(t, c.Read(p, 1000))
	if p[0] != 0 || string(p[50:57]) != "the end" {
		t.Errorf("got %q", p)
	}
	respond(func(r proto.Request) []byte { // an unknown kind of error, after part of the data
		b := chunk(r.Cookie, 0, proto.ChunkOffsetData, 1000, make([]byte, 7))
		return append(b, chunk(r.Cookie, done, proto.ChunkFlagError|99, []uint32{28}, []byte{0, 2, 'n', 'o', 1, 2, 3})...)
	})
	err := c.Read(p, 1000)
	var e *client.ReplyError
	if !errors.Is(err, client.ENOSPC) || !errors.As(err, &e) || e.Message != "no" {
		t.Errorf("got %v", err)
	}
	respond(func(r proto.Request) []byte {
		return chunk(r.Cookie, done, proto.ChunkErrorOffset, []uint32{5}, append([]byte{0, 0}, 0, 0, 0, 0, 0, 0, 3, 232))
	})
	if err := c.Read(p, 1000); !errors.Is(err, client.EIO) {
		t.Errorf("got %v", err)
	}
	respond(func(r proto.Request) []byte { // the last extent may reach further
		return chunk(r.Cookie, done, proto.ChunkBlockStatus, []uint32{9, 10, 3, 5000, 0}, nil)
	})
	s, err := c.BlockStatus(1000, 100, 0)
	must(t, err)
	if len(s) != 1 || len(s[0]) != 2 || s[0][1].Length != 5000 {
		t.Errorf("got %v", s)
	}
	respond(func(r proto.Request) []byte { return simple(r.Cookie, 108, nil) })
	if err := c.Flush(); !errors.Is(err, client.ESHUTDOWN) {
		t.Errorf("got %v", err)
	}
}

func TestRequestsFailWhenTheServerGoes(t *testing.T) {
	c, server := against(t, false)
	end := make(chan error)
	for i := range 10 {
		go func() {
			if i%2 == 0 {
				end <- c.Read(make([]byte, 100), 0)
			} else {
				end <- c.Write(make([]byte, 1<<20), 0, 0)
			}
		}()
	}
	_, err := io.ReadFull(server, make([]byte, proto.RequestLen))
	must(t, err)
	must(t, server.Close())
	for range 10 {
		if err := <-end; !errors.Is(err, client.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	c.Wait()
	if err := c.Err(); !errors.Is(err, client.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestNegotiationEndsWithItsContext(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		io.ReadFull(b, make([]byte, 1)) // nothing comes: the client waits for the greeting
	}()
	go cancel()
	if _, err := client.New(ctx, a, client.Options{}); err == nil {
		t.Error("no error")
	}
}

func FuzzReplies(f *testing.F) {
	f.Add(true, simple(0, 0, nil))
	f.Add(true, chunk(0, done, proto.ChunkOffsetData, 1000, make([]byte, 100)))
	f.Add(true, chunk(1, done, proto.ChunkBlockStatus, []uint32{9, 100, 0}, nil))
	f.Add(true, chunk(0, 0, proto.ChunkErrorOffset, []uint32{5}, make([]byte, 10)))
	f.Add(false, simple(0, 0, make([]byte, 100)))
	f.Fuzz(func(t *testing.T, structured bool, in []byte) {
		c, server := against(t, structured)
		end := make(chan error)
		go func() { end <- c.Read(make([]byte, 100), 1000) }()
		go func() { _, err := c.BlockStatus(1000, 100, 0); end <- err }()
		b := make([]byte, 2*proto.RequestLen)
		_, err := io.ReadFull(server, b)
		must(t, err)
		server.Write(in) // fails if the client has closed
		server.Close()
		<-end
		<-end
	})
}
