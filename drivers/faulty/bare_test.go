package faulty_test

import (
	"context"

	"skerry/drivers"
)

// bare is a backend without any ability.
type bare struct{ drivers.Backend }

func (b bare) Open(ctx context.Context, name string, mode drivers.Mode) (drivers.Object, error) {
	o, err := b.Backend.Open(ctx, name, mode)
	if err != nil {
		return nil, err
	}
	return struct{ drivers.Object }{o}, nil
}
