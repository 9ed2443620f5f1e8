#!/usr/bin/env bash
# image.sh: makes a small Debian disk, once, and prints the path of the raw file.
#
# The disk boots by BIOS from itself alone: MBR, extlinux, one ext4 partition. Boot N adds a
# line to /boots, prints "OS-UP boots=N" on the serial port, verifies what earlier boots wrote
# by /sums, writes 16 MiB of noise to /data.N, prints "OS-SYNC", syncs, prints "OS-OK ... boots=N
# data=SHA256 ..." (or "OS-BAD") and powers off.
# It is shared by all tests: serve it read-only, or a copy, an import or a clone of it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../beds.sh
. "$(dirname "${BASH_SOURCE[0]}")/../beds.sh"
image=$cache/disk.raw
size=640M
start=1048576 # of the partition, bytes

exec 9>"$cache/image.lock"
flock 9
if fresh "$image" "$here/image.sh" "$here/kernel.sh"; then
	echo "$image"
	exit 0
fi
need mmdebstrap extlinux mkfs.ext4 sfdisk
"$here/kernel.sh" >/dev/null
PATH=$PATH:/usr/sbin:/sbin
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
tmp=$(mktemp -d)
cleanup() {
	if mountpoint -q "$tmp/mount"; then "${sudo[@]}" umount "$tmp/mount"; fi
	"${sudo[@]}" rm -rf "$tmp"
}
trap cleanup EXIT
root=$tmp/root
mkdir "$root" "$tmp/mount"

tree=$cache/debian.tar
if [ ! -e "$tree" ]; then
	echo "vm: making a Debian tree" >&2
	"${sudo[@]}" mmdebstrap --quiet --variant=minbase --include=systemd-sysv,udev --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' bookworm "$tree.part.tar" >&2
	mv "$tree.part.tar" "$tree"
fi
echo "vm: making a disk of it" >&2
"${sudo[@]}" tar -C "$root" -xf "$tree" --exclude='./dev/*' --exclude='./var/lib/apt/lists/*' --exclude='./var/cache/apt/*'

mkdir -p "$tmp/add/etc/systemd/system/multi-user.target.wants" "$tmp/add/boot" "$tmp/add/usr/local/sbin"
cat >"$tmp/add/etc/systemd/system/boots.service" <<'UNIT'
[Unit]
Description=Count the boots on the disk and tell the serial port
After=basic.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/count-boots
UNIT
cat >"$tmp/add/usr/local/sbin/count-boots" <<'BOOTS'
#!/bin/bash
exec >/dev/ttyS0 2>&1
set -eo pipefail
trap 'echo "OS-BAD line $LINENO"; systemctl poweroff --force' ERR
uptime() { cut -d' ' -f1 /proc/uptime; }
echo "boot $(uptime)" >>/boots
n=$(wc -l </boots)
echo "OS-UP boots=$n"
[ ! -e /sums ] || sha256sum --quiet -c /sums
head -c 16M /dev/urandom >"/data.$n"
echo OS-SYNC
sync
sha256sum "/data.$n" >>/sums
sync
echo "OS-OK $(. /etc/os-release; echo "$PRETTY_NAME") boots=$n data=$(cut -d' ' -f1 /sums | tail -n1) $(uptime)s"
systemctl poweroff --force
BOOTS
chmod +x "$tmp/add/usr/local/sbin/count-boots"
# A login on the serial port would hang up on who speaks there.
ln -s /dev/null "$tmp/add/etc/systemd/system/serial-getty@ttyS0.service"
ln -s ../boots.service "$tmp/add/etc/systemd/system/multi-user.target.wants/"
ln -s /lib/systemd/system/multi-user.target "$tmp/add/etc/systemd/system/default.target"
echo '/dev/vda1 / ext4 defaults 0 1' >"$tmp/add/etc/fstab"
echo guest >"$tmp/add/etc/hostname"
cp "$cache/vmlinuz" "$cache/initrd.img" "$tmp/add/boot/"
cat >"$tmp/add/boot/extlinux.conf" <<'CONF'
SERIAL 0 115200
DEFAULT linux
PROMPT 0
LABEL linux
 LINUX /boot/vmlinuz
 INITRD /boot/initrd.img
 APPEND console=ttyS0 quiet realroot=/dev/vda1 systemd.show_status=0 random.trust_cpu=on mitigations=off
CONF
"${sudo[@]}" cp -rP --remove-destination "$tmp/add/." "$root/"

part=$image.part
rm -f "$part"
truncate -s "$size" "$part"
echo '1M,,L,*' | sfdisk -q "$part"
# extlinux reads neither 64-bit ext4 nor its checksums.
"${sudo[@]}" mkfs.ext4 -q -F -O ^64bit,^metadata_csum -d "$root" -E "offset=$start" "$part" $((($(stat -c %s "$part") - start) / 1024))k
"${sudo[@]}" mount -o "loop,offset=$start" "$part" "$tmp/mount"
"${sudo[@]}" extlinux --install "$tmp/mount/boot" >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; exit 1; }
"${sudo[@]}" umount "$tmp/mount"
for mbr in /usr/lib/syslinux/mbr/mbr.bin /usr/lib/EXTLINUX/mbr.bin; do
	[ -e "$mbr" ] && break
done
dd if="$mbr" of="$part" bs=440 count=1 conv=notrunc status=none
mv "$part" "$image"
built "$image" "$here/image.sh" "$here/kernel.sh"
echo "$image"
