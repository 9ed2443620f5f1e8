#!/usr/bin/env bash
# check.sh: what must hold before a commit: format, vet, staticcheck, the layers, and
# under the race detector the tests of the packages that differ from HEAD and of all
# packages that depend on them, but for those that take long.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}

echo "== gofmt"
unformatted=$(git ls-files -z --cached --others --exclude-standard -- '*.go' | xargs -0r ls -d 2>/dev/null | xargs -r gofmt -l)
if [ -n "$unformatted" ]; then
	echo "not formatted; run gofmt -w on:" >&2
	echo "$unformatted" >&2
	exit 1
fi
echo "== vet"
"$go" vet ./...
echo "== staticcheck"
"$go" tool staticcheck ./...
echo "== layers"
"$go" test ./scripts/layers

# A package is changed if a file of it is, or one below it in a directory that is no
# package (testdata).
declare -A package
while read -r dir path; do package[$dir]=$path; done < <("$go" list -f '{{.Dir}} {{.ImportPath}}' ./...)
changed=()
all=
while IFS= read -r -d '' file; do
	case $file in
	go.mod | go.sum) all=1 ;;
	esac
	dir=$PWD/$(dirname "$file")
	while [ "$dir" != "$PWD" ] && [ "$dir" != "$PWD/." ]; do
		if [ -n "${package[$dir]:-}" ]; then
			changed+=("${package[$dir]}")
			break
		fi
		dir=$(dirname "$dir")
	done
done < <(git diff -z --name-only HEAD && git ls-files -z --others --exclude-standard)

tests=
if [ -n "$all" ]; then
	tests=./...
elif [ ${#changed[@]} -gt 0 ]; then
	# Each test binary is listed with all that it is built from.
	tests=$("$go" list -test -f '{{if .ForTest}}{{else if eq .Name "main"}}{{.ImportPath}} {{join .Deps " "}}{{end}}' ./... |
		awk -v changed="${changed[*]}" '
			BEGIN {n = split(changed, c, " "); for (i = 1; i <= n; i++) want[c[i]] = 1}
			sub(/\.test$/, "", $1) {for (i = 1; i <= NF; i++) if ($i in want) {print $1; next}}')
fi
echo "== tests of what changed"
if [ -z "$tests" ]; then
	echo "nothing with tests changed"
else
	# Those that boot guests or go on for more than some seconds are left to make test.
	long='InAGuest$|^TestInteropGuest|^TestInteropLibvirtGuest|^TestFsx(NBD|FUSE|BothDoors)|^TestLazyImport$|^TestLazyImportByReflink$'
	long+='|^Test(Demo|R18FileSystem|InteropFioFile|InterruptedCommands|KilledCommandsAreDoneOrNot|CrashKilledServersLoseNothing)$'
	long+='|^Test(MemoryOfServeIsBounded|ServeEndsCleanlyBesideAClientThatDoesNotRead|Comparison)$'
	long+='|^Test(FileSystems|KilledServerLosesNothing|DeadServer|AttachedDeviceIsWhatTheExportIs)$' # nbd/kernel
	# shellcheck disable=SC2086
	"$go" test -race -skip "$long" -timeout 20m $tests
fi
echo "check: all passed"
