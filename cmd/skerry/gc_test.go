package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestGCRemovesTheTemporaryFilesOfTheDead(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "8M")
	of, err := filepath.Glob(filepath.Join(w.pool, "v", "*", "root"))
	if err != nil || len(of) != 1 {
		t.Fatal(of, err)
	}
	gone := filepath.Join(w.pool, "v", "00000000000000000000000000000001", "snap")
	if err := os.MkdirAll(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{of[0], gone} {
		if err := os.WriteFile(filepath.Join(dir, ".tmp-0123"), []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.ok("gc", "--dry-run")
	if _, err := os.Stat(filepath.Join(gone, ".tmp-0123")); err != nil {
		t.Error(err)
	}
	w.ok("gc")
	if _, err := os.Stat(filepath.Join(of[0], ".tmp-0123")); !os.IsNotExist(err) {
		t.Errorf("the file of a live volume: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(gone)); !os.IsNotExist(err) {
		t.Errorf("the directory of a removed volume: %v", err)
	}
}
