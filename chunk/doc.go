// Package chunk holds what the word chunk means: how a volume is cut into chunks and
// blocks, sets of blocks, identifiers and serials, and the names of all
// objects. It imports nothing of the project.
package chunk
