// Package output writes what commands have to say: results to stdout, as text or as JSON, all else to stderr.
package output
