# shellcheck shell=bash
# beds.sh: sourced by the scripts that build test beds, in directories beside it; where they keep what they build.
here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
bed=${here##*/}
cache=${SKERRY_CACHE:-$(cd "$here/../.." && pwd)/.cache}/$bed
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# fresh FILE SOURCE...: whether FILE was built by these sources as they are now.
fresh() { [ -e "$1" ] && [ "$(cat "$1.sum" 2>/dev/null)" = "$(cat "${@:2}" | sha256sum)" ]; }

# built FILE SOURCE...: notes that FILE was built by these sources.
built() { cat "${@:2}" | sha256sum >"$1.sum"; }

# need PROGRAM...: fails with the command that installs what is missing.
need() {
	local p
	for p in "$@"; do
		PATH=$PATH:/usr/sbin:/sbin command -v "$p" >/dev/null || { echo "$p is missing: run scripts/deps.sh $bed" >&2; exit 1; }
	done
}
