package nbd_test

import (
	"testing"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
	"skerry/nbd/nbdtest"
	"skerry/volume"
)

// stuck is a device that is busy with the request at one offset until it is let go.
type stuck struct {
	nbd.Device
	at  int64
	let chan struct{}
}

func (d *stuck) Submit(q *volume.Request) bool {
	if q.Offset == d.at {
		<-d.let
	}
	return d.Device.Submit(q)
}

// TestHalfOfFewRepliesIsSentEarly: the client goes on while the server is busy with the rest of what came together.
func TestHalfOfFewRepliesIsSentEarly(t *testing.T) {
	const n, block = 16, 4096
	d := &stuck{nbdtest.Null(mib), 12 * block, make(chan struct{})}
	c := serveOne(t, d).raw(false)
	t.Cleanup(func() { close(d.let) })
	for round := range uint64(3) {
		var requests []byte
		for i := range uint64(n) {
			requests = client.AppendRequest(requests, client.RawRequest{
				Type: proto.CmdTrim, Cookie: round*n + i, Offset: i * block, Length: block,
			})
		}
		_, err := c.Write(requests)
		must(t, err)
		for i := range uint64(n / 2) {
			answer(t, c, round*n+i, 0)
		}
		d.let <- struct{}{}
		for i := uint64(n / 2); i < n; i++ {
			answer(t, c, round*n+i, 0)
		}
	}
}
