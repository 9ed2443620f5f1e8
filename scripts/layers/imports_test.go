package layers

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// below says for each directory at the top level which of the others its packages
// may import. Packages in one of these directories may import each other.
var below = map[string][]string{
	"chunk":   {},
	"drivers": {},
	"mapper":  {"chunk", "drivers"},
	"locking": {"chunk", "drivers", "mapper"},
	"volume":  {"chunk", "drivers", "mapper", "locking"},
	"nbd":     {"chunk", "drivers", "mapper", "locking", "volume"},
	"fuse":    {"chunk", "drivers", "mapper", "locking", "volume"},
	"cmd":     {"chunk", "drivers", "mapper", "locking", "volume", "nbd", "fuse"},
	"scripts": {},
}

// topLevel are the entries that may stand at the top level beside dot-files; bin is
// what the build leaves.
var topLevel = []string{
	"cmd", "volume", "chunk", "mapper", "drivers", "locking", "nbd", "fuse", "scripts", "docs",
	"go.mod", "go.sum", "Makefile", "README.md", "CHANGELOG.md", "LICENSE", "bin",
}

// programs are the packages that name concrete backends: what is shipped, and what measures it.
var programs = []string{"cmd/skerry", "cmd/benchmark"}

// inside returns the directory of an import path of the project.
func inside(path string) (dir string, ok bool) {
	return strings.CutPrefix(path, module+"/")
}

func top(dir string) string {
	name, _, _ := strings.Cut(dir, "/")
	return name
}

// violation says what is wrong with an import, "" if nothing.
func violation(from, path string) string {
	to, ours := inside(path)
	if !ours {
		// The first element of a standard path has no dot.
		standard := !strings.Contains(top(path), ".")
		if (from == "chunk" || from == "drivers") && !standard && !strings.HasPrefix(path, "golang.org/x/sys/") {
			return "only the standard library and golang.org/x/sys belong here"
		}
		return ""
	}
	allowed, known := below[top(from)]
	switch {
	case !known:
		return "no layer is known for " + top(from)
	case from == "drivers":
		return "the contract imports nothing of the project"
	case top(from) != top(to) && !slices.Contains(allowed, top(to)):
		return "imports point down only"
	case isHelper(to) && !isHelper(from):
		return "only tests import test helpers"
	case strings.HasPrefix(to, "drivers/") && top(from) != "drivers" && !slices.Contains(programs, from) && !isHelper(from):
		return "only programs name concrete backends"
	}
	return ""
}

func TestImportsPointDownOnly(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, path := range s.imports() {
			if v := violation(s.dir(), path); v != "" {
				t.Errorf("%s imports %s: %s", s.path, path, v)
			}
		}
	}
}

func TestViolationsAreFound(t *testing.T) {
	for _, c := range []struct {
		from, path string
		bad        bool
	}{
		{"chunk", "skerry/drivers", true},
		{"chunk", "encoding/binary", false},
		{"chunk", "golang.org/x/sys/unix", false},
		{"chunk", "golang.org/x/sync/errgroup", true},
		{"drivers", "skerry/chunk", true},
		{"drivers", "skerry/drivers/local", true},
		{"drivers/local", "skerry/drivers", false},
		{"drivers/local", "skerry/chunk", true},
		{"drivers/rados", "github.com/ceph/go-ceph/rados", false},
		{"mapper", "skerry/locking", true},
		{"mapper/journal", "skerry/mapper", false},
		{"locking", "skerry/mapper", false},
		{"volume", "skerry/drivers/mem", true},
		{"volume/volumetest", "skerry/drivers/mem", false},
		{"volume", "skerry/volume/volumetest", true},
		{"volume/catalog", "skerry/locking", false},
		{"volume", "skerry/nbd", true},
		{"nbd", "skerry/fuse", true},
		{"nbd", "skerry/cmd/internal/config", true},
		{"fuse", "skerry/volume/catalog", false},
		{"cmd/skerry", "skerry/drivers/local", false},
		{"cmd/benchmark", "skerry/drivers/faulty", false},
		{"cmd/internal/daemon", "skerry/drivers/local", true},
		{"cmd/internal/daemon", "skerry/nbd", false},
		{"misc", "skerry/chunk", true},
	} {
		if got := violation(c.from, c.path); (got != "") != c.bad {
			t.Errorf("%s imports %s: got %q, want a violation: %v", c.from, c.path, got, c.bad)
		}
	}
}

func TestEveryPackageHasALayer(t *testing.T) {
	for _, s := range sources(t) {
		if _, ok := below[top(s.dir())]; !ok {
			t.Errorf("%s lies in no layer", s.path)
		}
	}
}

func TestTopLevelHoldsOnlyWhatBelongsThere(t *testing.T) {
	entries, err := os.ReadDir(filepath.FromSlash(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name()[0] != '.' && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}
