package layers

import (
	"go/ast"
	"strings"
	"testing"
)

// The longest files in lines.
const (
	maxLines     = 600
	maxTestLines = 900
)

func TestNoFileIsTooLong(t *testing.T) {
	for _, s := range sources(t) {
		limit := maxLines
		if s.test || s.helper() {
			limit = maxTestLines
		}
		if s.lines > limit {
			t.Errorf("%s has %d lines, more than %d: split it", s.path, s.lines, limit)
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	commented := map[string]bool{}
	for _, s := range sources(t) {
		commented[s.dir()] = commented[s.dir()] || s.tree.Doc != nil && !s.test
	}
	for dir, ok := range commented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// TestEveryExportHasAComment looks at functions, methods and types; constants and
// variables may share the comment of their group.
func TestEveryExportHasAComment(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.tree.Name.Name == "main" {
			continue
		}
		for _, d := range s.tree.Decls {
			for _, name := range uncommented(d) {
				t.Errorf("%s: %s has no comment that starts with its name", s.path, name)
			}
		}
	}
}

// uncommented returns the exported names of a declaration that lack a comment.
func uncommented(d ast.Decl) []string {
	var names []string
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && onExported(d) && !startsWith(d.Doc, d.Name.Name) {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && !startsWith(spec.Doc, spec.Name.Name) && !startsWith(d.Doc, spec.Name.Name) {
					names = append(names, spec.Name.Name)
				}
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					if name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// onExported reports whether a function belongs to no type or to an exported one.
func onExported(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	typ := f.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return false
		}
	}
}

func startsWith(doc *ast.CommentGroup, name string) bool {
	if doc == nil {
		return false
	}
	words := strings.Fields(doc.Text())
	for _, article := range []string{"A", "An", "The"} {
		if len(words) > 1 && words[0] == article {
			words = words[1:]
		}
	}
	return len(words) > 0 && strings.TrimRight(words[0], ".,:;") == name
}
