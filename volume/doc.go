// Package volume holds the [Device]: a volume or a snapshot that is open for I/O.
package volume
