package client_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"

	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
)

// TestHandOverLeavesWhatFollowsTheHandshake lets the server send more right behind its last acknowledgement.
func TestHandOverLeavesWhatFollowsTheHandshake(t *testing.T) {
	conn, options := early(t, []byte("the first reply!"))
	socket, e, err := client.HandOver(t.Context(), conn, "disk")
	must(t, err)
	defer socket.Close()
	if e.Size != 1<<20 || e.Flags != proto.FlagHasFlags|proto.FlagSendFlush || e.MinBlock != 512 {
		t.Errorf("got %+v", e)
	}
	b := make([]byte, 16)
	_, err = io.ReadFull(socket, b)
	must(t, err)
	if string(b) != "the first reply!" {
		t.Errorf("the socket goes on with %q", b)
	}
	// The kernel understands simple replies only.
	if got := <-options; len(got) != 1 || got[0] != proto.OptGo {
		t.Errorf("options %v, want only GO", got)
	}
}

func TestHandOverTakesNoConnectionWithoutSocket(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	if s, _, err := client.HandOver(t.Context(), a, "disk"); err == nil {
		s.Close()
		t.Error("a pipe was handed over")
	}
	if _, err := a.Write([]byte{1}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the connection is open: %v", err)
	}
}

// early connects to a server that answers GO and sends more in the same write. It tells which options it got.
func early(t *testing.T, more []byte) (net.Conn, <-chan []uint32) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	options := make(chan []uint32, 1)
	go func() {
		var got []uint32
		defer func() { options <- got }()
		conn, err := l.Accept()
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() })
		b := binary.BigEndian.AppendUint64(nil, proto.MagicInit)
		b = binary.BigEndian.AppendUint64(b, proto.MagicOption)
		conn.Write(binary.BigEndian.AppendUint16(b, proto.FlagFixedNewstyle|proto.FlagNoZeroes))
		if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
			return
		}
		for {
			head := make([]byte, proto.OptionHeaderLen)
			if _, err := io.ReadFull(conn, head); err != nil {
				return
			}
			option := binary.BigEndian.Uint32(head[8:])
			got = append(got, option)
			if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[12:]))); err != nil {
				return
			}
			if option != proto.OptGo {
				conn.Write(proto.AppendOptionReply(nil, option, proto.RepErrUnsup))
				continue
			}
			info := binary.BigEndian.AppendUint16(nil, proto.InfoExport)
			info = binary.BigEndian.AppendUint64(info, 1<<20)
			info = binary.BigEndian.AppendUint16(info, proto.FlagHasFlags|proto.FlagSendFlush)
			sizes := binary.BigEndian.AppendUint16(nil, proto.InfoBlockSize)
			for _, n := range []uint32{512, 4096, 1 << 20} {
				sizes = binary.BigEndian.AppendUint32(sizes, n)
			}
			b := proto.AppendOptionReply(nil, option, proto.RepInfo, info)
			b = proto.AppendOptionReply(b, option, proto.RepInfo, sizes)
			b = proto.AppendOptionReply(b, option, proto.RepAck)
			conn.Write(append(b, more...))
			return
		}
	}()
	conn, err := net.Dial("unix", path)
	must(t, err)
	return conn, options
}
