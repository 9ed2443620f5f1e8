#!/usr/bin/env bash
# boot-nbd.sh SOCKET EXPORT | boot-nbd.sh URI: boots a guest whose only disk is an NBD export.
#
# SOCKET is a Unix socket; URI is nbd+unix:///EXPORT?socket=PATH or nbd://HOST[:PORT]/EXPORT.
# QEMU's own client reads the disk. See boot_guest in guest.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
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

boot_guest "driver=nbd,node-name=disk,$server,export=$export,reconnect-delay=10,discard=unmap,detect-zeroes=unmap"
