package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skerry/nbd/client"
)

// conn is a connection of a test's NBD client.
type conn struct {
	w *world
	*client.Client
}

// dial connects to an export behind the server's first URI.
func (w *world) dial(s *server, export string) conn {
	w.t.Helper()
	network, address := endpoint(w.t, s.uris[0])
	c, err := client.Dial(w.t.Context(), network, address, client.Options{Export: export, Structured: true})
	if err != nil {
		w.t.Fatalf("connect to %s: %v\n%s", export, err, s.stderr.String())
	}
	w.t.Cleanup(func() { _ = c.Close() }) // most tests have closed it
	return conn{w, c}
}

// endpoint returns where a URI points.
func endpoint(t *testing.T, uri string) (network, address string) {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme == "nbd+unix" {
		return "unix", u.Query().Get("socket")
	}
	return "tcp", u.Host
}

func (c conn) write(p []byte, off int64) {
	c.w.t.Helper()
	if err := c.Client.Write(p, off, 0); err != nil {
		c.w.t.Fatalf("write %d bytes at %d: %v", len(p), off, err)
	}
}

func (c conn) flush() {
	c.w.t.Helper()
	if err := c.Client.Flush(); err != nil {
		c.w.t.Fatalf("flush: %v", err)
	}
}

func (c conn) has(want []byte, off int64) {
	c.w.t.Helper()
	got := make([]byte, len(want))
	if err := c.Client.Read(got, off); err != nil {
		c.w.t.Fatalf("read %d bytes at %d: %v", len(want), off, err)
	}
	if !bytes.Equal(got, want) {
		c.w.t.Fatalf("%d bytes at %d are not what was written", len(want), off)
	}
}

func (c conn) close() {
	c.w.t.Helper()
	if err := c.Client.Close(); err != nil {
		c.w.t.Fatal(err)
	}
}

// objects returns the files of the pool in a group of any volume, sorted.
func (w *world) objects(group string) []string {
	w.t.Helper()
	var all []string
	err := filepath.WalkDir(w.pool, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(path, "/"+group+"/") {
			all = append(all, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// flagReadOnly is NBD_FLAG_READ_ONLY of proto.md's transmission flags.
const flagReadOnly = 1 << 1
