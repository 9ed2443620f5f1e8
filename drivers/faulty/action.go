package faulty

import (
	"fmt"

	"skerry/drivers"
)

// SectorSize is the unit in bytes in which writes are torn.
const SectorSize = 512

// Call is one call of the backend or of one of its objects.
type Call struct {
	N           int64 // the running number, from 1
	Kind        drivers.Kind
	Name        string
	Off, Length int64 // bytes; of a Replace, Length is the content's
}

// String returns the call without its number, as "write a/b 0+512".
func (c Call) String() string {
	switch c.Kind {
	case drivers.OpRead, drivers.OpWrite, drivers.OpPunch, drivers.OpAllocate:
		return fmt.Sprintf("%s %s %d+%d", c.Kind, c.Name, c.Off, c.Length)
	}
	return fmt.Sprintf("%s %s", c.Kind, c.Name)
}

// Action is what happens to a call. The zero value lets it through.
type Action struct {
	Wait <-chan struct{} // the call waits until this is closed or sent to, before anything else
	Err  error           // the answer, also where the call was done

	skip    bool
	late    bool
	twice   bool
	again   bool
	torn    bool
	sectors int
}

// ErrUnknown is an answer that gives no verdict.
var ErrUnknown = fmt.Errorf("%w: %w", drivers.ErrUnavailable, drivers.ErrUnknownOutcome)

// Pass lets the call through.
func Pass() Action { return Action{} }

// Fail answers err and does nothing.
func Fail(err error) Action { return Action{Err: err, skip: true} }

// FailAfter does the call and answers err all the same.
func FailAfter(err error) Action { return Action{Err: err} }

// Delay lets the call through after release was closed or sent to; never, if it is not.
func Delay(release <-chan struct{}) Action { return Action{Wait: release} }

// Tear does the first sectors of a write, counted from the first that it touches, and answers err. Of other calls it does nothing.
func Tear(sectors int, err error) Action { return Action{Err: err, torn: true, sectors: sectors} }

// Late answers [ErrUnknown] and holds the mutation for [Backend.TakeHeld]. Calls that mutate nothing fail.
func Late() Action { return Action{Err: ErrUnknown, skip: true, late: true} }

// Twice does the call twice and answers the first outcome.
func Twice() Action { return Action{twice: true} }

// Again does the call and holds a copy of the mutation for [Backend.TakeHeld].
func Again() Action { return Action{again: true} }

// Hook decides what happens to a call. It is called by several goroutines at once.
type Hook func(Call) Action

// At applies a to the call with the running number n.
func At(n int64, a Action) Hook {
	return On(func(c Call) bool { return c.N == n }, a)
}

// On applies a to the calls for which match is true.
func On(match func(Call) bool, a Action) Hook {
	return func(c Call) Action {
		if match(c) {
			return a
		}
		return Action{}
	}
}

// OnKind applies a to the calls of these kinds.
func OnKind(a Action, kinds ...drivers.Kind) Hook {
	return On(func(c Call) bool {
		for _, k := range kinds {
			if c.Kind == k {
				return true
			}
		}
		return false
	}, a)
}
