// Command skerry keeps virtual-machine disks in a pool of copy-on-write chunks.
//
// This package is the composition root: it alone names storage backends. Each command has a file of its own;
// what they share is in app.go (flags, exit), session.go (an open pool) and holder.go (volumes that
// another process holds).
package main

import (
	"context"
	"os"

	"skerry/cmd/internal/config"
)

// version is set when the binary is linked.
var version = "unknown"

func main() {
	a := newApp(os.Stdin, os.Stdout, os.Stderr, config.System())
	os.Exit(a.run(context.Background(), os.Args[1:]))
}
