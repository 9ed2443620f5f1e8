#!/usr/bin/env bash
# fuzz.sh TIME [PACKAGE...]: runs every fuzz target for TIME each, one after the other;
# goes on after a failure and ends with 1 if there was one.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
time=${1:?usage: fuzz.sh TIME [PACKAGE...]}
shift
[ $# -gt 0 ] || set -- ./...

# `go test -list` prints the targets of a package, then "ok PACKAGE".
targets=$("$go" test -list '^Fuzz' "$@" | awk '/^Fuzz/ {t[n++] = $1} /^ok/ {for (i = 0; i < n; i++) print $2, t[i]; n = 0}')
failed=()
count=0
while read -r package target; do
	[ -n "$target" ] || continue
	count=$((count + 1))
	echo "== $package $target"
	"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 100x "$package" </dev/null || failed+=("$package.$target")
done <<<"$targets"
if [ ${#failed[@]} -gt 0 ]; then
	echo "fuzz: ${#failed[@]} of $count targets failed: ${failed[*]}" >&2
	exit 1
fi
echo "fuzz: $count targets, no failure"
