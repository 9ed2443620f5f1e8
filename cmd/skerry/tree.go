package main

import (
	"cmp"
	"context"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"skerry/chunk"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
)

// treeVolume is a volume with all that comes of it.
type treeVolume struct {
	Volume    string         `json:"volume"`
	ID        string         `json:"id"`
	Size      int64          `json:"size"` // bytes
	State     string         `json:"state"`
	Created   time.Time      `json:"created"`
	Parent    string         `json:"parent,omitempty"` // of a clone that is not below its parent
	Snapshots []treeSnapshot `json:"snapshots"`        // the oldest first
}

// treeSnapshot is a snapshot with its clones.
type treeSnapshot struct {
	Snapshot string        `json:"snapshot"` // empty: a hidden one, taken for its clones
	Hidden   bool          `json:"hidden"`
	Size     int64         `json:"size"` // bytes; 0 for a hidden one
	Created  time.Time     `json:"created,omitzero"`
	Clones   []*treeVolume `json:"clones"` // by name
}

func (a *app) treeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "tree [NAME]",
		Aliases: []string{"children"},
		Short:   "Show volumes, snapshots and clones as a tree",
		Long: `Show the volumes of the pool, below each its snapshots, and below these their clones; or what comes of one volume. A snapshot
without a name was taken for the clones that are below it.`,
		Example: `  skerry tree
  skerry tree golden --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volumeOrAll(args)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				if err := s.there(ctx, name); err != nil {
					return err
				}
				infos, err := s.pool.List(ctx)
				if err != nil {
					return about("tree", s.where.String(), err)
				}
				tree := growTree(infos)
				if name != "" {
					tree = tree.below(name)
				}
				return a.print.Result(tree, func(w io.Writer) error { return treeText(w, tree) })
			})
		},
	}
}

// forest are the volumes that are below no other one, by name.
type forest []*treeVolume

// place is a snapshot of a volume.
type place struct {
	volume   chunk.VolumeID
	snapshot chunk.Serial
}

// maxDepth bounds how deep a tree is shown: clones that are deeper begin trees of their own.
const maxDepth = 100

// growTree puts volumes, which come by name, below the snapshots that they began as.
func growTree(infos []catalog.Info) forest {
	clones := make(map[place][]catalog.Info)
	hidden := make(map[chunk.VolumeID][]chunk.Serial) // that clones began as
	there := make(map[chunk.VolumeID]*catalog.Info)
	for i := range infos {
		there[infos[i].ID] = &infos[i]
	}
	var tops []catalog.Info
	for _, i := range infos {
		parent := there[i.ParentID.Volume]
		if parent == nil {
			tops = append(tops, i)
			continue
		}
		at := place{i.ParentID.Volume, i.ParentID.Snapshot}
		clones[at] = append(clones[at], i)
		named := slices.ContainsFunc(parent.Snapshots, func(s catalog.SnapshotInfo) bool { return s.Serial == at.snapshot })
		if !named && len(clones[at]) == 1 {
			hidden[at.volume] = append(hidden[at.volume], at.snapshot)
		}
	}
	done := make(map[chunk.VolumeID]bool)
	var grow func(catalog.Info, int) *treeVolume
	grow = func(i catalog.Info, depth int) *treeVolume {
		done[i.ID] = true
		v := &treeVolume{Volume: i.Name, ID: i.ID.String(), Size: i.Size, State: i.State, Created: i.Created, Snapshots: []treeSnapshot{}}
		if i.Parent.Volume != "" && depth == 0 {
			v.Parent = i.Parent.String()
		}
		type dated struct {
			serial chunk.Serial
			treeSnapshot
		}
		var all []dated
		for _, s := range i.Snapshots {
			all = append(all, dated{s.Serial, treeSnapshot{Snapshot: s.Name, Size: s.Size, Created: s.Created}})
		}
		for _, s := range hidden[i.ID] {
			all = append(all, dated{s, treeSnapshot{Hidden: true}})
		}
		slices.SortFunc(all, func(a, b dated) int { return cmp.Compare(a.serial, b.serial) })
		for _, s := range all {
			s.Clones = []*treeVolume{}
			for _, clone := range clones[place{i.ID, s.serial}] {
				if !done[clone.ID] && depth < maxDepth {
					s.Clones = append(s.Clones, grow(clone, depth+1))
				}
			}
			v.Snapshots = append(v.Snapshots, s.treeSnapshot)
		}
		return v
	}
	tree := forest{}
	for _, i := range tops {
		tree = append(tree, grow(i, 0))
	}
	// What is too deep, and what damaged roots make its own ancestor, is not left out.
	for _, i := range infos {
		if !done[i.ID] {
			tree = append(tree, grow(i, 0))
		}
	}
	return tree
}

// below returns the part of the tree that begins with a volume.
func (f forest) below(name string) forest {
	left := slices.Clone(f)
	for len(left) > 0 {
		v := left[len(left)-1]
		left = left[:len(left)-1]
		if v.Volume == name {
			return forest{v}
		}
		for _, s := range v.Snapshots {
			left = append(left, s.Clones...)
		}
	}
	return forest{}
}

func treeText(w io.Writer, tree forest) error {
	t := output.NewTable(output.Column{Title: "NAME"}, output.Column{Title: "SIZE", Right: true}, output.Column{Title: "CREATED"})
	var volume func(v *treeVolume, lead, rest string)
	volume = func(v *treeVolume, lead, rest string) {
		name := lead + v.Volume
		if v.State != "live" {
			name += " (" + v.State + ")"
		}
		if v.Parent != "" {
			name += " (of " + v.Parent + ")"
		}
		t.Row(name, output.Size(v.Size), timeText(v.Created))
		for i, s := range v.Snapshots {
			branch, on := branches(i == len(v.Snapshots)-1)
			label, size := "@"+s.Snapshot, output.Size(s.Size)
			if s.Hidden {
				label, size = "@ (hidden)", "-"
			}
			t.Row(rest+branch+label, size, timeText(s.Created))
			for j, clone := range s.Clones {
				branch, onward := branches(j == len(s.Clones)-1)
				volume(clone, rest+on+branch, rest+on+onward)
			}
		}
	}
	for _, v := range tree {
		volume(v, "", "")
	}
	return t.Write(w, output.Width(w))
}

// branches returns what stands before an entry, and before what is below it.
func branches(last bool) (entry, below string) {
	if last {
		return "└── ", "    "
	}
	return "├── ", "│   "
}
