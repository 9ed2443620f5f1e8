package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// spoil changes a bit of a file of the pool: the last in order of those that match.
func (w *world) spoil(pattern string) (file string) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.pool, pattern))
	if err != nil || len(files) == 0 {
		w.t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	file = slices.Max(files)
	b, err := os.ReadFile(file)
	if err == nil {
		b[len(b)/2] ^= 1
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return file
}

// finds fails unless check tells of damage, with these words.
func (w *world) finds(words ...string) {
	w.t.Helper()
	r := w.run(nil, "check")
	if r.code != 16 {
		w.t.Errorf("check: exit code %d, want 16", r.code)
	}
	for _, word := range words {
		if !strings.Contains(r.stdout, word) {
			w.t.Errorf("check: %q, want it to say %q", r.stdout, word)
		}
	}
}

func TestRepair(t *testing.T) {
	w := newPool(t)
	w.script(`
		create vm1 --size 1M
		snapshot vm1@s1
		clone vm1@s1 vm2
		2 check vm1 --repair                | whole pool
		check --repair --json               | "repaired": [] "problems": []`)
	w.spoil("names/vm1")
	w.finds("damage: vm1", "--repair")
	w.script(`
		16 ls vm1                           | vm1
		check --repair                      | repaired vm1
		check
		ls vm1                              | s1`)
	w.spoil("pool")
	w.script(`
		16 ls                               | --repair
		check --repair                      | repaired record pool anew
		ls                                  | vm1 vm2`)
	if err := os.Remove(filepath.Join(w.pool, "pool")); err != nil {
		t.Fatal(err)
	}
	w.script(`
		10 ls                               | init
		check --repair                      | repaired
		ls                                  | vm1 vm2`)
}

func TestGivingUpWhatIsDamaged(t *testing.T) {
	w := newPool(t)
	w.script(`
		create vm1 --size 1M
		snapshot vm1@s1
		2 rm vm1 --damaged                  | sound
		2 rm vm1 --damaged --now            | --damaged
		2 rm vm1@s1 --damaged               | serial`)
	serial := filepath.Base(w.spoil("v/*/snap/*"))
	w.finds("vm1@"+serial, "--damaged")
	w.script(`
		16 gc                               | damaged
		rm vm1@` + serial + ` --damaged
		gc
		check
		snapshot vm1@s1`)
	id := filepath.Base(filepath.Dir(filepath.Dir(w.spoil("v/*/root/*"))))
	w.finds("--damaged " + id)
	w.script(`
		16 gc --dry-run                     | damaged
		16 rm vm1                           | check
		13 rm vm1 --damaged                 | s1 --snapshots
		rm vm1 --damaged --snapshots --json | "id": "` + id + `" "snapshots": "s1"
		ls --json                           | []
		gc
		check --json                        | "problems": []`)
}
