#!/usr/bin/env bash
# kernel.sh: unpacks Debian's user-mode-linux, once, and prints the directory that holds it: a Linux kernel that runs
# as an ordinary process, with modules for nbd, NFS and device mapper. It is downloaded, not installed.
#
# DIR/linux is the kernel, DIR/lib/modules are its modules (modprobe -d DIR), DIR/init starts the guest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../beds.sh
. "$(dirname "${BASH_SOURCE[0]}")/../beds.sh"

exec 9>"$cache/kernel.lock"
flock 9
if fresh "$cache/init" "$here/kernel.sh" "$here/init"; then
	echo "$cache"
	exit 0
fi
need depmod dpkg-deb
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

echo "uml: downloading a kernel" >&2
download() { (cd "$tmp" && apt-get -qq -o APT::Sandbox::User= download user-mode-linux >&2); }
if ! download; then
	sudo=()
	[ "$(id -u)" = 0 ] || sudo=(sudo)
	"${sudo[@]}" apt-get -qq update >&2
	download
fi
dpkg-deb -x "$tmp"/*.deb "$tmp/tree"
version=$(basename "$tmp"/tree/usr/lib/uml/modules/*)
rm -rf "$cache/lib"
mkdir -p "$cache/lib"
cp -r "$tmp/tree/usr/lib/uml/modules" "$cache/lib/modules"
PATH=$PATH:/usr/sbin:/sbin
depmod -b "$cache" "$version" 2>/dev/null
cp "$tmp/tree/usr/bin/linux.uml" "$cache/linux"
cp "$here/init" "$cache/init"
chmod +x "$cache/init" "$cache/linux"
built "$cache/init" "$here/kernel.sh" "$here/init"
echo "$cache"
