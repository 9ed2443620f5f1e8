package hash

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"

	"skerry/volume"
)

// LeafSize is the number of bytes of content in a leaf.
const LeafSize = 4 << 20

// Size is the number of bytes of a hash.
const Size = 32

// The contexts that the keys of the three kinds of hashes are derived from.
const (
	leafContext = "skerry hash 1 leaf"
	nodeContext = "skerry hash 1 node"
	sumContext  = "skerry hash 1 sum"
)

// prefix begins the text of a sum. Another definition of the hash gets another one.
const prefix = "skerry1-"

// ErrSyntax says that a text is no sum.
var ErrSyntax = errors.New("no content hash")

// Sum is the hash of some content. It is comparable.
type Sum [Size]byte

// String returns "skerry1-" and 64 hexadecimal digits.
func (s Sum) String() string { return prefix + hex.EncodeToString(s[:]) }

// ParseSum reads what String writes. It fails with ErrSyntax.
func ParseSum(text string) (Sum, error) {
	var s Sum
	digits, ok := strings.CutPrefix(text, prefix)
	if n, err := hex.Decode(s[:], []byte(digits[:min(len(digits), 2*Size)])); !ok || err != nil || n != Size || s.String() != text {
		return Sum{}, fmt.Errorf("%q: %w: want %s and %d hexadecimal digits in lower case", text, ErrSyntax, prefix, 2*Size)
	}
	return s, nil
}

// Origin is what is hashed: a [volume.Device], or an image. Its content must not change meanwhile. Its methods may be called
// concurrently.
type Origin interface {
	// Size returns the length of the content in bytes.
	Size() int64
	// ReadAt fills p from off, or fails.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// Extents describes [off, off+n) in ascending order and without gaps, until fn returns false.
	Extents(ctx context.Context, off, n int64, fn func(volume.Extent) bool) error
}

// Options tune a computation. The zero value means the defaults.
type Options struct {
	// Workers is the number of leaves that are read at once; 0: 4. Each takes 256 KiB of memory.
	Workers int
	// Progress, if not nil, is called by one goroutine at a time with the bytes done, zeros included, of total.
	Progress func(done, total int64)
}

// Of returns the hash of the content of dev.
func Of(ctx context.Context, dev Origin, o Options) (Sum, error) {
	t := newTree(noGrain, nil)
	if err := grow(ctx, t, dev, o, nil); err != nil {
		return Sum{}, err
	}
	return t.sum(dev.Size()), nil
}

// grow adds the leaves of dev to a tree. See eachLeaf for failed.
func grow(ctx context.Context, t *tree, dev Origin, o Options, failed func(leaf uint64, err error)) error {
	return eachLeaf(ctx, dev, o, func(l *leaf) error {
		switch {
		case l.zeros > 0:
			t.addZeros(l.zeros)
		case l.err != nil && failed == nil:
			return l.err
		case l.err != nil:
			failed(l.index, l.err)
			fallthrough
		default:
			t.add(l.hash, 0)
		}
		return nil
	})
}

// sumOf returns the hash of content of size bytes whose tree has this root.
func sumOf(size int64, root [Size]byte) (s Sum) {
	b := binary.LittleEndian.AppendUint64(nil, uint64(size))
	blake3.DeriveKey(sumContext, append(b, root[:]...), s[:])
	return s
}
