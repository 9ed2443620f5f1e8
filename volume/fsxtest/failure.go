package fsxtest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

const (
	lastTold    = 30 // operations that a failure tells of, whatever they touched
	touchedTold = 15 // operations that touched the byte that is wrong
)

// ErrDiffers says that a disk has other content than the model.
var ErrDiffers = errors.New("content differs")

// Failure is a disk that does not do what the model does.
type Failure struct {
	// Operation is the number of the operation that found it, from 0.
	Operation int
	// Offset is that of the first byte that is wrong, -1: none is.
	Offset int64
	// Err is what was returned to the operation, or ErrDiffers.
	Err error

	text string
}

// Error tells all that is known of the failure.
func (f *Failure) Error() string { return f.text }

// Unwrap returns Err.
func (f *Failure) Unwrap() error { return f.Err }

// failed describes an operation that returned an error.
func (e *Exerciser) failed(o op, err error) error {
	f := &Failure{Operation: o.number, Offset: -1, Err: err}
	f.text = fmt.Sprintf("%v: %v\n%s", o, err, e.history(-1))
	return f
}

// differs describes an operation that found got at off, where want should be.
func (e *Exerciser) differs(o op, off int64, got, want []byte) error {
	if len(got) != len(want) {
		return e.failed(o, fmt.Errorf("%d bytes, want %d", len(got), len(want)))
	}
	i := 0
	for got[i] == want[i] {
		i++
	}
	end := len(got)
	for got[end-1] == want[end-1] {
		end--
	}
	at := off + int64(i)
	f := &Failure{Operation: o.number, Offset: at, Err: ErrDiffers}
	f.text = fmt.Sprintf("%v: byte %d is %#02x, want %#02x: %s instead of %s; the last byte that is wrong is %d\n%s",
		o, at, got[i], want[i], e.origin(got[i:], at), e.origin(want[i:], at), off+int64(end-1), e.history(at))
	return f
}

// origin says which operation p, the content from off on, is of.
func (e *Exerciser) origin(p []byte, off int64) string {
	p = p[:min(8, len(p))]
	if len(bytes.Trim(p, "\x00")) == 0 {
		return "zeros"
	}
	var b [8]byte
	for n := len(p); n > 0; n /= 2 { // it may end amid them
		for i := len(e.log) - 1; i >= 0; i-- {
			o := e.log[i]
			if o.kind != opWrite || !o.touches(off) {
				continue
			}
			if fill(b[:n], o.number, off); bytes.Equal(b[:n], p[:n]) {
				return fmt.Sprintf("what operation %d wrote", o.number)
			}
		}
	}
	if off+int64(len(p)) <= int64(len(e.initial)) && bytes.Equal(p, e.initial[off:off+int64(len(p))]) {
		return "what was there at first"
	}
	return fmt.Sprintf("% x, which nobody wrote there", p)
}

// history tells of the last operations, and of those that touched the byte at off, unless that is below 0.
func (e *Exerciser) history(off int64) string {
	var b strings.Builder
	if off >= 0 {
		fmt.Fprintf(&b, "operations that touched byte %d:\n", off)
		var touched []op
		for i := len(e.log) - 1; i >= 0 && len(touched) < touchedTold; i-- {
			if o := e.log[i]; o.touches(off) {
				touched = append(touched, o)
			}
		}
		for i := len(touched) - 1; i >= 0; i-- {
			fmt.Fprintf(&b, "  %v\n", touched[i])
		}
	}
	b.WriteString("the last operations:\n")
	for _, o := range e.log[max(0, len(e.log)-lastTold):] {
		fmt.Fprintf(&b, "  %v\n", o)
	}
	fmt.Fprintf(&b, "again with: SKERRY_SEED=%d SKERRY_FSX_OPS=%d", e.options.Seed, e.number)
	return b.String()
}
