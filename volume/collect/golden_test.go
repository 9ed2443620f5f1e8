package collect_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/trace"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// recorder collects the lines of a trace.
type recorder struct {
	mu    sync.Mutex
	lines []string
	ids   []string // in the order in which they appeared
}

func (r *recorder) line(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, s)
}

var (
	volumeID = regexp.MustCompile(`[0-9a-f]{32}`)
)

// short replaces the random parts of a name: volumes by A, B, ..., instances by *.
func (r *recorder) short(name string) string {
	if strings.HasPrefix(name, chunk.InstanceGroup) {
		return chunk.InstanceName("*")
	}
	return volumeID.ReplaceAllStringFunc(name, func(id string) string {
		r.mu.Lock()
		defer r.mu.Unlock()
		i := slices.Index(r.ids, id)
		if i < 0 {
			i = len(r.ids)
			r.ids = append(r.ids, id)
		}
		return string(rune('A' + i))
	})
}

// text returns the lines. What is done in parallel, neighbours of one kind, is sorted; lengths are not there.
func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	for len(lines) > 0 {
		n := 1
		for n < len(lines) && parallel(lines[0]) != "" && parallel(lines[n]) == parallel(lines[0]) {
			n++
		}
		slices.Sort(lines[:n])
		lines = lines[n:]
	}
	return strings.Join(r.lines, "\n") + "\n"
}

// parallel returns the kind of a line if neighbours of that kind may be done at once.
func parallel(line string) string {
	switch kind, _, _ := strings.Cut(line, " "); kind {
	case "unlink", "sync":
		return kind
	case "syncgroup":
		return "sync"
	}
	return ""
}

var replaceLength = regexp.MustCompile(`(?m)^(replace \S+) \d+`)

// reading is a call that changes nothing.
var reading = regexp.MustCompile(`(?m)^(load|list|stat|read|open) .*\n`)

// filling is a call that a device makes for what is written to it.
var filling = regexp.MustCompile(`(?m)^.* v/A/(data|journal)/.*\n`)

// TestGoldenTraces compares the calls of the storage of each operation, in order, with testdata. A collection looks at
// volumes in the order of their random ids first, so what it reads is left out; what is
// written to a device is its own matter.
func TestGoldenTraces(t *testing.T) {
	for _, op := range operations(t) {
		name := strings.ReplaceAll(op.name, " ", "-")
		t.Run(name, func(t *testing.T) {
			storage := newStorage(t)
			setup := start(t, storage, 1)
			op.prepare(setup)
			infos, err := setup.List(t.Context())
			setup.ok(err)
			setup.stop()

			r := &recorder{}
			for _, info := range infos {
				r.short(info.ID.String()) // in the order of their names
			}
			traced := trace.Wrap(storage, r.line)
			traced.Rename(r.short)
			p := start(t, struct {
				drivers.Backend
				drivers.Locker
			}{traced, traced}, 1)
			r.lines = nil
			p.ok(op.do(p))
			got := replaceLength.ReplaceAllString(r.text(), "$1")
			switch op.name {
			case "collection", "collection of the trash":
				got = reading.ReplaceAllString(got, "")
			case "import":
				got = filling.ReplaceAllString(got, "")
			}
			golden(t, filepath.Join("testdata", name+".golden"), got)
			p.stop()
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run the tests of this package with -update", err)
	}
	if got != string(want) {
		t.Errorf("the calls have changed: review them with git diff after -update:\n%s", diff(string(want), got))
	}
}

// diff shows the first line that differs.
func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d: got %q, want %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}
