package main

import (
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/attach"
	"skerry/cmd/internal/output"
)

// attachedDevice is what attached prints of a device with --json.
type attachedDevice struct {
	Device      string       `json:"device"`
	Name        string       `json:"name"`           // of the volume or snapshot, or a URI
	Pool        string       `json:"pool,omitempty"` // URL
	ID          string       `json:"id,omitempty"`   // of the volume
	Size        int64        `json:"size"`           // bytes
	ReadOnly    bool         `json:"read_only"`
	Connections int          `json:"connections"`
	State       attach.State `json:"state"`
	Server      string       `json:"server"`               // URI
	ServerPID   int          `json:"server_pid,omitempty"` // 0: dead, or not of this host
	Own         bool         `json:"own"`                  // the server belongs to the device and ends with it
	KeeperPID   int          `json:"keeper_pid,omitempty"` // 0: it has none
	MountedOn   []string     `json:"mounted_on"`
}

func (a *app) attachedCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "attached",
		Aliases: []string{"showmapped"},
		Short:   "List the volumes that are block devices of this host",
		Long: `List the volumes and snapshots that are block devices of this host, with the processes that serve them.

A device is connected; or reconnecting: its I/O waits while its keeper is at it; or dead: I/O waits and nobody is at it, attach it again; or unattended:
it works without a keeper, attach it again; or ending: detached by force, and still in use.`,
		Example: `  skerry attached
  skerry attached --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withHost(func(h *attach.Host) error {
				all, err := h.List(cmd.Context())
				if err != nil && all == nil {
					return err
				}
				if err != nil {
					a.print.Note("%v", err)
				}
				devices := make([]attachedDevice, 0, len(all))
				for _, s := range all {
					devices = append(devices, viewAttached(s))
				}
				return a.print.Result(devices, func(w io.Writer) error { return attachedTable(w, devices) })
			})
		},
	}
}

func viewAttached(s attach.Status) attachedDevice {
	d := attachedDevice{
		Device: s.Device, Name: s.Name(), Pool: s.Pool, ID: s.ID, Size: s.Size, ReadOnly: s.ReadOnly, Connections: s.Connections,
		State: s.State, Server: s.Server.URI, ServerPID: s.ServerPID(), Own: s.Server.Own,
		MountedOn: append([]string{}, s.Mounts...),
	}
	if s.Kept {
		d.KeeperPID = s.Keeper.PID
	}
	if d.Name == "" {
		d.Name = s.ID // the record is lost, and with it the name
	}
	return d
}

func attachedTable(w io.Writer, devices []attachedDevice) error {
	t := output.NewTable(output.Column{Title: "DEVICE"}, output.Column{Title: "NAME"}, output.Column{Title: "SIZE", Right: true},
		output.Column{Title: "MODE"}, output.Column{Title: "STATE"}, output.Column{Title: "SERVER", Right: true},
		output.Column{Title: "CONNECTIONS", Right: true}, output.Column{Title: "MOUNTED ON"})
	for _, d := range devices {
		mode, pid := "rw", "-"
		if d.ReadOnly {
			mode = "ro"
		}
		if d.ServerPID != 0 {
			pid = strconv.Itoa(d.ServerPID)
		}
		t.Row(d.Device, d.Name, output.Size(d.Size), mode, string(d.State), pid, strconv.Itoa(d.Connections), dash(strings.Join(d.MountedOn, ", ")))
	}
	return t.Write(w, output.Width(w))
}

// attachedNames returns the names and devices of what is attached, for completion.
func (a *app) attachedNames() []string {
	h := &attach.Host{Dir: a.attachDirectory()}
	return h.Names()
}
