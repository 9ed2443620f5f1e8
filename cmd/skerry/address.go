package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"skerry/cmd/internal/service"
	"skerry/cmd/internal/socket"
)

// address says where NBD is served.
type address struct {
	network string // "unix", "tcp" or "systemd"
	where   string // absolute path, host:port, or the name of a socket of systemd, empty for all
	export  string // that the address names, may be empty
	group   *int   // id of the group that may connect to a Unix socket, nil: only the owner
}

const (
	nbdPort  = "10809" // registered by IANA
	loopback = "127.0.0.1"
)

// parseAddress reads unix:PATH, tcp:[HOST:]PORT, systemd:[NAME], or an NBD URI as the protocol's uri.md defines them.
func parseAddress(s string) (address, error) {
	bad := func(why string) (address, error) {
		return address{}, usage("--nbd %q: %s; want unix:/path, tcp:host:port, systemd:, nbd+unix:///NAME?socket=/path or nbd://host:port/NAME", s, why)
	}
	scheme, rest, ok := strings.Cut(s, ":")
	switch {
	case !ok:
		return bad("no address")
	case scheme == "unix":
		if rest == "" {
			return bad("no path")
		}
		path, err := filepath.Abs(rest)
		if err != nil {
			return address{}, err
		}
		return address{network: "unix", where: path}, nil
	case scheme == "tcp":
		host, port, err := net.SplitHostPort(rest)
		if err != nil {
			host, port = "", rest
		}
		return tcpAddress(host, port, "", bad)
	case scheme == "systemd":
		return address{network: "systemd", where: rest}, nil
	case scheme == "nbds" || scheme == "nbds+unix":
		return bad("TLS is not supported by this version")
	case scheme != "nbd" && scheme != "nbd+unix":
		return bad("unknown kind " + strconv.Quote(scheme))
	}
	u, err := url.Parse(s)
	if err != nil {
		return bad(err.Error())
	}
	if u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return bad("has parts that mean nothing here")
	}
	export := strings.TrimPrefix(u.Path, "/")
	if scheme == "nbd" {
		if u.RawQuery != "" {
			return bad("has parts that mean nothing here")
		}
		port := u.Port()
		if port == "" {
			port = nbdPort
		}
		return tcpAddress(u.Hostname(), port, export, bad)
	}
	path := u.Query().Get("socket")
	if u.Host != "" || len(u.Query()) != 1 || !filepath.IsAbs(path) {
		return bad("no socket=/path")
	}
	return address{network: "unix", where: filepath.Clean(path), export: export}, nil
}

func tcpAddress(host, port, export string, bad func(string) (address, error)) (address, error) {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return bad("no port " + strconv.Quote(port))
	}
	if host == "" {
		host = loopback
	}
	return address{network: "tcp", where: net.JoinHostPort(host, port), export: export}, nil
}

// loopback reports whether only this host reaches the address.
func (a address) loopback() bool {
	host, _, err := net.SplitHostPort(a.where)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// listen listens on an address; on one of systemd with all of its sockets.
func (a address) listen(ctx context.Context, passed service.Sockets) ([]net.Listener, error) {
	switch a.network {
	case "systemd":
		return passed.Listen(a.where)
	case "unix":
		l, err := socket.Listen(ctx, a.where)
		if err != nil {
			return nil, err
		}
		if a.group != nil {
			if err := socket.Share(l, *a.group); err != nil {
				return nil, errors.Join(err, l.Close())
			}
		}
		return []net.Listener{l}, nil
	}
	var c net.ListenConfig
	l, err := c.Listen(ctx, a.network, a.where)
	return []net.Listener{l}, err
}

// groupID returns the id of a group that is given by name or id, nil for "".
func groupID(s string) (*int, error) {
	if s == "" {
		return nil, nil
	}
	id := s
	if g, err := user.LookupGroup(s); err == nil {
		id = g.Gid
	}
	n, err := strconv.ParseUint(id, 10, 31)
	if err != nil {
		return nil, usage("--group %q: no such group", s)
	}
	gid := int(n)
	return &gid, nil
}

// listenAll listens on all addresses or on none.
func listenAll(ctx context.Context, addresses []address, passed service.Sockets) ([]net.Listener, error) {
	var all []net.Listener
	for _, a := range addresses {
		l, err := a.listen(ctx, passed)
		if err != nil {
			for _, open := range all {
				err = errors.Join(err, open.Close())
			}
			return nil, err
		}
		all = append(all, l...)
	}
	return all, nil
}

// exportURI returns the URI of an export behind a listener.
func exportURI(a net.Addr, name string) string {
	// Clients differ in whether a plus is a space in a query; none needs slashes to be escaped.
	queryPath := strings.NewReplacer("+", "%20", "%2F", "/")
	path := "/" + (&url.URL{Path: name}).EscapedPath()
	if a.Network() == "unix" {
		return fmt.Sprintf("nbd+unix://%s?socket=%s", path, queryPath.Replace(url.QueryEscape(a.String())))
	}
	u := "nbd://" + a.String()
	if name != "" {
		u += path
	}
	return u
}
