#!/usr/bin/env bash
# boot-nbd.sh SOCKET EXPORT | boot-nbd.sh URI: boots a guest whose only disk is an NBD export.
#
# SOCKET is a Unix socket; URI is nbd+unix:///EXPORT?socket=PATH or nbd://HOST[:PORT]/EXPORT.
# QEMU's own client reads the disk, the BIOS boots from it. The serial console goes to
# stdout. The script ends when the guest powers off: 0 if it said OS-OK, else 1. A guest
# that takes longer than LIMIT seconds (default 120) is ended, and that is a failure.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../beds.sh
. "$(dirname "${BASH_SOURCE[0]}")/../beds.sh"
need qemu-system-x86_64
usage() { echo "usage: boot-nbd.sh SOCKET EXPORT | boot-nbd.sh URI" >&2; exit 2; }

case $#:${1:-} in
1:nbd+unix:///*\?socket=*)
	server="server.type=unix,server.path=${1#*\?socket=}"
	export=${1#nbd+unix:///}
	export=${export%%\?*}
	;;
1:nbd://*/*)
	address=${1#nbd://}
	export=${address#*/}
	address=${address%%/*}
	port=10809
	case $address in *:*) port=${address##*:} address=${address%:*} ;; esac
	server="server.type=inet,server.host=$address,server.port=$port"
	;;
2:*) server="server.type=unix,server.path=$1" export=$2 ;;
*) usage ;;
esac

console=$(mktemp)
guest=
trap 'rm -f "$console"' EXIT
trap '[ -z "$guest" ] || kill "$guest" 2>/dev/null || true; exit 1' INT TERM
# The guest must not outlive this script, however that ends.
setpriv --pdeathsig TERM timeout -k 5 "${LIMIT:-120}" qemu-system-x86_64 \
	-M q35 -accel tcg,thread=multi -cpu max,la57=off -m 512 -smp 1 \
	-nodefaults -no-user-config -display none -no-reboot \
	-chardev "stdio,id=console,signal=off,logfile=$console" -serial chardev:console \
	-blockdev "driver=nbd,node-name=disk,$server,export=$export,reconnect-delay=10,discard=unmap,detect-zeroes=unmap" \
	-device virtio-blk-pci,drive=disk,bootindex=1,num-queues=1 </dev/null &
guest=$!
status=0
wait "$guest" || status=$?
case $status in
0) ;;
124 | 137) echo "boot-nbd: the guest did not end within ${LIMIT:-120}s" >&2; exit 1 ;;
*) echo "boot-nbd: qemu ended with status $status" >&2; exit 1 ;;
esac
grep -q OS-OK "$console" || { echo "boot-nbd: the guest did not say OS-OK" >&2; exit 1; }
