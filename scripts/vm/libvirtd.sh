#!/usr/bin/env bash
# libvirtd.sh DIR: runs libvirtd with all that it keeps in DIR, a new directory, and prints the URI to reach it by.
#
# It ends, with all its guests, when its stdin does. It needs root or sudo, and leaves alone what
# the host has of libvirt: mounts and processes are those of namespaces of its own. Guests run
# as the user libvirt-qemu, as on any Debian, without hardware acceleration.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../beds.sh
. "$(dirname "${BASH_SOURCE[0]}")/../beds.sh"
need libvirtd virsh qemu-system-x86_64 unshare
usage() { echo "usage: libvirtd.sh DIR" >&2; exit 2; }
[ $# -ge 1 ] || usage

if [ "$1" != --inside ]; then
	[ $# = 1 ] || usage
	sudo=()
	[ "$(id -u)" = 0 ] || sudo=(sudo)
	mkdir "$1"
	# This bash is process 1 of the namespace: it takes the place of an init that buries
	# guests, and all that is left ends with it.
	exec "${sudo[@]}" unshare --mount --pid --fork --mount-proc --kill-child "$BASH" "$0" --inside "$(cd "$1" && pwd)"
fi

dir=$2
chmod 711 "$dir"
mkdir "$dir"/{etc,run,lib,log,cache}
cat >"$dir/etc/qemu.conf" <<'CONF'
stdio_handler = "file"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
CONF
cat >"$dir/etc/libvirtd.conf" <<CONF
listen_tls = 0
listen_tcp = 0
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "2:file:$dir/libvirtd.log"
CONF
for pair in etc:/etc run:/run lib:/var/lib log:/var/log cache:/var/cache; do
	mkdir -p "${pair#*:}/libvirt"
	mount --bind "$dir/${pair%%:*}" "${pair#*:}/libvirt"
done
# The package libvirt-daemon-system makes the user, and starts a libvirtd for the host.
for line in passwd:libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin group:libvirt-qemu:x:64055:; do
	file=${line%%:*}
	cp "/etc/$file" "$dir/$file"
	grep -q ^libvirt-qemu: "$dir/$file" || echo "${line#*:}" >>"$dir/$file"
	mount --bind "$dir/$file" "/etc/$file"
done
# Where there is acceleration that does not work, libvirt asks QEMU for its abilities anew each time.
if [ -e /dev/kvm ]; then
	touch "$dir/kvm"
	chmod 600 "$dir/kvm"
	mount --bind "$dir/kvm" /dev/kvm
fi

PATH=$PATH:/usr/sbin libvirtd --pid-file "$dir/libvirtd.pid" >"$dir/out" 2>&1 </dev/null &
daemon=$!
uri="qemu+unix:///system?socket=$dir/run/libvirt-sock"
fail() { echo "libvirtd.sh: $1" >&2; cat "$dir/out" "$dir/libvirtd.log" >&2; exit 1; }
tries=0
until virsh -q -c "$uri" uri >/dev/null 2>&1; do
	kill -0 "$daemon" 2>/dev/null || fail "libvirtd ended"
	[ $((tries += 1)) -le 300 ] || fail "libvirtd does not answer"
	sleep .1
done
echo "$uri"
exec >/dev/null
cat
