package volume

import "context"

// Grow does the cut that a full journal asks for: it goes on with a larger one.
func (d *Device) Grow(ctx context.Context) error {
	_, err := d.cut(ctx, cutOptions{grow: true})
	return err
}
