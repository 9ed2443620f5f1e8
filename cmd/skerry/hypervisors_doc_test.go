package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// documented are the blocks of commands of a page of the documentation that can run here, in order.
func documented(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)\n```sh\n(.*?)```\n").FindAllStringSubmatch(string(text), -1) {
		if !strings.HasPrefix(m[1], "# not tested") {
			blocks = append(blocks, m[1])
		}
	}
	return blocks
}

// documentPrelude makes the commands of a page fit for a script: what serves is waited for and ends when another one begins, and QEMU ends
// once it has opened its disks.
const documentPrelude = `
set -euo pipefail
server=
end() {
	[ -z "$server" ] || virsh -q destroy guest 2>/dev/null || true
	[ -z "$server" ] || { kill "$server"; tail --pid="$server" -f /dev/null; server=; }
}
trap 'umount -q "$data" || true; losetup -j "$mounted/data.raw" | cut -d: -f1 | xargs -r losetup -d; end' EXIT
skerry() {
	case $1 in
	serve | mount)
		end
		exec {ready}< <(exec skerry "$@")
		server=$!
		read -r -u "$ready"
		;;
	*) command skerry "$@" ;;
	esac
}
qemu-system-x86_64() {
	printf '%s\n' '{"execute":"qmp_capabilities"}' '{"execute":"query-block"}' '{"execute":"quit"}' |
		command qemu-system-x86_64 "$@" -S -accel tcg -nodefaults -display none -qmp stdio
}
set -x
`

func TestDocumentedWaysToHypervisors(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.limit *= 2
	if err := os.Chmod(w.dir, 0o711); err != nil { // QEMU under libvirt is another user
		t.Fatal(err)
	}
	for _, dir := range []string{"m", "data", "bin"} {
		if err := os.Mkdir(w.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // of a test that has failed
		for _, dir := range []string{"data", "m"} {
			_ = unix.Unmount(w.path(dir), unix.MNT_DETACH)
		}
	})
	if err := os.Symlink(w.program, w.path("bin/skerry")); err != nil {
		t.Fatal(err)
	}
	w.put("golden", noise(mib, 1))
	w.ok("snapshot", "-q", "golden@v1")
	l := w.startLibvirtd()
	l.virsh("create", "--paused", w.domain("guest"))

	script := strings.NewReplacer("/run/skerry/", w.dir+"/", "/mnt/vms", w.path("m"), "/srv/data", w.path("data"), "--group kvm", "--group "+guestGroup).
		Replace(strings.Join(documented(t, "hypervisors.md"), ""))
	script = regexp.MustCompile(`(?m)^(skerry (?:serve|mount) .*) &$`).ReplaceAllString(script, "$1")
	cmd := w.foreign("bash", "-c", documentPrelude+script)
	cmd.Env = append(append(w.env, cmd.Env[len(os.Environ()):]...), "PATH="+w.path("bin")+":/usr/sbin:/usr/bin:/sbin:/bin",
		"LIBVIRT_DEFAULT_URI="+l.uri, "mounted="+w.path("m"), "data="+w.path("data"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, words := range []string{`"virtual-size": 1048576`, `"virtual-size": 1073741824`, w.path("m/vm1.raw"), "vdb"} {
		if !strings.Contains(string(out), words) {
			t.Errorf("no %s in\n%s", words, out)
		}
	}
	w.undamaged()
}
