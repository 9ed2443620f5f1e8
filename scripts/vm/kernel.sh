#!/usr/bin/env bash
# kernel.sh: makes the guest's kernel and initramfs, once, and prints the directory that
# holds them as vmlinuz and initrd.img.
#
# The kernel is Debian's, downloaded and unpacked, not installed. The initramfs loads the
# drivers of a virtio disk and ext4, and of nbd and FUSE for what runs in the guest, and goes on into
# the file system on realroot=DEVICE.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../beds.sh
. "$(dirname "${BASH_SOURCE[0]}")/../beds.sh"
modules="virtio_pci virtio_blk ext4 crc32c_generic nbd fuse"

exec 9>"$cache/kernel.lock"
flock 9
if fresh "$cache/initrd.img" "$here/kernel.sh"; then
	echo "$cache"
	exit 0
fi
need busybox depmod modprobe cpio dpkg-deb
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

echo "vm: downloading a kernel" >&2
package() { apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends:/ {print $2; exit}'; }
name=$(package)
if [ -z "$name" ]; then
	sudo=()
	[ "$(id -u)" = 0 ] || sudo=(sudo)
	"${sudo[@]}" apt-get -qq update >&2
	name=$(package)
fi
(cd "$tmp" && apt-get -qq -o APT::Sandbox::User= download "$name" >&2)
dpkg-deb --fsys-tarfile "$tmp"/*.deb | tar -x -C "$tmp" --wildcards './boot/vmlinuz*' './lib/modules/*/modules.*' \
	'./lib/modules/*/kernel/fs/*' './lib/modules/*/kernel/lib/*' './lib/modules/*/kernel/crypto/*' \
	'./lib/modules/*/kernel/arch/*' './lib/modules/*/kernel/drivers/block/*' './lib/modules/*/kernel/drivers/virtio/*'
version=$(basename "$tmp"/lib/modules/*)
PATH=$PATH:/usr/sbin:/sbin
depmod -b "$tmp" "$version" 2>/dev/null

root=$tmp/root
mkdir -p "$root"/{bin,proc,sys,dev,mnt}
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in sh mount umount sleep sed modprobe switch_root poweroff; do ln -s busybox "$root/bin/$applet"; done
for m in $modules; do modprobe -d "$tmp" -S "$version" --show-depends "$m"; done |
	awk '$1 == "insmod" && !seen[$2]++ {print $2}' | sed "s|.*/lib/modules/|lib/modules/|" |
	while read -r file; do
		mkdir -p "$root/$(dirname "$file")"
		cp "$tmp/$file" "$root/$file"
	done
cp "$tmp/lib/modules/$version"/modules.{builtin,order} "$root/lib/modules/$version/"
depmod -b "$root" "$version" 2>/dev/null

cat >"$root/init" <<'INIT'
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in virtio_pci virtio_blk crc32c_generic ext4 nbd fuse; do modprobe $m; done
root=$(sed -n 's/.*realroot=\([^ ]*\).*/\1/p' /proc/cmdline)
tries=0
while [ ! -e "$root" ] && [ $tries -lt 100 ]; do sleep .1; tries=$((tries+1)); done
if mount -t ext4 "$root" /mnt; then
	for d in /proc /sys /dev; do mount -o move $d /mnt$d; done
	exec switch_root /mnt /sbin/init
fi
echo "no root file system on $root"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$tmp/initrd.img"
mv "$tmp"/boot/vmlinuz* "$cache/vmlinuz"
mv "$tmp/initrd.img" "$cache/initrd.img"
built "$cache/initrd.img" "$here/kernel.sh"
echo "$cache"
