#!/usr/bin/env bash
# deps.sh [SET...]: installs the Debian packages that the tests need.
#
# Sets: demo (make demo), clients (NBD programs that the tests talk to), vm (building and
# booting the guest), uml (a guest kernel that is a process). Without one: all. Packages that are there cost one dpkg-query.
set -euo pipefail

demo=(qemu-utils libnbd-bin e2fsprogs fdisk)
clients=(libnbd-bin python3-libnbd nbdkit qemu-utils qemu-system-common fio e2fsprogs btrfs-progs util-linux xfsprogs mount gzip xz-utils zstd systemd)
vm=(qemu-system-x86 nbdkit mmdebstrap extlinux syslinux-common e2fsprogs fdisk mount busybox-static kmod cpio
	libvirt-daemon libvirt-clients libxml2-utils)
uml=(iproute2 busybox-static kmod coreutils util-linux mount e2fsprogs xfsprogs fio)

[ $# -gt 0 ] || set -- demo clients vm uml
wanted=()
for set in "$@"; do
	case $set in
	demo) wanted+=("${demo[@]}") ;;
	clients) wanted+=("${clients[@]}") ;;
	vm) wanted+=("${vm[@]}") ;;
	uml) wanted+=("${uml[@]}") ;;
	*) echo "deps.sh: no such set: $set (demo, clients, vm, uml)" >&2; exit 2 ;;
	esac
done

command -v dpkg-query >/dev/null || { echo "deps.sh: this is not Debian; install by hand: ${wanted[*]}" >&2; exit 1; }
have=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' | sed -n 's/ installed$//p')
mapfile -t missing < <(printf '%s\n' "${wanted[@]}" | sort -u | grep -vxF -f <(echo "$have") || true)
if [ ${#missing[@]} -eq 0 ]; then
	echo "deps: all there ($*)"
	exit 0
fi

sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
# What apt says matters only when it fails.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() { "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }; }
echo "deps: installing ${missing[*]}"
run apt-get -qq update
run apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "${missing[@]}"
echo "deps: done in ${SECONDS}s"
