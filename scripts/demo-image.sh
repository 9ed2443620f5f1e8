#!/usr/bin/env bash
# demo-image.sh OUT.raw: makes a small real disk: 256 MiB, sparse, one MBR partition with an
# ext4 file system that holds Go's standard library. Beside it OUT.qcow2, if qemu-img is there.
#
# It needs no root, no loop device and no network.
set -euo pipefail
out=${1:?usage: demo-image.sh OUT.raw}
PATH=$PATH:/usr/sbin:/sbin
size=$((256 << 20))
start=$((1 << 20)) # of the partition

for p in sfdisk mkfs.ext4; do
	command -v "$p" >/dev/null || { echo "$p is missing: run scripts/deps.sh demo" >&2; exit 1; }
done
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
src=$("${GO:-go}" env GOROOT)/src
# The go command's own source is as large as all the rest.
tar -C "$src" -cf - --exclude=./cmd --exclude=testdata . | tar -C "$tree" -xf -

rm -f "$out"
truncate -s "$size" "$out"
echo '1M,,L' | sfdisk -q "$out"
mkfs.ext4 -q -F -L demo -d "$tree" -E "offset=$start" "$out" $(((size - start) / 1024))k
if command -v qemu-img >/dev/null; then
	qemu-img convert -f raw -O qcow2 "$out" "${out%.raw}.qcow2"
fi
