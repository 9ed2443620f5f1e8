package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// completions returns what the program offers for the last argument, without the directive.
func (w *world) completions(args ...string) []string {
	w.t.Helper()
	lines := strings.Split(strings.TrimSpace(w.ok(append([]string{"__completeNoDesc"}, args...)...)), "\n")
	return lines[:len(lines)-1]
}

func TestCompletion(t *testing.T) {
	w := newPool(t)
	w.script(`
		create vm1 --size 1M
		create vm2 --size 1M
		create db --size 1M
		snapshot vm1@a
		snapshot vm1@b`)
	other := w.path("other")
	w.ok("init", other)
	w.ok("create", "--pool", other, "far", "--size", "1M")
	for line, want := range map[string]string{
		"inf":                             "info",
		"info ":                           "db vm1 vm2",
		"info v":                          "vm1 vm2",
		"show v":                          "vm1 vm2",
		"info vm1@":                       "vm1@a vm1@b",
		"info none@":                      "",
		"info --pool " + other + " ":      "far",
		"info " + other + "/":             other + "/far",
		"rollback ":                       "db@ vm1@ vm2@",
		"rollback vm1@":                   "vm1@a vm1@b",
		"snapshot v":                      "vm1@ vm2@",
		"snapshot vm1@":                   "",
		"clone vm1@a ":                    "",
		"create ":                         "",
		"import x ":                       "",
		"ls vm1 ":                         "",
		"lease show v":                    "vm1 vm2",
		"serve vm1 v":                     "vm1 vm2",
		"serve vm1 --nbd ":                "unix: tcp:",
		"import x new --format ":          "raw qcow2",
		"completion ":                     "bash fish zsh",
		"info --pool " + w.dir + "/none ": "",
	} {
		fields := strings.Split(line, " ")
		if got := strings.Join(w.completions(fields...), " "); got != want {
			t.Errorf("%q completes to %q, want %q", line, got, want)
		}
	}
	if _, err := os.Stat(w.path("none")); err == nil {
		t.Error("completion made a pool")
	}
	if entries, err := os.ReadDir(w.pool + "/instances"); err == nil && len(entries) > 0 {
		t.Errorf("completion took a lease: %v", entries)
	}
}

func TestCompletionMakesNoDefaultPool(t *testing.T) {
	w := newWorld(t)
	if r := inProcess(t, w, "__complete", "info", ""); r.code != 0 || r.stdout != ":4\n" {
		t.Fatalf("%+v", r)
	}
	if _, err := os.Stat(w.path(".local")); err == nil {
		t.Fatal("it made the default pool")
	}
}

func TestCompletionOfPools(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(w.path("c.toml"), []byte("[pools.fast]\nurl='/f'\n[pools.slow]\nurl='/s'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := w.completions("--config", w.path("c.toml"), "ls", "--pool", ""); !slices.Equal(got, []string{"fast", "slow"}) {
		t.Errorf("got %q", got)
	}
	if got := w.completions("--config", w.path("c.toml"), "ls", "--pool", "s"); !slices.Equal(got, []string{"slow"}) {
		t.Errorf("got %q", got)
	}
}

// TestBashCompletes has bash run the function as it does when a tab is typed.
func TestBashCompletes(t *testing.T) {
	w := newPool(t)
	w.script(`
		create vm1 --size 1M
		create vm2 --size 1M
		snapshot vm1@nightly
		snapshot vm1@noon`)
	if err := os.WriteFile(w.path("completion"), []byte(w.ok("completion", "bash")), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"skerry info v":               "vm1 vm2",
		"skerry info vm1@":            "nightly noon", // bash has the rest of the word already
		"skerry info vm1@ni":          "nightly",
		"skerry rollback vm2":         "vm2@",
		"skerry lease ":               "ls show",
		"skerry serve vm1 --nbd uni":  "unix:",
		"skerry import x y --format=": "raw qcow2",
		"skerry bogus ":               "",
	} {
		c := exec.CommandContext(t.Context(), "bash", "-c", `source "$1"; COMP_LINE=$2 COMP_POINT=${#2}; _skerry; echo "${COMPREPLY[*]}"`,
			"bash", w.path("completion"), strings.Replace(line, "skerry", binary, 1))
		c.Env = w.env
		out, err := c.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%q completes to %q (%v), want %q", line, got, err, want)
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	newWorld(t).script(`
		completion bash                     | complete _skerry
		completion zsh                      | #compdef
		completion fish                     | complete
		2 completion tcsh                   | bash fish zsh
		2 completion                        | completion --help`)
}
