package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"skerry/chunk"
	"skerry/mapper"
	"skerry/volume/catalog"
)

func TestTree(t *testing.T) {
	w := newPool(t)
	w.script(`
		create golden --size 1M
		snapshot golden@v1
		clone golden@v1 vm1
		clone golden@v1 vm2 --size 2M
		snapshot vm1@a
		snapshot golden@v2
		clone vm1 test
		create alone --size 3M`)
	times := regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`)
	want := `
NAME                          SIZE  CREATED
alone                      3.0 MiB  T
golden                     1.0 MiB  T
├── @v1                    1.0 MiB  T
│   ├── vm1                1.0 MiB  T
│   │   ├── @a             1.0 MiB  T
│   │   └── @ (hidden)           -  -
│   │       └── test       1.0 MiB  T
│   └── vm2                2.0 MiB  T
└── @v2                    1.0 MiB  T
`
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	if got := times.ReplaceAllString(w.ok("tree"), "T"); squeeze(got) != squeeze(want) {
		t.Errorf("got\n%swant%s", got, want)
	}
	if got := w.ok("tree", "vm1"); !strings.Contains(got, "\nvm1 ") || !strings.Contains(got, "test") || strings.Contains(got, "golden") {
		t.Errorf("below vm1:\n%s", got)
	}
	var tree forest
	if err := json.Unmarshal([]byte(w.ok("tree", "--json")), &tree); err != nil || len(tree) != 2 {
		t.Fatalf("%+v, %v", tree, err)
	}
	v1 := tree[1].Snapshots[0]
	if v1.Snapshot != "v1" || len(v1.Clones) != 2 || !v1.Clones[0].Snapshots[1].Hidden || v1.Clones[0].Snapshots[1].Clones[0].Volume != "test" {
		t.Errorf("%+v", v1)
	}
	w.script(`
		10 tree none                        | none
		rm test
		rm vm1 --snapshots
		ls golden                           | SNAPSHOT CLONES v1 1 v2 0
		info golden@v1                      | Clones: vm2
		info golden                         | CLONES`)
}

// info makes what a list says of a volume.
func info(n int, parent int) catalog.Info {
	i := catalog.Info{Name: fmt.Sprintf("vm%06d", n), ID: chunk.VolumeID{1, byte(n >> 16), byte(n >> 8), byte(n)}, State: "live", Size: 1}
	i.Snapshots = []catalog.SnapshotInfo{{Name: "s", Serial: 1}}
	if parent >= 0 {
		i.ParentID = mapper.Parent{Volume: chunk.VolumeID{1, byte(parent >> 16), byte(parent >> 8), byte(parent)}, Snapshot: 1}
	}
	return i
}

func TestTreeOfThousands(t *testing.T) {
	const n = 20_000
	for what, parent := range map[string]func(int) int{
		"a star":    func(i int) int { return min(i, 1) - 1 },
		"a forest":  func(i int) int { return i/2 - 1 },
		"a chain":   func(i int) int { return i - 1 },
		"no clones": func(int) int { return -1 },
	} {
		var infos []catalog.Info
		for i := range n {
			infos = append(infos, info(i, parent(i)))
		}
		var b bytes.Buffer
		if err := treeText(&b, growTree(infos)); err != nil {
			t.Fatal(err)
		}
		if lines := bytes.Count(b.Bytes(), []byte("\n")); lines != 1+2*n {
			t.Errorf("%s: %d lines", what, lines)
		}
	}
}

func TestTreeWithoutAnEnd(t *testing.T) {
	infos := []catalog.Info{info(1, 2), info(2, 1), info(3, 3), info(4, -1)}
	infos[3].ParentID.Volume, infos[3].Parent = chunk.VolumeID{9}, catalog.Ref{Volume: "gone", Snapshot: "s"}
	var b bytes.Buffer
	if err := treeText(&b, growTree(infos)); err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if strings.Count(b.String(), i.Name) != 1 {
			t.Errorf("%s is not there once:\n%s", i.Name, b.String())
		}
	}
	if !strings.Contains(b.String(), "vm000004 (of gone@s)") {
		t.Errorf("%s", b.String())
	}
	if names := growTree(infos).below("vm000002"); len(names) != 1 || !slices.ContainsFunc(names, func(v *treeVolume) bool { return v.Volume == "vm000002" }) {
		t.Errorf("%+v", names)
	}
}
