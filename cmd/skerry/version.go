package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

type versionResult struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    `Print the version of the program, of the Go that built it, and the platform.`,
		Example: `  skerry version --json`,
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.printVersion() },
	}
}

func (a *app) printVersion() error {
	v := versionResult{version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	return a.print.Result(v, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "skerry %s, %s, %s\n", v.Version, v.Go, v.Platform)
		return err
	})
}
