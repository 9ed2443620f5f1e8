#!/usr/bin/env bash
# run.sh DIR: boots user-mode-linux and runs DIR/run.sh in it as root; ends with the status of that, or 98 if there is none.
#
# The guest sees the host's file system read-only, and DIR at its own path to write to; /run is its own. What is
# written to this script's input arrives at the guest's console, what the guest says there comes out.
# If there is a device tap0 (in the network namespace of the caller), the guest is 10.9.0.2 on it and the host 10.9.0.1.
# A guest that is not up within 30 seconds is started once more. MEM (default 384M); LIMIT in seconds (default 120).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../beds.sh
. "$(dirname "${BASH_SOURCE[0]}")/../beds.sh"
[ $# = 1 ] || { echo "usage: run.sh DIR" >&2; exit 2; }
share=$(cd "$1" && pwd)
case $share in *[\ ,=]* | /run/* | /proc/* | /sys/* | /dev/*) echo "run.sh: the guest cannot see $share" >&2; exit 2 ;; esac
need ip busybox stty mountpoint
"$here/kernel.sh" >/dev/null
net=()
[ ! -e /sys/class/net/tap0 ] && ! ip link show tap0 >/dev/null 2>&1 || net=(eth0=tuntap,tap0)

exec 3<&0
guest= limit=
end() {
	# The kernel and its helpers are one process group: none is left behind.
	[ -z "$guest" ] || kill -KILL -- "-$guest" 2>/dev/null || true
	[ -z "$limit" ] || kill "$limit" 2>/dev/null || true
}
trap end EXIT
trap 'exit 1' INT TERM
sleep "${LIMIT:-120}" </dev/null >/dev/null 2>&1 &
limit=$!
boot() {
	rm -rf "$share/up" "$share/rc"
	# The kernel keeps the guest's memory in TMPDIR if there is one; its own choice is in memory.
	env -u TMPDIR -u TMP -u TEMP setsid "$cache/linux" mem="${MEM:-384M}" root=/dev/root rootfstype=hostfs rootflags=/ ro \
		init="$cache/init" bed="$cache" share="$share" uml_dir="$share/.uml" "${net[@]}" con=null con0=fd:0,fd:1 ssl=null quiet <&3 &
	guest=$!
	for _ in $(seq 300); do
		[ ! -e "$share/up" ] || return 0
		kill -0 "$guest" 2>/dev/null || return 1
		sleep .1
	done
	return 1
}
if ! boot; then
	echo "run.sh: the guest did not come up; once more" >&2
	kill -KILL -- "-$guest" 2>/dev/null || true
	boot || { echo "run.sh: the guest does not come up" >&2; exit 98; }
fi
wait -n "$guest" "$limit" || true
if [ ! -e "$share/rc" ]; then
	echo "run.sh: the guest ended without a result" >&2
	exit 98
fi
exit "$(cat "$share/rc")"
