package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages into a directory",
		Long: `Write the manual pages into a directory, which is made if it is missing: skerry.1 and one page a command. They say what --help
says. What is installed needs them under man1 of a directory that man looks in.`,
		Example: `  skerry man ~/.local/share/man/man1
  skerry man . && man ./skerry-import.1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writeMan(cmd.Root(), args[0])
		},
	}
}

// writeMan writes the page of a command and those below it. The same program writes the same bytes at any time.
func writeMan(c *cobra.Command, dir string) error {
	for _, sub := range c.Commands() {
		if sub.Name() == "help" || sub.Hidden {
			continue
		}
		if err := writeMan(sub, dir); err != nil {
			return err
		}
	}
	c.DisableAutoGenTag = true
	title := strings.ReplaceAll(c.CommandPath(), " ", "-")
	date := time.Unix(0, 0).UTC() // shown nowhere without a history
	var b bytes.Buffer
	header := &doc.GenManHeader{Title: strings.ToUpper(title), Section: "1", Source: "skerry " + version, Manual: "skerry", Date: &date}
	if err := doc.GenMan(c, header, &b); err != nil {
		return err
	}
	page := strings.Replace(b.String(), `"Jan 1970"`, `""`, 1)
	if !c.HasParent() {
		page += manTail()
	}
	return os.WriteFile(filepath.Join(dir, title+".1"), []byte(page), 0o644)
}

// manTail is what the first page says of the surroundings of the program.
func manTail() string {
	var b strings.Builder
	section := func(title string, entries [][2]string) {
		fmt.Fprintf(&b, ".SH %s\n", title)
		for _, e := range entries {
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fP\n%s\n", roff(e[0]), roff(e[1]))
		}
	}
	fmt.Fprintf(&b, ".SH EXIT STATUS\n%s", strings.ReplaceAll(exitCodes(".TP\n\\fB%d\\fP\n%s\n"), "-", `\-`))
	section("FILES", [][2]string{
		{"/etc/skerry/config.toml", "configuration of the system: pool = \"NAME\", and [pools.NAME] with url = \"file:///path\""},
		{"~/.config/skerry/config.toml", "configuration of the user, which prevails over the system's"},
		{"/var/lib/skerry", "default pool of root, made at first use"},
		{"~/.local/share/skerry", "default pool of others"},
	})
	section("ENVIRONMENT", [][2]string{
		{"SKERRY_POOL", "the pool, where --pool does not say"},
		{"GOMEMLIMIT", "memory limit of serve, mount and attach, such as 2GiB; 768MiB without it"},
		{"NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS", "what systemd tells a service and wants to be told"},
		{"XDG_CONFIG_HOME", "directory in place of ~/.config"},
		{"XDG_DATA_HOME", "directory in place of ~/.local/share"},
		{"XDG_RUNTIME_DIR", "directory of the control sockets of processes that hold volumes"},
	})
	return b.String()
}

// roff makes text plain to troff.
func roff(s string) string { return strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s) }
