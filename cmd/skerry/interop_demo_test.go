package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	script, err := filepath.Abs("../../scripts/demo.sh")
	if err != nil {
		t.Fatal(err)
	}
	c := w.foreign(script)
	c.Env = append(c.Env, "SKERRY="+binary, "TMPDIR="+w.dir)
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "demo: all steps checked") {
		t.Fatalf("%v\n%s", err, out)
	}
}
