package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"skerry/drivers"
	"skerry/nbd/client"
	"skerry/nbd/kernel"
	"skerry/volume/catalog"
)

// errOther says that a server shows something else under the name by now.
var errOther = errors.New("another volume has the name by now")

// socketURI returns the URI of an export behind a Unix socket.
func socketURI(path, export string) string {
	query := strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(path))
	return "nbd+unix:///" + url.PathEscape(export) + "?socket=" + query
}

// ParseURI reads the URI of somebody's server and returns it in the one form that this package uses.
func ParseURI(s string) (string, error) {
	network, address, export, err := client.ParseURI(s)
	if err != nil {
		return "", err
	}
	if network == "unix" {
		if !filepath.IsAbs(address) {
			return "", fmt.Errorf("nbd uri %q: want an absolute path of the socket", s)
		}
		return socketURI(filepath.Clean(address), export), nil
	}
	if host, _, err := net.SplitHostPort(address); err != nil || host == "" {
		return "", fmt.Errorf("nbd uri %q: no host", s)
	}
	return "nbd://" + address + "/" + url.PathEscape(export), nil
}

// dial makes connections to a server for the kernel, as many as the server allows, and returns its process if that can be known.
func dial(ctx context.Context, uri string, n int) ([]*os.File, client.Export, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	network, address, export, err := client.ParseURI(uri)
	if err != nil {
		return nil, client.Export{}, err
	}
	return kernel.Dial(ctx, network, reachable(network, address), export, n)
}

// reachable returns where to dial a server that listens on all addresses of this host.
func reachable(network, address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); network == "tcp" && err == nil && ip != nil && ip.IsUnspecified() {
		if ip.To4() != nil {
			return net.JoinHostPort("127.0.0.1", port)
		}
		return net.JoinHostPort("::1", port)
	}
	return address
}

// probe asks a server what an export is like, without opening it. It returns the server's process too, if that can be known.
func probe(ctx context.Context, uri string) (client.Export, Process, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	network, address, export, err := client.ParseURI(uri)
	if err != nil {
		return client.Export{}, Process{}, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, reachable(network, address))
	if err != nil {
		return client.Export{}, Process{}, err
	}
	p := peerOf(conn)
	e, err := client.Info(ctx, conn, export)
	return e, p, err
}

// reached returns nil if the server of a device answers; of one that is not asked, what its keeper knows.
func (h *Host) reached(ctx context.Context, r Record) error {
	if !r.Server.Single {
		_, _, err := probe(ctx, r.Server.URI)
		return err
	}
	if now, err := h.load(r.key()); err != nil || !now.Connected {
		return errors.Join(errors.New("its connection is broken"), err)
	}
	return nil
}

// connect makes connections to a server and sees to it that they are to what the device is of: while a connection is open its export is
// open, so the name cannot go to another volume any more.
func (h *Host) connect(ctx context.Context, r Record) ([]*os.File, client.Export, error) {
	sockets, e, err := dial(ctx, r.Server.URI, r.Connections)
	if err != nil {
		return nil, e, err
	}
	if err := h.verify(ctx, r.Target); err != nil {
		kernel.Close(sockets)
		return nil, e, err
	}
	return sockets, e, nil
}

// verify fails with errOther if what has the target's name is not the target.
func (h *Host) verify(ctx context.Context, t Target) error {
	if t.URI != "" {
		return nil
	}
	f, err := h.Lookup(ctx, t)
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		return fmt.Errorf("%s: %w: %w", t.Name(), errOther, err)
	case err != nil:
		return err
	case f.ID != t.ID || !f.Created.Equal(t.Created):
		return fmt.Errorf("%s: %w; the device is of volume %s", t.Name(), errOther, t.ID)
	}
	return nil
}

// servedBy returns where the process that holds a volume serves it by NBD, or why that does not help.
func (h *Host) servedBy(ctx context.Context, t Target, f Found, readOnly bool) (string, error) {
	if f.Reach == nil {
		return "", nil // serve tells of the holder
	}
	p, err := f.Reach.Process(ctx)
	if err != nil {
		return "", nil // dead, or it does not answer: serve takes over or tells of it
	}
	var tried []string
	for _, uri := range p.NBD {
		network, address, export, err := client.ParseURI(uri)
		if err != nil || export != "" && export != t.Name() {
			continue
		}
		here := "nbd://" + address + "/" + url.PathEscape(t.Name())
		if network == "unix" {
			here = socketURI(address, t.Name())
		}
		if p.ReadOnly && !readOnly {
			return "", fmt.Errorf("%s: process %d serves it read-only: attach it with --read-only, or end that process: %w", t.Name(), p.PID, catalog.ErrInUse)
		}
		if _, _, err := probe(ctx, here); err == nil {
			return here, nil
		}
		tried = append(tried, here)
	}
	if len(tried) > 0 {
		return "", fmt.Errorf("%s: process %d serves it at %s and does not answer there: %w", t.Name(), p.PID, strings.Join(tried, ", "), drivers.ErrUnavailable)
	}
	return "", fmt.Errorf("%s: process %d holds it and serves no NBD: end that process, or have it serve with --nbd: %w", t.Name(), p.PID, catalog.ErrInUse)
}
