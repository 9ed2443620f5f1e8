package client

import (
	"context"
	"fmt"
	"net"
	"os"
)

// HandOver negotiates on conn for somebody else who will make the requests on the socket, the kernel for example: without
// structured replies, and with no byte read beyond the handshake. It closes conn and returns the socket, which is the caller's. Only TCP and Unix
// connections have one.
func HandOver(ctx context.Context, conn net.Conn, export string) (*os.File, Export, error) {
	defer conn.Close()
	var socket *os.File
	var e Export
	err := within(ctx, conn, func() error {
		filer, ok := conn.(interface{ File() (*os.File, error) })
		if !ok {
			return fmt.Errorf("a %T cannot be handed over", conn)
		}
		h, err := NewHandshake(conn)
		if err != nil {
			return err
		}
		if e, err = h.Go(export); err != nil {
			return err
		}
		socket, err = filer.File()
		return err
	})
	if err != nil {
		if socket != nil {
			socket.Close()
		}
		return nil, e, fmt.Errorf("negotiate export %q: %w", export, err)
	}
	return socket, e, nil
}
