# shellcheck shell=bash
# guest.sh: sourced by the scripts that boot a guest.

# shellcheck source-path=SCRIPTDIR source=../beds.sh
. "$(dirname "${BASH_SOURCE[0]}")/../beds.sh"

# boot_guest BLOCKDEV...: boots a guest by its BIOS from the disk that QEMU calls "disk", and
# ends the script when the guest powers off: with 0 if it said OS-OK, else with 1. The serial
# console goes to stdout. A guest that takes longer than LIMIT seconds (default 120) is ended,
# and that is a failure.
boot_guest() {
	local script status=0 blockdevs=() b
	script=$(basename "$0")
	need qemu-system-x86_64
	for b; do blockdevs+=(-blockdev "$b"); done
	console=$(mktemp)
	guest=
	trap 'rm -f "$console"' EXIT
	trap '[ -z "$guest" ] || kill "$guest" 2>/dev/null || true; exit 1' INT TERM
	# The guest must not outlive this script, however that ends.
	setpriv --pdeathsig TERM timeout -k 5 "${LIMIT:-120}" qemu-system-x86_64 \
		-M q35 -accel tcg,thread=multi -cpu max,la57=off -m 512 -smp 1 \
		-nodefaults -no-user-config -display none -no-reboot \
		-chardev "stdio,id=console,signal=off,logfile=$console" -serial chardev:console \
		"${blockdevs[@]}" -device virtio-blk-pci,drive=disk,bootindex=1,num-queues=1 </dev/null &
	guest=$!
	wait "$guest" || status=$?
	case $status in
	0) ;;
	124 | 137) echo "$script: the guest did not end within ${LIMIT:-120}s" >&2; exit 1 ;;
	*) echo "$script: qemu ended with status $status" >&2; exit 1 ;;
	esac
	grep -q OS-OK "$console" || { echo "$script: the guest did not say OS-OK" >&2; exit 1; }
	exit 0
}
