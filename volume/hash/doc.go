// Package hash computes the content hash of a volume, a snapshot or an image: a tree of BLAKE3 hashes that depends on the
// bytes alone, not on how they are stored. docs/hash.md defines it.
//
// # The tree
//
// The content is cut into leaves of 4 MiB, the last one shorter. The hashes of two neighbours make the hash above them; one
// without a neighbour moves up as it is. The sum is the hash of the size and of the one that is left. Leaves,
// nodes and the sum use three keys, derived from different contexts, so that none can stand for another.
//
// # Zeros
//
// A complete subtree of zeros has a hash that depends on its height alone, so runs of zeros cost a few hashes whatever their length, and
// are not read.
//
// # Cells
//
// A [Tree] also has the hashes of all subtrees of one height, its cells, so that damage can be told from the rest. The height
// is chosen so that there are at most 2^20. Cells of zeros are left out.
package hash
