// Package mapper decides over the map of a volume: which stored objects hold each chunk. It
// keeps the map in memory page by page and defines how pages, roots and snapshot records are stored. It moves no
// guest data.
//
// # Entries
//
// The entry of a chunk is a stack of layers, newest first. A layer is one object's
// share of the chunk: each block is absent, data or zero in it. A block's content is that of the first
// layer that has it; zeros if none has.
//
// # Storage
//
// All numbers are little-endian; every object ends with the CRC-32C of all bytes before it. docs/storage-format.md
// shows each byte.
//
// # Lock order
//
// Map.mu, then page.mu. Neither is held during I/O.
package mapper
