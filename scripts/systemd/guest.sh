#!/usr/bin/env bash
# guest.sh DIR: boots a Debian guest with systemd and runs DIR/run in it, as root, with a copy of DIR as /mnt.
#
# What run writes goes to stdout, through the serial port, and so does what goes wrong before. The script ends when run has ended:
# 0 if run did, else 1. The guest's disk is that of scripts/vm/image.sh; what is written there
# is forgotten. A guest that takes longer than LIMIT seconds (default 300) is ended, and that is a failure.
set -euo pipefail
[ $# = 1 ] || { echo "usage: guest.sh DIR" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for p in qemu-system-x86_64 mkfs.ext4; do
	PATH=$PATH:/usr/sbin:/sbin command -v "$p" >/dev/null || { echo "$p is missing: run scripts/deps.sh vm" >&2; exit 1; }
done
disk=$("$here/../vm/image.sh")
kernel=$("$here/../vm/kernel.sh")

tmp=$(mktemp -d)
guest=
trap 'rm -rf "$tmp"' EXIT
trap '[ -z "$guest" ] || kill "$guest" 2>/dev/null || true; exit 1' INT TERM
size=$(du -sm "$1" | cut -f1)
truncate -s "$((size + size / 4 + 16))M" "$tmp/share"
PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -F -O ^has_journal -d "$1" "$tmp/share"

# Nothing of the guest is kept: it need not shut down. stty waits until the serial port has sent what was written.
job="mount /dev/vdb /mnt && /mnt/run; echo GUEST-EXIT \$?; stty -F /dev/ttyS0 -echo; echo o >/proc/sysrq-trigger"
# The guest must not outlive this script, however that ends.
TMPDIR=$tmp setpriv --pdeathsig TERM timeout -k 5 "${LIMIT:-300}" qemu-system-x86_64 \
	-M q35 -accel tcg,thread=multi -cpu max,la57=off -m 768 -smp 2 \
	-nodefaults -no-user-config -display none -no-reboot \
	-chardev "stdio,id=console,signal=off,logfile=$tmp/console" -serial chardev:console \
	-drive "file=$disk,format=raw,if=virtio,snapshot=on" -drive "file=$tmp/share,format=raw,if=virtio" \
	-kernel "$kernel/vmlinuz" -initrd "$kernel/initrd.img" \
	-append "console=ttyS0 quiet realroot=/dev/vda1 systemd.show_status=0 random.trust_cpu=on mitigations=off \
systemd.unit=kernel-command-line.target systemd.run_success_action=none systemd.run_failure_action=poweroff-force \
systemd.run=\"/bin/bash -c '( $job ) >/dev/ttyS0 2>&1'\"" </dev/null &
guest=$!
status=0
wait "$guest" || status=$?
case $status in
0) ;;
124 | 137) echo "guest: it did not end within ${LIMIT:-300}s" >&2; exit 1 ;;
*) echo "guest: qemu ended with status $status" >&2; exit 1 ;;
esac
grep -q '^GUEST-EXIT 0' "$tmp/console" || { echo "guest: what ran in it failed" >&2; exit 1; }
