package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/control"
	"skerry/locking"
	"skerry/volume/catalog"
)

// libvirtFlags are the flags of info that belong to --libvirt.
type libvirtFlags struct {
	wanted    bool
	target    string
	nbd, fuse string // where the volume will be; "": where it is
	reconnect time.Duration
}

// libvirtResult is what info --libvirt prints with --json.
type libvirtResult struct {
	XML string `json:"xml"`
}

// libvirtDisk is what differs between the <disk> elements of volumes.
type libvirtDisk struct {
	Kind      string // of source: "network", "file"
	Export    string // NBD
	Socket    string // NBD on a Unix socket
	Host      string // NBD over TCP
	Port      string
	Reconnect int64 // seconds; 0: libvirt's default, which is not to wait
	File      string
	Target    string
	Bus       string
	Serial    string
	ReadOnly  bool
}

// libvirtXML is a <disk> element. A guest stops at an I/O error, instead of being told of it, so that it outlives the time without a server
// under every libvirt; those after 9.0 let it wait before.
const libvirtXML = `<disk type='{{.Kind}}' device='disk'>
  <driver name='qemu' type='raw' cache='none'{{if eq .Kind "file"}} io='native'{{end}} error_policy='stop' rerror_policy='stop' discard='unmap' detect_zeroes='unmap'/>
{{- if eq .Kind "file"}}
  <source file='{{xml .File}}'>
    <seclabel model='dac' relabel='no'/>
  </source>
{{- else}}
  <source protocol='nbd' name='{{xml .Export}}'>
{{- if .Socket}}
    <host transport='unix' socket='{{xml .Socket}}'/>
{{- else}}
    <host name='{{xml .Host}}' port='{{.Port}}'/>
{{- end}}
{{- if .Reconnect}}
    <reconnect delay='{{.Reconnect}}'/>
{{- end}}
  </source>
{{- end}}
  <target dev='{{.Target}}' bus='{{.Bus}}'/>
{{- if .ReadOnly}}
  <readonly/>
{{- end}}
{{- if .Serial}}
  <serial>{{.Serial}}</serial>
{{- end}}
</disk>
`

func (l *libvirtFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&l.wanted, "libvirt", false, "print the <disk> element of a libvirt domain")
	f.StringVar(&l.target, "target", "vda", "with --libvirt: `DEVICE` of the guest, vda (virtio) or sda (SCSI) and so on")
	f.StringVar(&l.nbd, "nbd", "", "with --libvirt: `ADDRESS` where serve will show it")
	f.StringVar(&l.fuse, "fuse", "", "with --libvirt: `DIR` where mount will show it")
	f.DurationVar(&l.reconnect, "reconnect", 30*time.Second, "with --libvirt: how long a guest waits for a server that has gone; 0 for libvirt 9.0 and older, which do not know it")
}

// check finds what is wrong with the flags.
func (l *libvirtFlags) check(c *cobra.Command) error {
	if !l.wanted {
		for _, name := range []string{"target", "nbd", "fuse", "reconnect"} {
			if c.Flags().Changed(name) {
				return usage("--%s means something only with --libvirt", name)
			}
		}
		return nil
	}
	if !regexp.MustCompile(`^[vs]d[a-z]{1,3}$`).MatchString(l.target) {
		return usage("--target %q: want vda or sda, or another letter", l.target)
	}
	if l.nbd != "" && l.fuse != "" {
		return usage("--nbd and --fuse exclude each other")
	}
	if l.reconnect < 0 || l.reconnect%time.Second != 0 {
		return usage("--reconnect %v: want whole seconds", l.reconnect)
	}
	return nil
}

// print prints the <disk> element of a volume or a snapshot.
func (l *libvirtFlags) print(ctx context.Context, s *session, a *app, r catalog.Ref) error {
	d := libvirtDisk{Target: l.target, Bus: "virtio", ReadOnly: r.Snapshot != "", Reconnect: int64(l.reconnect / time.Second)}
	if l.target[0] == 's' {
		d.Bus = "scsi"
	}
	i, err := s.pool.Info(ctx, r.Volume)
	if err != nil {
		return err
	}
	if r.Snapshot == "" {
		d.Serial = i.ID.String()
	} else if !slices.ContainsFunc(i.Snapshots, func(s catalog.SnapshotInfo) bool { return s.Name == r.Snapshot }) {
		return noSnapshot(r)
	}
	if l.nbd != "" || l.fuse != "" {
		err = d.given(l, r)
	} else {
		err = s.locate(ctx, a, &d, r, i.Holder)
	}
	if err != nil {
		return err
	}
	text, err := d.xml()
	if err != nil {
		return err
	}
	return a.print.Result(libvirtResult{XML: text}, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

// given sets the place that the flags name.
func (d *libvirtDisk) given(l *libvirtFlags, r catalog.Ref) error {
	if l.fuse != "" {
		dir, err := filepath.Abs(l.fuse)
		if err != nil {
			return err
		}
		d.file(dir, r)
		return nil
	}
	ad, err := parseAddress(l.nbd)
	if err != nil {
		return err
	}
	if ad.export != "" && ad.export != r.String() {
		return usage("--nbd %q names another volume than %s", l.nbd, r)
	}
	d.network(ad, r)
	return nil
}

// locate sets the place where a process of this host shows a volume or a snapshot now.
func (s *session) locate(ctx context.Context, a *app, d *libvirtDisk, r catalog.Ref, h *locking.Holder) error {
	var all []control.Process
	if h != nil && r.Snapshot == "" {
		// Nobody else can show it.
		if c, ok := s.client(*h, infoTime); ok {
			p, err := c.Process(ctx)
			if err != nil {
				return about("volume", r.String(), err)
			}
			all = append(all, p)
		}
	} else {
		found, err := control.Processes(ctx, control.Directory(a.env.Getenv))
		if err != nil {
			return err
		}
		for _, p := range found {
			if p.Pool == s.where.String() {
				all = append(all, p)
			}
		}
	}
	// A server of a device's own: the host may have a file system on it.
	attached := []string{a.attachDirectory(), filepath.Join(control.Directory(a.env.Getenv), "attach")}
	for _, network := range []string{"unix", "tcp"} {
		for _, p := range all {
			for _, uri := range p.NBD {
				ad, err := parseAddress(uri)
				if err == nil && ad.network == network && (ad.export == "" || ad.export == r.String()) {
					if slices.Contains(attached, filepath.Dir(ad.where)) {
						return advised{
							fmt.Errorf("%s is a block device of this host: %w", r, catalog.ErrInUse),
							"give the guest the device, see skerry attached; or skerry detach " + r.String() + ", and serve it",
						}
					}
					d.network(ad, r)
					d.ReadOnly = d.ReadOnly || p.ReadOnly
					return nil
				}
			}
		}
	}
	for _, p := range all {
		for _, dir := range p.Mounts {
			d.file(dir, r)
			if _, err := os.Lstat(d.File); err == nil {
				d.ReadOnly = d.ReadOnly || p.ReadOnly
				return nil
			}
		}
	}
	return advised{
		fmt.Errorf("%s is not served by a process of this host that can be asked", r),
		"serve it first, or say where it will be: --nbd unix:/run/" + r.Volume + ".sock or --fuse DIR",
	}
}

func (d *libvirtDisk) network(a address, r catalog.Ref) {
	d.Kind, d.Export = "network", r.String()
	if a.network == "unix" {
		d.Socket = a.where
		return
	}
	d.Host, d.Port, _ = net.SplitHostPort(a.where) // parseAddress joined it
	switch ip := net.ParseIP(d.Host); {
	case ip == nil || !ip.IsUnspecified():
	case ip.To4() != nil:
		d.Host = loopback
	default:
		d.Host = net.IPv6loopback.String()
	}
}

func (d *libvirtDisk) file(dir string, r catalog.Ref) {
	d.Kind, d.File, d.Reconnect = "file", filepath.Join(dir, r.String()+".raw"), 0
}

func (d *libvirtDisk) xml() (string, error) {
	for _, place := range []string{d.Socket, d.Host, d.File} {
		// What XML cannot hold is replaced by this.
		if strings.Count(escapeXML(place), "\uFFFD") != strings.Count(place, "\uFFFD") {
			return "", fmt.Errorf("%q has characters that XML cannot hold", place)
		}
	}
	t, err := template.New("disk").Funcs(template.FuncMap{"xml": escapeXML}).Parse(libvirtXML)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, d); err != nil {
		return "", err
	}
	return b.String(), nil
}

func escapeXML(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a builder takes all
	return b.String()
}
