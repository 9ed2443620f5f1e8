package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"skerry/cmd/internal/control"
)

// libvirt returns what info --libvirt prints, for libvirt of any age.
func (w *world) libvirt(args ...string) string {
	w.t.Helper()
	return w.ok(append([]string{"info", "--libvirt", "--reconnect", "0s"}, args...)...)
}

// domain writes the description of a libvirt domain with disks, and returns its path.
func (w *world) domain(name string, disks ...string) string {
	w.t.Helper()
	path := w.path(name + ".xml")
	text := fmt.Sprintf(`<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>512</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <cpu mode='maximum'><feature policy='disable' name='la57'/></cpu>
  <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
%s
    <controller type='pci' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='%s'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
`, name, strings.Join(disks, ""), w.path(name+".log"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func TestLibvirtDiskOfAServedVolume(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	w.ok("snapshot", "-q", "vm1@s")
	var v control.Volume
	if err := json.Unmarshal([]byte(w.ok("info", "vm1", "--json")), &v); err != nil {
		t.Fatal(err)
	}
	w.fails(1, "vm1 served --nbd --fuse", "info", "vm1", "--libvirt")

	s := w.serve(1, "vm1", "--nbd", "unix:it's <here> & now")
	want := `<disk type='network' device='disk'>
  <driver name='qemu' type='raw' cache='none' error_policy='stop' rerror_policy='stop' discard='unmap' detect_zeroes='unmap'/>
  <source protocol='nbd' name='vm1'>
    <host transport='unix' socket='` + w.dir + `/it&#39;s &lt;here&gt; &amp; now'/>
    <reconnect delay='30'/>
  </source>
  <target dev='vda' bus='virtio'/>
  <serial>` + v.ID + `</serial>
</disk>
`
	if got := w.ok("info", "vm1", "--libvirt"); got != want {
		t.Errorf("info printed\n%s\nwant\n%s", got, want)
	}
	var r libvirtResult
	if err := json.Unmarshal([]byte(w.ok("info", "vm1", "--libvirt", "--json")), &r); err != nil || r.XML != want {
		t.Errorf("with --json: %+v, %v", r, err)
	}
	// This process shows no snapshots, and no other one can show the volume.
	w.fails(1, "vm1@s served", "info", "vm1@s", "--libvirt")
	w.fails(10, "vm1@none", "info", "vm1@none", "--libvirt")
	all := w.serve(2, "--nbd", "tcp:0", "--nbd", "unix:all", "--read-only")
	if got := w.ok("info", "vm1", "--libvirt"); got != want {
		t.Errorf("the holder is not asked:\n%s", got)
	}

	got := w.libvirt("vm1@s", "--target", "sdb")
	want = `<disk type='network' device='disk'>
  <driver name='qemu' type='raw' cache='none' error_policy='stop' rerror_policy='stop' discard='unmap' detect_zeroes='unmap'/>
  <source protocol='nbd' name='vm1@s'>
    <host transport='unix' socket='` + w.path("all") + `'/>
  </source>
  <target dev='sdb' bus='scsi'/>
  <readonly/>
</disk>
`
	if got != want {
		t.Errorf("info printed\n%s\nwant\n%s", got, want)
	}
	s.stop()
	if got := w.ok("info", "vm1", "--libvirt"); !strings.Contains(got, "<readonly/>") || !strings.Contains(got, w.path("all")) {
		t.Errorf("of a process that refuses changes:\n%s", got)
	}
	all.kill()
	w.fails(1, "vm1 served", "info", "vm1", "--libvirt")
}

func TestLibvirtDiskOfAVolumeOfAnotherPool(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	w.ok("--pool", w.path("other"), "init", "-q")
	w.ok("--pool", w.path("other"), "create", "vm1", "--size", "1M")
	s := w.serve(1, "--nbd", "unix:s")
	w.fails(1, "vm1 served", "info", "vm1", "--libvirt", "--pool", w.path("other"))
	s.stop()
}

func TestLibvirtDiskIsWhatLibvirtsSchemaDescribes(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	w.ok("snapshot", "-q", "vm1@s")
	disks := []string{
		w.libvirt("vm1", "--nbd", "unix:/run/a 'b' <c> & \"d\".sock", "--target", "vda"),
		w.libvirt("vm1", "--nbd", "tcp:host.example:1", "--target", "vdb"),
		w.libvirt("vm1", "--nbd", "nbd://[::1]/vm1", "--target", "vdc"),
		w.libvirt("vm1@s", "--nbd", "tcp:1", "--target", "sda"),
		w.libvirt("vm1", "--fuse", "/mnt/<vms>", "--target", "vdd"),
		w.libvirt("vm1@s", "--fuse", "vms", "--target", "sdb"),
	}
	w.tool("virt-xml-validate", w.domain("good", disks...), "domain")
	for i, words := range []string{`socket='/run/a &#39;b&#39; &lt;c&gt; &amp; &#34;d&#34;.sock'`, "name='host.example' port='1'", "name='::1' port='10809'", "<readonly/>", "file='/mnt/&lt;vms&gt;/vm1.raw'", "file='" + w.path("vms/vm1@s.raw")} {
		if !strings.Contains(disks[i], words) {
			t.Errorf("no %s in\n%s", words, disks[i])
		}
	}
	// So that it is known that wrong ones are found.
	w.toolFails("virt-xml-validate", w.domain("bad", strings.Replace(disks[0], "discard='unmap'", "discard='all'", 1)), "domain")
}

func TestLibvirtFlagsThatMeanNothing(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	w.script(`
		2 info vm1 --target vdb                         | --target --libvirt
		2 info vm1 --nbd unix:/s                        | --nbd --libvirt
		2 info vm1 --libvirt --nbd unix:/s --fuse /mnt  | --nbd --fuse
		2 info vm1 --libvirt --nbd s                    | --nbd
		2 info vm1 --libvirt --nbd nbd://localhost/vm2  | vm1
		2 info vm1 --libvirt --fuse /mnt --target hda   | hda
		2 info vm1 --libvirt --fuse /mnt --reconnect -1s | seconds
		2 info vm1 --libvirt --fuse /mnt --reconnect 1ms | seconds`)
	w.fails(1, "XML", "info", "vm1", "--libvirt", "--fuse", "/m\x01")
	w.fails(1, "XML", "info", "vm1", "--libvirt", "--nbd", "unix:/\xff")
}

func TestLibvirtDiskIsNoneForABlockDeviceOfTheHost(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	dir := w.path("skerry/attach")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.path("skerry"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := w.serve(1, "vm1", "--nbd", "unix:"+dir+"/vm1.sock") // where attach has its servers
	w.fails(13, "vm1 device detach", "info", "vm1", "--libvirt")
	s.stop()
}
