package failure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"skerry/cmd/internal/config"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/transfer"
)

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{errors.New("any"), 1},
		{volume.ErrOutOfRange, 1},
		{volume.ErrReadOnly, 1},
		{transfer.ErrFormat, 1},
		{os.ErrNotExist, 1}, // a file, not a volume
		{ErrUsage, 2},
		{catalog.ErrNoPool, 10},
		{catalog.ErrNotFound, 10},
		{config.ErrUnknownPool, 10},
		{&locking.HeldError{Volume: "vm1"}, 11},
		{locking.ErrLost, 11},
		{catalog.ErrExists, 12},
		{catalog.ErrPoolExists, 12},
		{os.ErrExist, 12},
		{catalog.ErrInUse, 13},
		{fmt.Errorf("%w: %w", catalog.ErrInUse, locking.ErrHeld), 13},
		{drivers.ErrUnavailable, 14},
		{context.DeadlineExceeded, 14},
		{drivers.ErrNoSpace, 15},
		{&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, 15},
		{fmt.Errorf("%w: %w", volume.ErrFailed, drivers.ErrNoSpace), 15},
		{fmt.Errorf("%w: %w", transfer.ErrSpace, syscall.ENOSPC), 15},
		{transfer.ErrTooLarge, 1},
		{volume.ErrDamaged, 16},
		{mapper.ErrDamaged, 16},
		{fmt.Errorf("%w: %w", volume.ErrDamaged, drivers.ErrNotFound), 16},
		{transfer.ErrDamaged, 16},
		{transfer.ErrShort, 16},
		{context.Canceled, 130},
	} {
		err := fmt.Errorf("do a thing: %w", tt.err)
		if c := Of(err); c.Exit != tt.want {
			t.Errorf("%v: exit code %d (%s), want %d", err, c.Exit, c.Code, tt.want)
		}
	}
}

func TestClassesSurviveTheWire(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range classes() {
		if seen[c.Code] {
			t.Errorf("two classes %q", c.Code)
		}
		seen[c.Code] = true
		for _, e := range c.is {
			err := fmt.Errorf("x: %w", e)
			class := Of(err)
			back := FromWire(class.Code, err.Error())
			if Of(back).Code != class.Code || back.Error() != err.Error() {
				t.Errorf("%v: %s came as %s, %v", err, class.Code, Of(back).Code, back)
			}
		}
	}
	if c := Of(FromWire("of another version", "text")); c.Exit != ExitError {
		t.Errorf("unknown class: %+v", c)
	}
}

func TestEveryClassHasAnExitCodeAndANextStep(t *testing.T) {
	meanings := map[int]string{}
	last := -1
	for _, e := range Exits() {
		if e.Code <= last || e.Meaning == "" {
			t.Errorf("exit code %d after %d: %q", e.Code, last, e.Meaning)
		}
		last, meanings[e.Code] = e.Code, e.Meaning
	}
	// Their errors name the next step themselves; TestMessagesNameTheNextStep and TestFilesThatAreNoImages of cmd/skerry have them.
	says := map[string]bool{"no_pool": true, "pool_url": true, "format": true, "unknown_pool": true, "in_use": true, "exists": true, "file_exists": true, "not_found": true}
	for _, c := range append(classes(), Of(errors.New("any"))) {
		if meanings[c.Exit] == "" || c.Exit == 0 {
			t.Errorf("class %s: exit code %d is not told of", c.Code, c.Exit)
		}
		if says[c.Code] != (c.Next == "") {
			t.Errorf("class %s: next step %q", c.Code, c.Next)
		}
	}
}
