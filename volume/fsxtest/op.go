package fsxtest

import "fmt"

// kind is what an operation does.
type kind uint8

const (
	opRead kind = iota
	opWrite
	opZero
	opPunch
	opSync
	opExtents
	opResize
	opSnapshot
	opReadSnapshot
	opRemoveSnapshot
	opRollback
	opAction
	opVerify
)

// op is one operation.
type op struct {
	number  int
	kind    kind
	beside  bool  // it is made at once with the one before
	durable bool  // of a write
	off, n  int64 // of those on a range; the old and the new size of resize and rollback
	name    string
}

// touches reports whether an operation may change or tell what is at off.
func (o op) touches(off int64) bool {
	switch o.kind {
	case opRead, opWrite, opZero, opPunch:
		return off >= o.off && off < o.off+o.n
	case opResize:
		return off >= min(o.off, o.n) && off < max(o.off, o.n)
	case opSync, opExtents, opVerify:
		return false
	}
	return true
}

// String describes the operation.
func (o op) String() string {
	what := ""
	switch o.kind {
	case opSync:
		what = "sync"
	case opResize:
		what = fmt.Sprintf("resize from %d to %d", o.off, o.n)
	case opSnapshot:
		what = "take snapshot " + o.name
	case opReadSnapshot:
		what = "read snapshot " + o.name
	case opRemoveSnapshot:
		what = "remove snapshot " + o.name
	case opRollback:
		what = fmt.Sprintf("roll back to snapshot %s, from %d bytes to %d", o.name, o.off, o.n)
	case opAction:
		what = o.name
	case opVerify:
		what = "read all"
	default:
		verb := [...]string{opRead: "read", opWrite: "write", opZero: "zero", opPunch: "punch", opExtents: "extents of"}[o.kind]
		if o.durable {
			verb += " through"
		}
		what = fmt.Sprintf("%s [%#x, %#x), %d bytes at %d", verb, o.off, o.off+o.n, o.n, o.off)
	}
	if o.beside {
		what += ", at once with the one before"
	}
	return fmt.Sprintf("operation %d, %s", o.number, what)
}
