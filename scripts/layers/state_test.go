package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

func TestNoPackageHasAnInitFunction(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.tree.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", s.path)
			}
		}
	}
}

// TestNoPackageKeepsState finds the variables of packages that make sense only if they
// change: those without a first value, empty maps, channels, locks and atomics.
// Errors, tables, blocks of zero bytes and embedded files are fine, and so are pools:
// no one can tell what they hold.
func TestNoPackageKeepsState(t *testing.T) {
	for _, s := range sources(t) {
		for _, name := range state(s.tree) {
			t.Errorf("%s keeps state in the package variable %s", s.path, name)
		}
	}
}

// state returns the names of the package variables of a file that hold state.
func state(file *ast.File) []string {
	var names []string
	for _, d := range file.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok || group.Tok != token.VAR {
			continue
		}
		for _, spec := range group.Specs {
			v := spec.(*ast.ValueSpec)
			if embeds(group.Doc) || embeds(v.Doc) {
				continue
			}
			for i, name := range v.Names {
				if len(v.Values) == 0 && !isBytes(v.Type) || synchronizes(v.Type) || i < len(v.Values) && empty(v.Values[i]) {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}

// embeds reports whether a comment holds a go:embed directive.
func embeds(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	for _, c := range doc.List {
		if strings.HasPrefix(c.Text, "//go:embed ") {
			return true
		}
	}
	return false
}

// isBytes reports whether a type is an array of bytes.
func isBytes(typ ast.Expr) bool {
	array, ok := typ.(*ast.ArrayType)
	if !ok || array.Len == nil {
		return false
	}
	elem, ok := array.Elt.(*ast.Ident)
	return ok && elem.Name == "byte"
}

// empty reports whether a first value is there to be changed.
func empty(value ast.Expr) bool {
	switch v := value.(type) {
	case *ast.UnaryExpr:
		return empty(v.X)
	case *ast.CallExpr:
		f, ok := v.Fun.(*ast.Ident)
		return ok && (f.Name == "make" || f.Name == "new")
	case *ast.CompositeLit:
		_, isMap := v.Type.(*ast.MapType)
		return isMap && len(v.Elts) == 0 || synchronizes(v.Type)
	}
	return false
}

// synchronizes reports whether a type is one of the packages sync and sync/atomic, but
// not a pool.
func synchronizes(typ ast.Expr) bool {
	switch t := typ.(type) {
	case *ast.StarExpr:
		return synchronizes(t.X)
	case *ast.IndexExpr:
		return synchronizes(t.X)
	case *ast.SelectorExpr:
		pkg, ok := t.X.(*ast.Ident)
		return ok && (pkg.Name == "sync" && t.Sel.Name != "Pool" || pkg.Name == "atomic")
	}
	return false
}

func TestStateIsFound(t *testing.T) {
	for _, c := range []struct {
		decl string
		bad  bool
	}{
		{`var ErrGone = errors.New("gone")`, false},
		{`var table = [...]string{"a", "b"}`, false},
		{`var names = map[string]int{"a": 1}`, false},
		{`var _ Backend = (*local)(nil)`, false},
		{`var version = "devel"`, false},
		{"//go:embed page.html\nvar page string", false},
		{`var pool = sync.Pool{New: fresh}`, false},
		{`var zeros [4096]byte`, false},
		{`var count int`, true},
		{`var mu sync.Mutex`, true},
		{`var locks = &sync.Map{}`, true},
		{`var buffers [16][]byte`, true},
		{`var next atomic.Pointer[int]`, true},
		{`var known = map[string]int{}`, true},
		{`var known = make(map[string]int)`, true},
		{`var wake = make(chan int)`, true},
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "", "package p\n\n"+c.decl+"\n", parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if got := state(file); (len(got) > 0) != c.bad {
			t.Errorf("%s: found %q, want state: %v", c.decl, got, c.bad)
		}
	}
}
