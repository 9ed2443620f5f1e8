package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/failure"
)

// exitCodesTopic is a page of help: "skerry help exit-codes".
func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes of the program say",
		Long: `What the exit codes of the program say:

` + exitCodes("  %3d  %s\n") + `
An error is told on stderr as "skerry: " with the thing that it is about, and the next step, in the message or on a
line that begins with "next: ". With --json it is one object with the fields error, next and exit.

The first SIGINT (Ctrl-C) or SIGTERM ends a command cleanly, with 130: what is half done does not show. The second
one ends it at once. serve ends with 0 then: being ended so is how its work is done.`,
	}
}

// exitCodes writes all exit codes with their meanings.
func exitCodes(format string) string {
	var b strings.Builder
	for _, e := range failure.Exits() {
		fmt.Fprintf(&b, format, e.Code, e.Meaning)
	}
	return b.String()
}
