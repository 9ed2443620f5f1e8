// Package client is an NBD client for tests and for making load. It is strict: a
// server that breaks a rule of the protocol
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md) breaks the
// connection, with an error that matches [ErrProtocol].
//
// Any number of requests may be in flight, from any goroutines. [Client.Submit] is the way without
// waiting and allocations; the other methods wait. [Handshake], [AppendRequest] and [ReadReply] are for tests that
// send what a proper client would not.
package client
