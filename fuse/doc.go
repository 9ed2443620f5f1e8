// Package fuse shows volumes and snapshots as files of a directory.
package fuse
