package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	module = "skerry"
	root   = "../.."
)

// source is one Go file of the project.
type source struct {
	path  string // from the root of the project, with slashes
	test  bool
	lines int
	tree  *ast.File
}

// dir returns the directory of the file, "." for the top level.
func (s source) dir() string { return filepath.ToSlash(filepath.Dir(s.path)) }

// helper reports whether the file belongs to a package that only tests import, by its
// name, like testing/fstest.
func (s source) helper() bool { return isHelper(s.dir()) }

func isHelper(dir string) bool { return strings.HasSuffix(dir, "test") }

// imports returns the paths that the file imports.
func (s source) imports() []string {
	var paths []string
	for _, i := range s.tree.Imports {
		paths = append(paths, strings.Trim(i.Path.Value, `"`))
	}
	return paths
}

// sources parses all Go files of the project.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && skipped(d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		s, err := parse(path)
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// skipped reports whether a directory holds no source of the project.
func skipped(name string) bool {
	return name == "testdata" || name == "bin" || name[0] == '.' || name[0] == '_'
}

func parse(path string) (source, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return source{}, err
	}
	tree, err := parser.ParseFile(token.NewFileSet(), path, content, parser.ParseComments)
	if err != nil {
		return source{}, err
	}
	rel, err := filepath.Rel(root, path)
	return source{
		path:  filepath.ToSlash(rel),
		test:  strings.HasSuffix(path, "_test.go"),
		lines: strings.Count(string(content), "\n"),
		tree:  tree,
	}, err
}
