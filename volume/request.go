package volume

import "errors"

// Kind says what a [Request] does.
type Kind uint8

// The kinds of requests.
const (
	Read        Kind = iota // fill Data from Offset
	Write                   // write Data at Offset
	WriteZeroes             // make [Offset, Offset+Length) zero
	Discard                 // give back [Offset, Offset+Length), which reads as zero from then on
	Flush                   // make all writes durable that were answered before it was submitted
	Cache                   // bring [Offset, Offset+Length) into the cache; a hint
)

// Flags change how a [Request] is done.
type Flags uint8

// The flags of requests.
const (
	// FUA makes this request's own change durable before it is answered.
	FUA Flags = 1 << iota
	// NoHole makes WriteZeroes keep (or take) the space instead of giving it back.
	NoHole
	// WantHoles lets a Read report runs of zeros in Holes instead of filling Data there.
	WantHoles
)

// Request is one request to a [Device]. The submitter fills the first part and hands
// all of it, with Data and Holes, to the device with Submit. It may be used again once
// Submit returned true or Released was called.
type Request struct {
	Kind   Kind
	Flags  Flags
	Offset int64 // bytes
	Length int64 // bytes; for Read and Write it must be len(Data)
	Data   []byte
	// Holes, with WantHoles, is appended to (within its capacity, so that nothing is allocated): runs of zeros in
	// ascending order that do not touch, as offsets in the volume. Data is undefined there.
	Holes []Extent
	Done  Completer

	// Err is the outcome when Submit returned true.
	Err error

	run run
}

// Completer receives the end of requests that were not done inline.
type Completer interface {
	// Answered is called exactly once, on any goroutine, with the request's outcome.
	// It must not block. The device may still use Data, if err is not nil: a
	// request that missed its deadline is answered while the storage still holds its buffer.
	Answered(r *Request, err error)

	// Released is called exactly once, after Answered: the request, Data and Holes
	// are the submitter's again.
	Released(r *Request)
}

// Keeper is a [Completer] whose requests have Data that is theirs only until Submit returns.
type Keeper interface {
	Completer

	// Keep is called by Submit, on its caller's goroutine, for a request that was not done inline, before anybody else gets it. It may put other
	// memory in place of r.Data, with the same content, and changes nothing else.
	Keep(r *Request)
}

// ExtentFlags describe an [Extent].
type ExtentFlags uint8

// The flags of extents.
const (
	// Zero: the bytes read as zero.
	Zero ExtentFlags = 1 << iota
	// Hole: no space is in use for the bytes.
	Hole
	// Shared: the bytes lie in an object that a snapshot or a parent shares.
	Shared
)

// Extent is a run of bytes of one kind, at Offset of the volume.
type Extent struct {
	Offset, Length int64 // bytes
	Flags          ExtentFlags
}

// The errors of requests. They come wrapped; test with [errors.Is]. Errors of the
// storage (package drivers) and of the lease (package locking) show through.
var (
	ErrOutOfRange = errors.New("beyond the end of the volume")
	ErrReadOnly   = errors.New("volume is read-only")
	ErrInvalid    = errors.New("invalid request")
	ErrClosed     = errors.New("volume is closed")
	ErrDamaged    = errors.New("volume is damaged")
	ErrFailed     = errors.New("volume has failed: an earlier flush did not reach the storage")
)
