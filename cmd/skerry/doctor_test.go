package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"skerry/cmd/internal/doctor"
)

func TestDoctor(t *testing.T) {
	w := newPool(t)
	var r doctor.Report
	if err := json.Unmarshal([]byte(w.ok("doctor", w.pool, "--json")), &r); err != nil || !r.Fit || r.Sync.Count == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, c := range r.Checks {
		if c.Name == "locks" && c.Status != doctor.OK {
			t.Errorf("%+v", c)
		}
	}
	entries, err := os.ReadDir(w.pool)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("it left %s", e.Name())
		}
	}
	w.script(`
		doctor .                            | CHECK RESULT exclusive Free:
		check
		1 doctor ./none                     | none next: path
		2 doctor                            | --help`)
	if r := w.run(nil, "doctor", "/proc"); r.code != 1 || !strings.Contains(r.stdout, "fail") || !strings.Contains(r.stderr, "/proc is not fit for a pool: write\nnext: ") {
		t.Errorf("%+v", r)
	}
}
