package nbd

import (
	"log/slog"
	"time"
)

// Options configure a [Server]. Zero values stand for the defaults.
type Options struct {
	// Logger gets the server's events; by default they are dropped.
	Logger *slog.Logger
	// MaxConnections bounds the connections at a time; those beyond it are closed at once. Default 1024.
	MaxConnections int
	// MaxRequests bounds the requests of one connection that are not answered and released. Default 256.
	MaxRequests int
	// MaxInFlight bounds the bytes of requests' buffers of all connections together. Default
	// 512 MiB, at least 64 MiB.
	MaxInFlight int64
	// HandshakeTimeout bounds the time from accepting a connection to its first request. Default 30 s.
	HandshakeTimeout time.Duration
	// Workers is the number of BLOCK_STATUS requests of one connection that run at a time. Default 4.
	Workers int
	// Errno returns the NBD error value for an error that the server does not know by itself; the
	// lease's errors, for example. It may be nil.
	Errno func(err error) (errno uint32, ok bool)
}

// Sizes in bytes.
const (
	// MaxPayload is the longest payload of a READ or WRITE.
	MaxPayload = 32 << 20

	minBlock       = 1
	preferredBlock = 4 << 10
	inputSize      = 256 << 10
	maxStraight    = 64 << 10 // longest payload that is used in the input buffer
	maxOption      = 64 << 10 // longest option that is looked at
	reserve        = 1 << 20  // of each connection, outside MaxInFlight
	minInFlight    = 64 << 20
	sendBuffer     = 1 << 20 // SO_SNDBUF

	batchReplies = 64
	batchBytes   = 256 << 10
	// Up to shareRequests that came together are answered in two parts, each of at least shareReplies.
	shareRequests = 20
	shareReplies  = 8
	maxHoles      = 32      // of one read's reply
	maxExtents    = 8 << 10 // of one BLOCK_STATUS reply
	maxPinned     = 4       // input buffers of a connection that wait for their payloads' release
	copyAfterPin  = 64      // payloads that are copied after one had to be pinned
	maxMessage    = 512     // of an error's text in a reply

	warnInterval = time.Second // of one connection's failed requests
)

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 1024
	}
	if o.MaxRequests <= 0 {
		o.MaxRequests = 256
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = 512 << 20
	}
	o.MaxInFlight = max(o.MaxInFlight, minInFlight)
	if o.HandshakeTimeout <= 0 {
		o.HandshakeTimeout = 30 * time.Second
	}
	if o.Workers <= 0 {
		o.Workers = 4
	}
	return o
}
