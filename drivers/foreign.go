package drivers

import (
	"context"
	"os"
)

// FileCloner is a [Backend] that can take over a file of this host without copying it.
type FileCloner interface {
	// CloneFile makes the object called name, exclusively, with the content that f has at one moment of the call, and
	// shares the storage of that content with f: neither sees later changes of the other. When it returns nil name and content are
	// durable. It fails with errors.ErrUnsupported where the storage cannot do that with this file, and with [ErrExists] if
	// the name is taken. After an error there may be an object.
	CloneFile(ctx context.Context, name string, f *os.File) error
}

// Attacher is a [Backend] that shows content from elsewhere as objects, beside those that it stores.
type Attacher interface {
	Backend

	// Attach shows the objects of s below a group, of which the backend stores nothing, until Detach: they can be opened for
	// reading and asked for by Stat. It fails with [ErrExists] if the group is attached already, with [ErrInvalid] if it is no group.
	Attach(group string, s Source) error

	// Detach ends what Attach began, once the reads that are under way have ended. Objects that are open then fail with [ErrNotFound]
	// until the group is attached again.
	Detach(group string)
}

// Source is what an [Attacher] shows. Its methods may be called concurrently.
type Source interface {
	// Find returns the bytes of the source, [off, off+n), that are the content of the object called name; false if there is no
	// such object. It does no I/O.
	Find(name string) (off, n int64, ok bool)

	// ReadAt fills p from offset off of the source, inside of what Find returned, or fails.
	ReadAt(p []byte, off int64) error
}

// CloneFile makes the object of the content of f at this moment, as [FileCloner] says; errors.ErrUnsupported if the backend is none. f
// may be closed when it has returned, also where the outcome is unknown.
func (c Client) CloneFile(ctx context.Context, name string, f *os.File) error {
	k := c.call(OpCloneFile, name)
	k.File = f
	return c.end(ctx, k)
}
