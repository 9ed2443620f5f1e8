package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestManualPages(t *testing.T) {
	w := newWorld(t)
	w.ok("man", w.path("man"))
	page := func(name string) string {
		b, err := os.ReadFile(filepath.Join(w.path("man"), name+".1"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	eachCommand(t, func(c *cobra.Command) {
		text := page(strings.ReplaceAll(c.CommandPath(), " ", "-"))
		for _, want := range []string{".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLE", ".SH SEE ALSO"} {
			if !strings.Contains(text, want) {
				t.Errorf("the page of %s lacks %s", c.CommandPath(), want)
			}
		}
	})
	first := page("skerry")
	for _, want := range []string{".SH EXIT STATUS", "no such pool", ".SH FILES", "config.toml", ".SH ENVIRONMENT", "SKERRY_POOL"} {
		if !strings.Contains(first, want) {
			t.Errorf("skerry.1 lacks %q", want)
		}
	}
	w.ok("man", w.path("again"))
	if out, err := exec.Command("diff", "-r", w.path("man"), w.path("again")).CombinedOutput(); err != nil {
		t.Errorf("written twice, the pages differ: %s", out)
	}
}

func TestMakeInstall(t *testing.T) {
	w := newWorld(t)
	c := exec.CommandContext(t.Context(), "make", "-C", "../..", "install", "DESTDIR="+w.path("root"), "PREFIX=/usr")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, f := range []string{
		"bin/skerry", "share/man/man1/skerry.1", "share/man/man1/skerry-import.1",
		"share/bash-completion/completions/skerry", "share/zsh/site-functions/_skerry", "share/fish/vendor_completions.d/skerry.fish",
	} {
		if st, err := os.Stat(w.path("root/usr/" + f)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v, %v", f, st, err)
		}
	}
	if out, err := exec.Command(w.path("root/usr/bin/skerry"), "version").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
