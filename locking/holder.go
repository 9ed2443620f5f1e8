package locking

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"skerry/chunk"
	"skerry/mapper"
)

// The errors of leases. They come wrapped; test with [errors.Is].
var (
	// ErrHeld says that a living process holds the volume. It comes as a [HeldError].
	ErrHeld = errors.New("leased by another process")
	// ErrLost says that a lease ended against its holder's will.
	ErrLost = errors.New("lease lost")
	// ErrReleased says that a lease was released or abandoned before.
	ErrReleased = errors.New("lease was released")
	// ErrClosed says that the instance is closed.
	ErrClosed = errors.New("closed")
)

// Holder says which process a volume was granted to, as its root does.
type Holder = mapper.Holder

// HeldError says who holds a volume. It matches [ErrHeld].
type HeldError struct {
	Volume string // its name, or its id if it has none
	Holder Holder
}

// Error names the volume, the holder and the next step.
func (e *HeldError) Error() string {
	s := fmt.Sprintf("volume %s is leased by process %d on host %s", e.Volume, e.Holder.PID, e.Holder.Host)
	if !e.Holder.Since.IsZero() {
		s += " since " + e.Holder.Since.Format(time.RFC3339)
	}
	return s + ": have that process release it, or end it"
}

// Is reports whether target is ErrHeld.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

func heldError(r *mapper.Root) error {
	name := r.Name
	if name == "" {
		name = r.Volume.String()
	}
	return &HeldError{Volume: name, Holder: r.Holder}
}

// instanceName returns the name of the instance file of a nonce.
func instanceName(nonce [16]byte) string {
	return chunk.InstanceName(hex.EncodeToString(nonce[:]))
}

// parseInstanceName returns the nonce of an instance file's name.
func parseInstanceName(name string) (nonce [16]byte, ok bool) {
	id, err := chunk.ParseVolumeID(name[len(chunk.InstanceGroup)+1:])
	return id, err == nil
}
