package transfer_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"skerry/chunk"
	"skerry/drivers/trace"
	"skerry/volume"
)

var sizeOfReplace = regexp.MustCompile(`^(replace \S+) \d+`)

// TestGoldenTracesOfLazyImports compares all calls of the storage, in order, with testdata. The image has one chunk of data.
func TestGoldenTracesOfLazyImports(t *testing.T) {
	for kind, o := range kinds {
		t.Run(kind, func(t *testing.T) {
			path := imageOf(t, content(chunk.MinSize/2, 1))
			c := &calls{ids: make(map[string]string)}
			storage := trace.Wrap(newPool(t, o), func(line string) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.lines = append(c.lines, sizeOfReplace.ReplaceAllString(line, "$1"))
			})
			storage.Rename(c.short)
			p := startOn(t, storage, 1, 1)
			c.restart()
			p.ok(p.importLazy(path, "vm1", small))
			c.sortSyncs()
			c.golden(t, "lazy-import-"+kind)
			c.restart()
			d := p.open("vm1")
			p.ok(d.Flatten(t.Context(), volume.FlattenOptions{}))
			p.ok(d.Close(t.Context()))
			c.sortSyncs()
			c.golden(t, "lazy-copy-"+kind)
			p.stop()
		})
	}
}

// restart forgets the calls so far.
func (c *calls) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = nil
}

// sortSyncs sorts neighbours that sync, which is done at once.
func (c *calls) sortSyncs() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := 0; i < len(c.lines); i++ {
		n := i
		for n < len(c.lines) && strings.HasPrefix(c.lines[n], "sync") {
			n++
		}
		slices.Sort(c.lines[i:n])
		i = n
	}
}
