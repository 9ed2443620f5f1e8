package client

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
)

const defaultPort = "10809" // as IANA assigned it

// DialURI connects to the server and export that an NBD URI names
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md): nbd://host[:port]/export or
// nbd+unix:///export?socket=path.
func DialURI(ctx context.Context, uri string, opts Options) (*Client, error) {
	network, address, export, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	opts.Export = export
	return Dial(ctx, network, address, opts)
}

// ParseURI returns what to dial and the name of the export.
func ParseURI(uri string) (network, address, export string, err error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", "", "", fmt.Errorf("parse nbd uri: %w", err)
	}
	export = strings.TrimPrefix(u.Path, "/")
	switch u.Scheme {
	case "nbd":
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		return "tcp", net.JoinHostPort(u.Hostname(), port), export, nil
	case "nbd+unix":
		if socket := u.Query().Get("socket"); socket != "" {
			return "unix", socket, export, nil
		}
		return "", "", "", fmt.Errorf("nbd uri %q: no socket", uri)
	}
	return "", "", "", fmt.Errorf("nbd uri %q: unknown scheme, want nbd or nbd+unix", uri)
}
