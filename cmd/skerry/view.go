package main

import (
	"skerry/cmd/internal/control"
	"skerry/locking"
	"skerry/volume/catalog"
)

func viewVolume(i catalog.Info) control.Volume {
	v := control.Volume{
		Name: i.Name, ID: i.ID.String(), Size: i.Size, ChunkSize: i.ChunkSize, Created: i.Created,
		State: i.State, Generation: i.Generation, Holder: viewHolder(i.Holder),
	}
	if i.Err != nil {
		v.Problem = i.Err.Error()
	}
	if i.Parent.Volume != "" {
		v.Parent = i.Parent.String()
	}
	return v
}

// viewFull is viewVolume for what [catalog.Pool.Info] returns, which knows the snapshots.
func viewFull(i catalog.Info) control.Volume {
	v := viewVolume(i)
	if s := i.Source; s != nil {
		v.Source = &control.Source{Path: s.Path, Host: s.Host, Percent: s.Percent()}
	}
	v.Snapshots = make([]control.Snapshot, 0, len(i.Snapshots))
	for _, s := range i.Snapshots {
		v.Snapshots = append(v.Snapshots, viewSnapshot(s))
	}
	return v
}

func viewSnapshot(i catalog.SnapshotInfo) control.Snapshot {
	s := control.Snapshot{Name: i.Name, Size: i.Size, Created: i.Created, Clones: i.Clones}
	if s.Clones == nil {
		s.Clones = []string{}
	}
	return s
}

func viewHolder(h *locking.Holder) *control.Holder {
	if h == nil {
		return nil
	}
	return &control.Holder{Host: h.Host, PID: int(h.PID), Socket: h.Socket, Since: h.Since}
}

func viewRemoval(r catalog.Removal) control.Removal {
	return control.Removal{Objects: r.Objects, Bytes: r.Bytes, Left: r.Left > 0}
}
