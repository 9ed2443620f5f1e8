package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// eachCommand calls fn with every command of the program that does something.
func eachCommand(t *testing.T, fn func(*cobra.Command)) {
	t.Helper()
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Name() != "help" && !sub.Hidden && !sub.IsAdditionalHelpTopicCommand() {
				fn(sub)
			}
			walk(sub)
		}
	}
	walk(newApp(nil, nil, nil, systemEnv(newWorld(t))).rootCommand())
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	eachCommand(t, func(c *cobra.Command) {
		for what, text := range map[string]string{"Short": c.Short, "Long": c.Long, "Example": c.Example} {
			if text == "" {
				t.Errorf("%s has no %s", c.CommandPath(), what)
			}
		}
		if strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: %q ends with a stop", c.CommandPath(), c.Short)
		}
		if !strings.Contains(c.Example, "skerry "+strings.TrimPrefix(c.CommandPath(), "skerry ")) {
			t.Errorf("%s is not in its examples", c.CommandPath())
		}
	})
}

// TestExamplesParse parses the examples of all commands as the program does, without running them.
func TestExamplesParse(t *testing.T) {
	eachCommand(t, func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			for _, args := range skerryCalls(line) {
				root := newApp(nil, nil, nil, systemEnv(newWorld(t))).rootCommand()
				found, rest, err := root.Find(args)
				if err == nil && !found.Runnable() {
					continue // a page of help
				}
				if err == nil {
					err = found.ParseFlags(rest)
				}
				if err == nil {
					err = found.ValidateArgs(found.Flags().Args())
				}
				if err == nil {
					err = found.ValidateRequiredFlags()
				}
				if err != nil || found == root {
					t.Errorf("%s: example %q: %v", c.CommandPath(), strings.TrimSpace(line), err)
				}
			}
		}
	})
}

// skerryCalls returns the arguments of the calls of the program in a line of shell.
func skerryCalls(line string) (calls [][]string) {
	line, _, _ = strings.Cut(line, " #")
	for part := range strings.FieldsFuncSeq(line, func(r rune) bool { return strings.ContainsRune("|&;<>()", r) }) {
		f := strings.Fields(part)
		if len(f) > 0 && f[0] == "skerry" {
			calls = append(calls, f[1:])
		}
	}
	return calls
}
