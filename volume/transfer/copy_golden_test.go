package transfer_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/mem"
	"skerry/drivers/trace"
	"skerry/volume/transfer"
)

var update = flag.Bool("transfer.update", false, "write the golden traces of testdata anew")

var (
	volumeID = regexp.MustCompile(`[0-9a-f]{32}`)
	lengths  = regexp.MustCompile(`^(replace|write)( \S+) \d+(\+\d+)?`)
	counter  = regexp.MustCompile(`(/(page|snap|reg|seal)/[0-9a-f]+)\.[0-9a-f]+`)
	// What changes nothing, and what a device does for what is written to it, is left out.
	reading = regexp.MustCompile(`^(load|list|stat|read|open|close|try) `)
	filling = regexp.MustCompile(` v/[A-Z]/(data|journal)`)
)

// calls collects the calls of two pools, without what is random.
type calls struct {
	mu    sync.Mutex
	lines []string
	ids   map[string]string
}

func (c *calls) short(name string) string {
	if strings.HasPrefix(name, chunk.InstanceGroup) {
		return chunk.InstanceName("*")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return volumeID.ReplaceAllStringFunc(name, func(id string) string {
		if c.ids[id] == "" {
			c.ids[id] = string(rune('A' + len(c.ids)))
		}
		return c.ids[id]
	})
}

// wrap traces a pool.
func (c *calls) wrap(pool string, b *mem.Backend) drivers.Backend {
	traced := trace.Wrap(b, func(line string) {
		if reading.MatchString(line) || filling.MatchString(line) || strings.Contains(line, chunk.InstanceGroup) || strings.Contains(line, "/reader") {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		line = counter.ReplaceAllString(lengths.ReplaceAllString(line, "$1$2"), "$1.*")
		c.lines = append(c.lines, pool+": "+line)
		// What is synced at once is synced in any order.
		for i := len(c.lines) - 1; i > 0 && isSync(c.lines[i]) && isSync(c.lines[i-1]) && c.lines[i] < c.lines[i-1]; i-- {
			c.lines[i], c.lines[i-1] = c.lines[i-1], c.lines[i]
		}
	})
	traced.Rename(c.short)
	return struct {
		drivers.Backend
		drivers.Locker
	}{traced, traced}
}

func isSync(line string) bool { return strings.Contains(line, ": sync") }

// golden compares the calls with a file.
func (c *calls) golden(t *testing.T, name string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	got := strings.Join(c.lines, "\n") + "\n"
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run the tests of this package with -transfer.update", err)
	}
	if got != string(want) {
		t.Errorf("the calls of %s have changed: review them with git diff after -transfer.update:\n%s", name, got)
	}
}

// TestGoldenTraces compares what a copy and a delta change in two pools, in order, with testdata.
func TestGoldenTraces(t *testing.T) {
	a, b := newStorage(t), newStorage(t)
	p := start(t, a, 1, 0)
	h := newHistory(p, "vm1", 1<<20, 64<<10, 1, rand.New(rand.NewPCG(1, 2)))
	p.stop()
	c := &calls{ids: make(map[string]string)}
	src, dst := start(t, c.wrap("source", a), 1, 0), start(t, c.wrap("target", b), 1, 0)
	_, err := transfer.Copy(t.Context(), src.Pool, ref(t, "vm1"), dst.Pool, "copy", transfer.CopyOptions{Snapshots: true, Workers: 1})
	src.ok(err)
	c.golden(t, "copy")

	h.snapshot(src, "s2")
	path := src.delta("vm1@s1", "vm1@s2", transfer.DeltaOptions{})
	c.mu.Lock()
	c.lines = nil
	c.mu.Unlock()
	_, err = dst.apply("copy", path, 0, transfer.ApplyOptions{Rollback: true})
	dst.ok(err)
	c.golden(t, "delta")
}
