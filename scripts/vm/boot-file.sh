#!/usr/bin/env bash
# boot-file.sh FILE [AIO]: boots a guest whose only disk is a raw file.
#
# QEMU opens the file with O_DIRECT, locks it, and does its I/O in the manner of AIO: native
# (default), threads or io_uring. See boot_guest in guest.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
case $# in
1 | 2) ;;
*) echo "usage: boot-file.sh FILE [AIO]" >&2; exit 2 ;;
esac
# A comma in a value is written twice.
boot_guest "driver=file,node-name=file,filename=${1//,/,,},aio=${2:-native},cache.direct=on,locking=on,discard=unmap" \
	"driver=raw,node-name=disk,file=file,cache.direct=on,discard=unmap,detect-zeroes=unmap"
