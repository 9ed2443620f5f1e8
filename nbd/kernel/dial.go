package kernel

import (
	"context"
	"fmt"
	"net"
	"os"

	"skerry/nbd/client"
)

// Dial makes n connections to an export, ready for Connect or Reconfigure. If the export allows only one, it makes one. The caller closes the sockets.
func Dial(ctx context.Context, network, address, export string, n int) (sockets []*os.File, e client.Export, err error) {
	defer func() {
		if err != nil {
			Close(sockets)
			sockets = nil
		}
	}()
	var d net.Dialer
	for len(sockets) < n && (len(sockets) == 0 || CanMultiConn(e)) {
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return sockets, e, err
		}
		s, now, err := client.HandOver(ctx, conn, export)
		if err != nil {
			return sockets, e, err
		}
		sockets = append(sockets, s)
		if len(sockets) > 1 && now != e {
			return sockets, e, fmt.Errorf("%w: the export %q changed between two connections", client.ErrProtocol, export)
		}
		e = now
	}
	return sockets, e, nil
}

// Close closes sockets. Those that the kernel has taken stay connected.
func Close(sockets []*os.File) {
	for _, s := range sockets {
		s.Close()
	}
}
