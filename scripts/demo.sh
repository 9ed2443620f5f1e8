#!/usr/bin/env bash
# demo.sh: shows on this machine what skerry does, with bin/skerry (or SKERRY), a temporary pool
# and a real disk image; checks every step and cleans up. Needs scripts/deps.sh demo, no root.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${SKERRY:-$PWD/bin/skerry}
[ -x "$binary" ] || { echo "demo: $binary is missing: run make build" >&2; exit 1; }
for p in qemu-img qemu-io nbdinfo nbdcopy cmp; do
	command -v "$p" >/dev/null || { echo "demo: $p is missing: run scripts/deps.sh demo" >&2; exit 1; }
done

dir=$(mktemp -d "${TMPDIR:-/tmp}/skerry-demo.XXXXXX")
server=
cleanup() {
	status=$?
	if [ -n "$server" ]; then
		kill "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
	fi
	rm -rf "$dir"
	[ "$status" = 0 ] || echo "demo: FAILED" >&2
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# A terminal gets bold titles.
bold='' plain=''
[ ! -t 1 ] || bold=$'\e[1m' plain=$'\e[0m'
title() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
# show COMMAND...: shows a command, then runs it.
show() {
	printf '$ %s\n' "${*@Q}" | sed "s/'\([][A-Za-z0-9_.,:/=@%+-]*\)'/\1/g"
	"$@"
}
# same FILE FILE: both have the same content.
same() { show cmp "$1" "$2" && echo "same"; }
# Everything below uses the pool by default.
skerry() { "$binary" --pool file://"$dir"/pool "$@"; }

# serve NAME: starts a server, waits until it is ready and sets uri.
serve() {
	local fifo=$dir/ready
	rm -f "$fifo"
	mkfifo "$fifo"
	printf '$ skerry serve %s --nbd unix:%s &\n' "$1" "$dir/nbd.sock"
	"$binary" --pool file://"$dir"/pool serve "$1" --nbd unix:"$dir"/nbd.sock >"$fifo" &
	server=$!
	# The server keeps the FIFO open for writing; the first line is the URI.
	exec 3<"$fifo"
	if ! read -r -t 30 uri <&3; then
		echo "demo: the server did not become ready" >&2
		exit 1
	fi
	echo "$uri"
}
# stop: ends the server cleanly.
stop() {
	printf '$ kill %s; wait\n' "$server"
	kill "$server"
	wait "$server"
	server=
	exec 3<&-
}

echo "making a disk image: 256 MiB, ext4, Go's standard library"
scripts/demo-image.sh "$dir/disk.raw"
cd "$dir"
started=$SECONDS

title "A pool, and a disk image imported into it"
show skerry init
show skerry import disk.qcow2 golden
show skerry snapshot golden@v1
show skerry ls

title "A clone: no data is copied"
show skerry clone golden@v1 vm1
show skerry info vm1

title "The clone as an NBD device: it reads as the image does"
serve vm1
show nbdinfo "$uri"
show nbdcopy "$uri" read.raw
same disk.raw read.raw

title "Write to it, take a snapshot while it is served, write on"
show qemu-io -f raw -c 'write -P 0xaa 64M 1M' -c flush "$uri"
cp --sparse=always disk.raw want.raw
qemu-io -f raw -c 'write -P 0xaa 64M 1M' want.raw >/dev/null
show skerry snapshot vm1@good
show qemu-io -f raw -c 'write -P 0xbb 32M 100M' -c 'discard 0 16M' -c flush "$uri"
stop

title "Roll back, and compare with what was there at the snapshot"
show skerry info vm1@good
show skerry rollback vm1@good
show skerry export vm1 back.raw
same want.raw back.raw

title "The image never changed, and all is in order"
show skerry export golden@v1 golden.raw
same disk.raw golden.raw
show skerry ls
show skerry check

title "Removal gives the space back"
show skerry rm vm1 --snapshots
show skerry gc
show skerry ls

printf '\ndemo: all steps checked in %ss: import, clone, serve, write, snapshot, rollback, export, check\n' $((SECONDS - started))
